//! The mobile family by name, and what its published weights expect.

use super::tables::{EFFICIENTNET, EFFICIENTNET_LITE};
use super::{Head, MobileNetConfig};
use crate::error::Result;
use crate::io::Interpolation::{Bicubic, Bilinear};
use crate::models::preprocessing::{HALF, IMAGENET, NONE, Published, published, squashed};
use crate::models::registry::Family;
use crate::models::{Model, ModelOptions};

/// MobileNetV1 to V3, EfficientNet, EfficientNet-Lite and EfficientNetV2.
pub(in crate::models) const FAMILY: Family = Family {
    names: &[
        "mobilenetv1_025",
        "mobilenetv1_050",
        "mobilenetv1_075",
        "mobilenetv1_100",
        "mobilenetv1_100h",
        "mobilenetv1_125",
        "mobilenetv2_035",
        "mobilenetv2_050",
        "mobilenetv2_075",
        "mobilenetv2_100",
        "mobilenetv2_110d",
        "mobilenetv2_120d",
        "mobilenetv2_140",
        "mobilenetv3_small_050",
        "mobilenetv3_small_075",
        "mobilenetv3_small_100",
        "mobilenetv3_large_075",
        "mobilenetv3_large_100",
        "efficientnet_b0",
        "efficientnet_b1",
        "efficientnet_b2",
        "efficientnet_b3",
        "efficientnet_b4",
        "efficientnet_b5",
        "efficientnet_b6",
        "efficientnet_b7",
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
        "efficientnet_lite3",
        "efficientnet_lite4",
        "efficientnetv2_s",
        "efficientnetv2_m",
        "efficientnetv2_l",
    ],
    patterns: &[
        ("mobilenetv1_NNN", "any width, in hundredths; so mobilenetv2_NNN, mobilenetv3_large_NNN and mobilenetv3_small_NNN"),
        ("efficientnet_phiX", "depth, width and resolution by one coefficient"),
        ("tf_NAME", "a network of the mobile family with TensorFlow's padding and epsilon"),
    ],
    parse,
    published: PUBLISHED,
};

fn parse(name: &str, options: &ModelOptions) -> Option<Result<Model>> {
    let (rest, tensorflow) = name.strip_prefix("tf_").map_or((name, false), |rest| (rest, true));
    let (config, resolution) = config(rest, options.width)?;
    Some(config.map(|config| {
        let mut config = if tensorflow { config.as_tensorflow() } else { config };
        config.channels = options.channels;
        config.stem_stride = options.stem_stride.unwrap_or(config.stem_stride);
        config.drop_rate = options.drop_rate;
        Model::new(resolution, config.with_drop_path(options.drop_path))
    }))
}

/// Hundredths as a factor: `075` is 0.75.
fn hundredths(text: &str) -> Option<f64> {
    (text.len() == 3).then(|| text.parse::<u16>().ok()).flatten().map(|n| f64::from(n) / 100.0)
}

/// EfficientNet's rule with one coefficient: depth 1.2^phi, width 1.1^phi, resolution 224 *
/// 1.15^phi (equation 3 of the paper). The named networks B1 to B7 are its authors' roundings of
/// it.
fn compound(phi: f64) -> (f64, f64, usize) {
    (1.1f64.powf(phi), 1.2f64.powf(phi), (224.0 * 1.15f64.powf(phi)).round() as usize)
}

/// A network of the mobile family and its resolution; `None` where the name is of another.
fn config(name: &str, factor: f64) -> Option<(Result<MobileNetConfig>, usize)> {
    let width = |text| Some(hundredths(text)? * factor);
    if let Some(rest) = name.strip_prefix("mobilenetv1_") {
        // timm's "h" network has a convolution before the pooling.
        let (rest, head) = rest.strip_suffix('h').map_or((rest, Head::Pool), |rest| (rest, Head::Convolution(1024)));
        return Some((MobileNetConfig::v1(width(rest)?).map(|config| MobileNetConfig { head, ..config }), 224));
    }
    if let Some(rest) = name.strip_prefix("mobilenetv2_") {
        // timm's "d" networks are deeper.
        let (rest, depth) = match rest {
            "110d" => ("110", 1.2),
            "120d" => ("120", 1.4),
            _ => (rest, 1.0),
        };
        return Some((MobileNetConfig::v2(width(rest)?, depth), 224));
    }
    if let Some(rest) = name.strip_prefix("mobilenetv3_large_") {
        return Some((MobileNetConfig::v3(true, width(rest)?), 224));
    }
    if let Some(rest) = name.strip_prefix("mobilenetv3_small_") {
        return Some((MobileNetConfig::v3(false, width(rest)?), 224));
    }
    if let Some(size) = name.strip_prefix("efficientnetv2_") {
        // Their authors' resolutions of evaluation.
        return Some((MobileNetConfig::efficientnet_v2(size, factor), if size == "s" { 384 } else { 480 }));
    }
    if let Some(rest) = name.strip_prefix("efficientnet_lite") {
        let (width, depth, resolution) = EFFICIENTNET_LITE.get(rest.parse::<usize>().ok()?)?;
        return Some((MobileNetConfig::efficientnet_lite(width * factor, *depth), *resolution));
    }
    let rest = name.strip_prefix("efficientnet_")?;
    let (width, depth, resolution) = match rest.strip_prefix("phi") {
        Some(phi) => compound(phi.parse().ok()?),
        None => *EFFICIENTNET.get(rest.strip_prefix('b')?.parse::<usize>().ok()?)?,
    };
    Some((MobileNetConfig::efficientnet(width * factor, depth), resolution))
}

#[rustfmt::skip]
const PUBLISHED: &[Published] = &[
    published("mobilenetv1_100", "ra4_e3600_r224_in1k", 224, 0.875, Bicubic, HALF),
    published("mobilenetv1_100h", "ra4_e3600_r224_in1k", 224, 0.875, Bicubic, HALF),
    published("mobilenetv1_125", "ra4_e3600_r224_in1k", 224, 0.9, Bicubic, HALF),
    published("mobilenetv2_035", "", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv2_050", "lamb_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv2_075", "", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv2_100", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv2_110d", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv2_120d", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv2_140", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv3_large_075", "", 224, 0.875, Bilinear, IMAGENET),
    published("mobilenetv3_large_100", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv3_large_100", "miil_in21k miil_in21k_ft_in1k", 224, 0.875, Bilinear, NONE),
    published("mobilenetv3_large_100", "ra4_e3600_r224_in1k", 224, 0.95, Bicubic, HALF),
    published("mobilenetv3_small_050", "lamb_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv3_small_075", "lamb_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("mobilenetv3_small_100", "lamb_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("tf_mobilenetv3_large_075", "in1k", 224, 0.875, Bilinear, HALF),
    published("tf_mobilenetv3_large_100", "in1k", 224, 0.875, Bilinear, HALF),
    published("tf_mobilenetv3_small_075", "in1k", 224, 0.875, Bilinear, HALF),
    published("tf_mobilenetv3_small_100", "in1k", 224, 0.875, Bilinear, HALF),
    published("efficientnet_b0", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("efficientnet_b0", "ra4_e3600_r224_in1k", 224, 0.9, Bicubic, HALF),
    published("efficientnet_b1", "ra4_e3600_r240_in1k", 240, 0.9, Bicubic, HALF),
    published("efficientnet_b1", "ft_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("efficientnet_b2", "ra_in1k", 256, 0.875, Bicubic, IMAGENET),
    published("efficientnet_b3", "ra2_in1k", 288, 0.875, Bicubic, IMAGENET),
    published("efficientnet_b4", "ra2_in1k", 320, 0.875, Bicubic, IMAGENET),
    squashed(published("efficientnet_b5", "sw_in12k_ft_in1k", 448, 1.0, Bicubic, IMAGENET)),
    published("efficientnet_b5", "sw_in12k", 416, 0.95, Bicubic, IMAGENET),
    published("efficientnet_b6", "", 528, 0.942, Bicubic, IMAGENET),
    published("efficientnet_b7", "", 600, 0.949, Bicubic, IMAGENET),
    published("efficientnet_lite0", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("efficientnet_lite1", "", 240, 0.882, Bicubic, IMAGENET),
    published("efficientnet_lite2", "", 260, 0.89, Bicubic, IMAGENET),
    published("efficientnet_lite3", "", 300, 0.904, Bicubic, IMAGENET),
    published("efficientnet_lite4", "", 380, 0.922, Bicubic, IMAGENET),
    published("tf_efficientnet_b0", "ns_jft_in1k aa_in1k in1k", 224, 0.875, Bicubic, IMAGENET),
    published("tf_efficientnet_b0", "ap_in1k", 224, 0.875, Bicubic, HALF),
    published("tf_efficientnet_b1", "ns_jft_in1k aa_in1k in1k", 240, 0.882, Bicubic, IMAGENET),
    published("tf_efficientnet_b1", "ap_in1k", 240, 0.882, Bicubic, HALF),
    published("tf_efficientnet_b2", "ns_jft_in1k aa_in1k in1k", 260, 0.89, Bicubic, IMAGENET),
    published("tf_efficientnet_b2", "ap_in1k", 260, 0.89, Bicubic, HALF),
    published("tf_efficientnet_b3", "ns_jft_in1k aa_in1k in1k", 300, 0.904, Bicubic, IMAGENET),
    published("tf_efficientnet_b3", "ap_in1k", 300, 0.904, Bicubic, HALF),
    published("tf_efficientnet_b4", "ns_jft_in1k aa_in1k in1k", 380, 0.922, Bicubic, IMAGENET),
    published("tf_efficientnet_b4", "ap_in1k", 380, 0.922, Bicubic, HALF),
    published("tf_efficientnet_b5", "ns_jft_in1k aa_in1k in1k ra_in1k", 456, 0.934, Bicubic, IMAGENET),
    published("tf_efficientnet_b5", "ap_in1k", 456, 0.934, Bicubic, HALF),
    published("tf_efficientnet_b6", "ns_jft_in1k aa_in1k", 528, 0.942, Bicubic, IMAGENET),
    published("tf_efficientnet_b6", "ap_in1k", 528, 0.942, Bicubic, HALF),
    published("tf_efficientnet_b7", "ns_jft_in1k aa_in1k ra_in1k", 600, 0.949, Bicubic, IMAGENET),
    published("tf_efficientnet_b7", "ap_in1k", 600, 0.949, Bicubic, HALF),
    published("tf_efficientnet_lite0", "in1k", 224, 0.875, Bicubic, HALF),
    published("tf_efficientnet_lite1", "in1k", 240, 0.882, Bicubic, HALF),
    published("tf_efficientnet_lite2", "in1k", 260, 0.89, Bicubic, HALF),
    published("tf_efficientnet_lite3", "in1k", 300, 0.904, Bilinear, HALF),
    published("tf_efficientnet_lite4", "in1k", 380, 0.92, Bilinear, HALF),
    published("efficientnetv2_l", "", 384, 1.0, Bicubic, IMAGENET),
    published("efficientnetv2_m", "", 320, 1.0, Bicubic, IMAGENET),
    published("efficientnetv2_s", "", 288, 1.0, Bicubic, IMAGENET),
    squashed(published("tf_efficientnetv2_l", "in21k_ft_in1k in1k in21k", 384, 1.0, Bicubic, HALF)),
    squashed(published("tf_efficientnetv2_m", "in21k_ft_in1k in1k in21k", 384, 1.0, Bicubic, HALF)),
    published("tf_efficientnetv2_s", "in21k_ft_in1k in1k in21k", 300, 1.0, Bicubic, HALF),
];

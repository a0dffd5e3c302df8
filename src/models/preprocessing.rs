//! What published weights expect of pictures, by the name that timm gives them.

use super::{ModelOptions, model};
use crate::error::{Error, Result};
use crate::io::Interpolation::{Bicubic, Bilinear};
use crate::io::{Interpolation, Preprocessing};

/// Mean and standard deviation.
type Statistics = ([f32; 3], [f32; 3]);

const IMAGENET: Statistics = Preprocessing::IMAGENET;
const HALF: Statistics = Preprocessing::INCEPTION;
const NONE: Statistics = ([0.0; 3], [1.0; 3]);

/// A model, its weights' tags, and what they expect.
struct Row(&'static str, &'static str, Preprocessing);

const fn row(
    name: &'static str,
    tags: &'static str,
    resolution: usize,
    crop: f64,
    interpolation: Interpolation,
    (mean, std): Statistics,
) -> Row {
    Row(name, tags, Preprocessing { resolution, crop, squash: false, interpolation, mean, std })
}

const fn squashed(Row(name, tags, preprocessing): Row) -> Row {
    Row(name, tags, Preprocessing { squash: true, ..preprocessing })
}

/// timm 1.0's `default_cfgs`: `input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean`, `std`; a model's first tag is the one
/// that timm takes where none is given. Behind `tv_` are torchvision 0.29's networks and its names of weights (`models/*.py`).
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("mobilenetv1_100", "ra4_e3600_r224_in1k", 224, 0.875, Bicubic, HALF),
    row("mobilenetv1_100h", "ra4_e3600_r224_in1k", 224, 0.875, Bicubic, HALF),
    row("mobilenetv1_125", "ra4_e3600_r224_in1k", 224, 0.9, Bicubic, HALF),
    row("mobilenetv2_035", "", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv2_050", "lamb_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv2_075", "", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv2_100", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv2_110d", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv2_120d", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv2_140", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv3_large_075", "", 224, 0.875, Bilinear, IMAGENET),
    row("mobilenetv3_large_100", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv3_large_100", "miil_in21k miil_in21k_ft_in1k", 224, 0.875, Bilinear, NONE),
    row("mobilenetv3_large_100", "ra4_e3600_r224_in1k", 224, 0.95, Bicubic, HALF),
    row("mobilenetv3_small_050", "lamb_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv3_small_075", "lamb_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("mobilenetv3_small_100", "lamb_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("tf_mobilenetv3_large_075", "in1k", 224, 0.875, Bilinear, HALF),
    row("tf_mobilenetv3_large_100", "in1k", 224, 0.875, Bilinear, HALF),
    row("tf_mobilenetv3_small_075", "in1k", 224, 0.875, Bilinear, HALF),
    row("tf_mobilenetv3_small_100", "in1k", 224, 0.875, Bilinear, HALF),
    row("efficientnet_b0", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("efficientnet_b0", "ra4_e3600_r224_in1k", 224, 0.9, Bicubic, HALF),
    row("efficientnet_b1", "ra4_e3600_r240_in1k", 240, 0.9, Bicubic, HALF),
    row("efficientnet_b1", "ft_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("efficientnet_b2", "ra_in1k", 256, 0.875, Bicubic, IMAGENET),
    row("efficientnet_b3", "ra2_in1k", 288, 0.875, Bicubic, IMAGENET),
    row("efficientnet_b4", "ra2_in1k", 320, 0.875, Bicubic, IMAGENET),
    squashed(row("efficientnet_b5", "sw_in12k_ft_in1k", 448, 1.0, Bicubic, IMAGENET)),
    row("efficientnet_b5", "sw_in12k", 416, 0.95, Bicubic, IMAGENET),
    row("efficientnet_b6", "", 528, 0.942, Bicubic, IMAGENET),
    row("efficientnet_b7", "", 600, 0.949, Bicubic, IMAGENET),
    row("efficientnet_lite0", "ra_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("efficientnet_lite1", "", 240, 0.882, Bicubic, IMAGENET),
    row("efficientnet_lite2", "", 260, 0.89, Bicubic, IMAGENET),
    row("efficientnet_lite3", "", 300, 0.904, Bicubic, IMAGENET),
    row("efficientnet_lite4", "", 380, 0.922, Bicubic, IMAGENET),
    row("tf_efficientnet_b0", "ns_jft_in1k aa_in1k in1k", 224, 0.875, Bicubic, IMAGENET),
    row("tf_efficientnet_b0", "ap_in1k", 224, 0.875, Bicubic, HALF),
    row("tf_efficientnet_b1", "ns_jft_in1k aa_in1k in1k", 240, 0.882, Bicubic, IMAGENET),
    row("tf_efficientnet_b1", "ap_in1k", 240, 0.882, Bicubic, HALF),
    row("tf_efficientnet_b2", "ns_jft_in1k aa_in1k in1k", 260, 0.89, Bicubic, IMAGENET),
    row("tf_efficientnet_b2", "ap_in1k", 260, 0.89, Bicubic, HALF),
    row("tf_efficientnet_b3", "ns_jft_in1k aa_in1k in1k", 300, 0.904, Bicubic, IMAGENET),
    row("tf_efficientnet_b3", "ap_in1k", 300, 0.904, Bicubic, HALF),
    row("tf_efficientnet_b4", "ns_jft_in1k aa_in1k in1k", 380, 0.922, Bicubic, IMAGENET),
    row("tf_efficientnet_b4", "ap_in1k", 380, 0.922, Bicubic, HALF),
    row("tf_efficientnet_b5", "ns_jft_in1k aa_in1k in1k ra_in1k", 456, 0.934, Bicubic, IMAGENET),
    row("tf_efficientnet_b5", "ap_in1k", 456, 0.934, Bicubic, HALF),
    row("tf_efficientnet_b6", "ns_jft_in1k aa_in1k", 528, 0.942, Bicubic, IMAGENET),
    row("tf_efficientnet_b6", "ap_in1k", 528, 0.942, Bicubic, HALF),
    row("tf_efficientnet_b7", "ns_jft_in1k aa_in1k ra_in1k", 600, 0.949, Bicubic, IMAGENET),
    row("tf_efficientnet_b7", "ap_in1k", 600, 0.949, Bicubic, HALF),
    row("tf_efficientnet_lite0", "in1k", 224, 0.875, Bicubic, HALF),
    row("tf_efficientnet_lite1", "in1k", 240, 0.882, Bicubic, HALF),
    row("tf_efficientnet_lite2", "in1k", 260, 0.89, Bicubic, HALF),
    row("tf_efficientnet_lite3", "in1k", 300, 0.904, Bilinear, HALF),
    row("tf_efficientnet_lite4", "in1k", 380, 0.92, Bilinear, HALF),
    row("efficientnetv2_l", "", 384, 1.0, Bicubic, IMAGENET),
    row("efficientnetv2_m", "", 320, 1.0, Bicubic, IMAGENET),
    row("efficientnetv2_s", "", 288, 1.0, Bicubic, IMAGENET),
    squashed(row("tf_efficientnetv2_l", "in21k_ft_in1k in1k in21k", 384, 1.0, Bicubic, HALF)),
    squashed(row("tf_efficientnetv2_m", "in21k_ft_in1k in1k in21k", 384, 1.0, Bicubic, HALF)),
    row("tf_efficientnetv2_s", "in21k_ft_in1k in1k in21k", 300, 1.0, Bicubic, HALF),
    row("resnet18", "a1_in1k a2_in1k", 224, 0.95, Bicubic, IMAGENET),
    row("resnet18", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    row("resnet18", "fb_ssl_yfcc100m_ft_in1k fb_swsl_ig1b_ft_in1k tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    row("resnet18", "gluon_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("resnet34", "a1_in1k a2_in1k", 224, 0.95, Bicubic, IMAGENET),
    row("resnet34", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    row("resnet34", "bt_in1k gluon_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("resnet34", "ra4_e3600_r224_in1k", 224, 0.9, Bicubic, HALF),
    row("resnet34", "tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    row("resnet50", "a1_in1k a2_in1k b1k_in1k b2k_in1k c1_in1k c2_in1k d_in1k", 224, 0.95, Bicubic, IMAGENET),
    row("resnet50", "a1h_in1k", 176, 0.9, Bicubic, IMAGENET),
    row("resnet50", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    row("resnet50", "am_in1k bt_in1k gluon_in1k ra_in1k ram_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("resnet50", "bamboo", 224, 1.0, Bicubic, IMAGENET),
    row("resnet50", "fb_ssl_yfcc100m_ft_in1k fb_swsl_ig1b_ft_in1k tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    row("resnet50", "tv2_in1k", 176, 0.875, Bilinear, IMAGENET),
    row("resnet26", "bt_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("resnet101", "a1h_in1k a1_in1k a2_in1k", 224, 0.95, Bicubic, IMAGENET),
    row("resnet101", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    row("resnet101", "gluon_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("resnet101", "tv2_in1k", 176, 0.875, Bilinear, IMAGENET),
    row("resnet101", "tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    row("resnet152", "a1h_in1k a1_in1k a2_in1k", 224, 0.95, Bicubic, IMAGENET),
    row("resnet152", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    row("resnet152", "gluon_in1k", 224, 0.875, Bicubic, IMAGENET),
    row("resnet152", "tv2_in1k", 176, 0.875, Bilinear, IMAGENET),
    row("resnet152", "tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    row("vit_tiny_patch16_224", "augreg_in21k_ft_in1k augreg_in21k", 224, 0.9, Bicubic, HALF),
    row("vit_tiny_patch16_384", "augreg_in21k_ft_in1k", 384, 1.0, Bicubic, HALF),
    row("vit_small_patch16_224", "augreg_in21k_ft_in1k augreg_in1k augreg_in21k", 224, 0.9, Bicubic, HALF),
    row("vit_small_patch16_224", "dino", 224, 0.9, Bicubic, IMAGENET),
    row("vit_small_patch16_384", "augreg_in21k_ft_in1k augreg_in1k", 384, 1.0, Bicubic, HALF),
    row("vit_small_patch32_224", "augreg_in21k_ft_in1k augreg_in21k", 224, 0.9, Bicubic, HALF),
    row("vit_small_patch32_384", "augreg_in21k_ft_in1k", 384, 1.0, Bicubic, HALF),
    row("vit_base_patch16_224", "augreg2_in21k_ft_in1k augreg_in1k augreg_in21k augreg_in21k_ft_in1k orig_in21k orig_in21k_ft_in1k sam_in1k", 224, 0.9, Bicubic, HALF),
    row("vit_base_patch16_224", "dino mae", 224, 0.9, Bicubic, IMAGENET),
    row("vit_base_patch16_384", "augreg_in21k_ft_in1k augreg_in1k orig_in21k_ft_in1k", 384, 1.0, Bicubic, HALF),
    row("vit_base_patch32_224", "augreg_in21k_ft_in1k augreg_in1k augreg_in21k orig_in21k sam_in1k", 224, 0.9, Bicubic, HALF),
    row("vit_base_patch32_384", "augreg_in21k_ft_in1k augreg_in1k", 384, 1.0, Bicubic, HALF),
    row("tv_mobilenet_v2", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_mobilenet_v2", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    row("tv_mobilenet_v3_large", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_mobilenet_v3_large", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    row("tv_mobilenet_v3_small", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_efficientnet_b0", "IMAGENET1K_V1", 224, 0.875, Bicubic, IMAGENET),
    row("tv_efficientnet_b1", "IMAGENET1K_V1", 240, 0.9375, Bicubic, IMAGENET),
    row("tv_efficientnet_b1", "IMAGENET1K_V2", 240, 0.941, Bilinear, IMAGENET),
    row("tv_efficientnet_b2", "IMAGENET1K_V1", 288, 1.0, Bicubic, IMAGENET),
    row("tv_efficientnet_b3", "IMAGENET1K_V1", 300, 0.9375, Bicubic, IMAGENET),
    row("tv_efficientnet_b4", "IMAGENET1K_V1", 380, 0.9895, Bicubic, IMAGENET),
    row("tv_efficientnet_b5", "IMAGENET1K_V1", 456, 1.0, Bicubic, IMAGENET),
    row("tv_efficientnet_b6", "IMAGENET1K_V1", 528, 1.0, Bicubic, IMAGENET),
    row("tv_efficientnet_b7", "IMAGENET1K_V1", 600, 1.0, Bicubic, IMAGENET),
    row("tv_efficientnet_v2_s", "IMAGENET1K_V1", 384, 1.0, Bilinear, IMAGENET),
    row("tv_efficientnet_v2_m", "IMAGENET1K_V1", 480, 1.0, Bilinear, IMAGENET),
    row("tv_efficientnet_v2_l", "IMAGENET1K_V1", 480, 1.0, Bicubic, HALF),
    row("tv_resnet18", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_resnet34", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_resnet50", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_resnet50", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    row("tv_resnet101", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_resnet101", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    row("tv_resnet152", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_resnet152", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    row("tv_vit_b_16", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_vit_b_16", "IMAGENET1K_SWAG_E2E_V1", 384, 1.0, Bicubic, IMAGENET),
    row("tv_vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1", 224, 1.0, Bicubic, IMAGENET),
    row("tv_vit_b_32", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    row("tv_vit_l_16", "IMAGENET1K_V1", 224, 0.925, Bilinear, IMAGENET),
    row("tv_vit_l_16", "IMAGENET1K_SWAG_E2E_V1", 512, 1.0, Bicubic, IMAGENET),
    row("tv_vit_l_16", "IMAGENET1K_SWAG_LINEAR_V1", 224, 1.0, Bicubic, IMAGENET),
    row("tv_vit_l_32", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
];

/// What the weights called `name` (`efficientnet_b0.ra4_e3600_r224_in1k`) expect of pictures; of a name without a tag, those that timm
/// takes for it. Models without published weights get their own resolution and what is most usual.
///
/// # Errors
/// [`Error::Argument`] for a model that there is not, or a tag that its weights do not have, with those that they have.
pub fn preprocessing(name: &str) -> Result<Preprocessing> {
    let (structure, tag) = name.split_once('.').unwrap_or((name, ""));
    let rows = || ROWS.iter().filter(|Row(name, ..)| *name == structure);
    if let Some(Row(.., found)) = rows().find(|Row(_, tags, _)| tag.is_empty() || tags.split(' ').any(|t| t == tag)) {
        return Ok(*found);
    }
    let tags: Vec<&str> = rows().flat_map(|Row(_, tags, _)| tags.split(' ')).filter(|tag| !tag.is_empty()).collect();
    if !tags.is_empty() {
        let message = format!("no weights of {structure} are known as \"{tag}\"; there are {}, or give no tag", tags.join(", "));
        return Err(Error::argument("model", message));
    }
    let (mean, std) = IMAGENET;
    let resolution = model(name, ModelOptions::default())?.resolution;
    Ok(Preprocessing { resolution, crop: 0.875, squash: false, interpolation: Bicubic, mean, std })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_chooses_the_row() {
        let found = |name| preprocessing(name).unwrap();
        assert_eq!(found("efficientnet_b0"), found("efficientnet_b0.ra_in1k"));
        let newer = found("efficientnet_b0.ra4_e3600_r224_in1k");
        assert_eq!((newer.crop, newer.mean), (0.9, [0.5; 3]));
        assert_eq!(found("resnet18.tv_in1k").interpolation, Bilinear);
        assert_eq!((found("tf_efficientnet_b7.ap_in1k").resolution, found("tf_efficientnet_b7.ap_in1k").mean), (600, [0.5; 3]));
        assert!(found("tf_efficientnetv2_m").squash);
        // No weights are published for these.
        assert_eq!(found("efficientnet_phi1.5").resolution, 276);
        assert_eq!(found("mobilenetv1_050.mine").mean, IMAGENET.0);
        let message = preprocessing("resnet34.a9_in1k").unwrap_err().to_string();
        assert!(message.contains("a9_in1k") && message.contains("bt_in1k"), "{message}");
        assert!(preprocessing("nonet_b0").is_err());
    }

    #[test]
    fn every_row_means_something_and_no_tag_comes_twice() {
        let mut names = std::collections::BTreeSet::new();
        for Row(name, tags, preprocessing) in ROWS {
            preprocessing.check().unwrap();
            tags.split(' ').for_each(|tag| assert!(names.insert((name, tag)), "{name}.{tag}"));
        }
        // What timm makes of these, as pixels of the shorter side.
        let scaled = |name: &str| preprocessing(name).map(|p| (p.resolution as f64 / p.crop).floor() as usize).unwrap();
        let sides = [
            "tv_efficientnet_b1.IMAGENET1K_V2",
            "tv_efficientnet_b4",
            "tv_resnet50.IMAGENET1K_V2",
            "tv_vit_l_16",
            "efficientnet_b6",
            "resnet50",
        ];
        assert_eq!(sides.map(scaled), [255, 384, 232, 242, 560, 235]);
    }
}

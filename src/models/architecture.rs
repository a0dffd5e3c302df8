//! Networks by name: timm's names where timm has them.

use super::mobilenet::tables::{EFFICIENTNET, EFFICIENTNET_LITE};
use super::mobilenet::{Head, MobileNet, MobileNetConfig};
use super::{
    Backbone, Classifier, Pixels, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, TextConfig, TextEncoder, Vit, VitConfig, torchvision,
};
use crate::error::{Error, Result};
use crate::nn::Parameters;

/// What may be changed about a named network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelOptions {
    /// Channels of the images.
    pub channels: usize,
    /// Multiplies the network's own width (of a ResNet: the channels of its stages).
    pub width: f64,
    /// Stride of the first convolution; `None` is the network's own. 1 suits images of 32 x 32 and less.
    pub stem_stride: Option<usize>,
    /// Height and width of the images, where the network depends on them; `None` is its own resolution.
    pub size: Option<[usize; 2]>,
    /// Dropout before the classifier.
    pub drop_rate: f32,
    /// Stochastic depth of the last block; earlier ones have less, in proportion.
    pub drop_path: f32,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { channels: 3, width: 1.0, stem_stride: None, size: None, drop_rate: 0.0, drop_path: 0.0 }
    }
}

/// A network's structure, before it is made.
#[derive(Debug, Clone, PartialEq)]
pub enum Architecture {
    /// The mobile family.
    MobileNet(MobileNetConfig),
    /// ResNets.
    ResNet(ResNetConfig),
    /// Vision transformers.
    Vit(VitConfig),
    /// Encoders of texts.
    Text(TextConfig),
    /// Three convolutions.
    SmallCnn(SmallCnnConfig),
    /// No network: images of so many values.
    Pixels(usize),
}

/// A named network.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Side of the images that it is meant for.
    pub resolution: usize,
    /// Its structure.
    pub architecture: Architecture,
}

/// The names that [`model`] knows without parameters in them. Besides, `mobilenetv1_NNN` and `mobilenetv2_NNN` take any width in hundredths,
/// `mobilenetv3_large_NNN` and `mobilenetv3_small_NNN`, too, and `efficientnet_phiX` is scaled by the coefficient X,
/// and `vit_SIZE_patchP_R` has patches of P for images of R; `bert_lDEPTH_hFEATURES` reads texts ([`TextConfig::named`]). `tf_` before a name of
/// the mobile family means TensorFlow's padding and epsilon; `tv_` before torchvision's name of a network its batch norms;
/// a tag behind a dot is passed over.
pub const MODELS: &[&str] = &[
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
    "resnet18",
    "resnet26",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vit_mini_patch4_28",
    "vit_mini_patch4_32",
    "vit_mini_patch7_28",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_small_patch32_224",
    "vit_base_patch16_224",
    "vit_base_patch32_224",
    "bert_l4_h128",
    "bert_l2_h128",
    "bert_l12_h768",
    "bert_l6_h768",
    "cnn_16_32_64",
    "cnn_32_64_128",
    "pixels",
];

/// Hundredths as a factor: `075` is 0.75.
fn hundredths(text: &str) -> Option<f64> {
    (text.len() == 3).then(|| text.parse::<u16>().ok()).flatten().map(|n| f64::from(n) / 100.0)
}

/// EfficientNet's rule with one coefficient: depth 1.2^phi, width 1.1^phi, resolution 224 * 1.15^phi (equation 3 of the paper). The named
/// networks B1 to B7 are its authors' roundings of it.
fn compound(phi: f64) -> (f64, f64, usize) {
    (1.1f64.powf(phi), 1.2f64.powf(phi), (224.0 * 1.15f64.powf(phi)).round() as usize)
}

/// A network of the mobile family and its resolution; `None` where the name is of another.
fn mobile(name: &str, factor: f64) -> Option<(Result<MobileNetConfig>, usize)> {
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

/// `vit_SIZE_patchP_R`: patches of P, images of R.
fn vit(name: &str) -> Option<VitConfig> {
    let [size, patch, resolution] = name.strip_prefix("vit_")?.split('_').collect::<Vec<_>>().try_into().ok()?;
    VitConfig::named(size, patch.strip_prefix("patch")?.parse().ok()?, resolution.parse().ok()?)
}

/// The network called `name`. A tag behind a dot (`resnet18.a1_in1k`) names weights, not structure, and is passed over.
///
/// # Errors
/// [`Error::Argument`] listing [`MODELS`] where the name is none of them, or naming an option that the network does not have.
pub fn model(name: &str, options: ModelOptions) -> Result<Model> {
    let structure = name.split_once('.').filter(|_| !name.starts_with("efficientnet_phi")).map_or(name, |(structure, _)| structure);
    if let Some(own) = structure.strip_prefix("tv_") {
        let (timm, eps, momentum) = torchvision::network(own)?;
        return Ok(model(timm, options)?.with_norm(eps, momentum));
    }
    let (rest, tensorflow) = structure.strip_prefix("tf_").map_or((structure, false), |rest| (rest, true));
    if let Some((config, resolution)) = mobile(rest, options.width) {
        let mut config = config?;
        if tensorflow {
            config = config.as_tensorflow();
        }
        config.channels = options.channels;
        config.stem_stride = options.stem_stride.unwrap_or(config.stem_stride);
        config.drop_rate = options.drop_rate;
        return Ok(Model { resolution, architecture: Architecture::MobileNet(config.with_drop_path(options.drop_path)) });
    }
    if let Some(config) = structure.strip_prefix("resnet").and_then(|depth| ResNetConfig::deep(depth.parse().ok()?)) {
        let small = match options.stem_stride {
            None | Some(2) => false,
            Some(1) => true,
            Some(stride) => return Err(Error::argument("stem_stride", format!("\"{name}\" begins with a stride of 1 or 2, not {stride}"))),
        };
        let width = (config.width as f64 * options.width).round().max(1.0) as usize;
        let ModelOptions { channels, drop_rate, drop_path, .. } = options;
        let config = ResNetConfig { channels, width, small, drop_rate, drop_path, ..config };
        return Ok(Model { resolution: 224, architecture: Architecture::ResNet(config) });
    }
    let (vit, text) = (vit(structure), TextConfig::named(structure));
    if (vit.is_some() || text.is_some()) && (options.width != 1.0 || options.stem_stride.is_some()) {
        let option = if options.width == 1.0 { "stem_stride" } else { "width" };
        return Err(Error::argument(option, format!("\"{name}\" is a transformer and has none")));
    }
    if let Some(config) = text {
        let length = options.size.map_or(config.length, |[_, length]| length);
        let config = TextConfig { length, drop_rate: options.drop_rate, ..config };
        return Ok(Model { resolution: length, architecture: Architecture::Text(config) });
    }
    if let Some(config) = vit {
        let ModelOptions { channels, drop_rate, drop_path, .. } = options;
        let config = VitConfig { channels, size: options.size.unwrap_or(config.size), drop_rate, drop_path, ..config };
        let [resolution, _] = config.size;
        return Ok(Model { resolution, architecture: Architecture::Vit(config) });
    }
    let size = options.size.unwrap_or([32; 2]);
    let small =
        |widths| Model { resolution: 32, architecture: Architecture::SmallCnn(SmallCnnConfig { channels: options.channels, widths }) };
    match structure {
        "cnn_16_32_64" => Ok(small([16, 32, 64])),
        "cnn_32_64_128" => Ok(small([32, 64, 128])),
        "pixels" => Ok(Model {
            resolution: 32,
            architecture: Architecture::Pixels(size.iter().fold(options.channels, |n, side| n.saturating_mul(*side))),
        }),
        _ => Err(Error::argument("model", format!("there is no \"{name}\"; there are {}", MODELS.join(", ")))),
    }
}

impl Architecture {
    /// Makes the network in the scope `params`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn build(&self, params: &Parameters) -> Result<Box<dyn Backbone>> {
        Ok(match self {
            Self::MobileNet(config) => Box::new(MobileNet::new(params, config)?),
            Self::ResNet(config) => Box::new(ResNet::new(params, config)?),
            Self::Vit(config) => Box::new(Vit::new(params, config)?),
            Self::Text(config) => Box::new(TextEncoder::new(params, config)?),
            Self::SmallCnn(config) => Box::new(SmallCnn::new(params, *config)?),
            Self::Pixels(features) => Box::new(Pixels::new(*features)),
        })
    }
}

impl Model {
    /// Sets eps and momentum of all batch norms.
    #[must_use]
    pub fn with_norm(mut self, eps: f32, momentum: f32) -> Self {
        match &mut self.architecture {
            Architecture::MobileNet(config) => (config.style.eps, config.style.momentum) = (eps, momentum),
            Architecture::ResNet(config) => (config.eps, config.momentum) = (eps, momentum),
            Architecture::Vit(_) | Architecture::Text(_) | Architecture::SmallCnn(_) | Architecture::Pixels(_) => {}
        }
        self
    }

    /// Height, width and channels of what it reads: images of this side and so many channels, or a text.
    pub fn input(&self, side: usize, channels: usize) -> [usize; 3] {
        match &self.architecture {
            Architecture::Text(config) => [2, config.length, 1],
            _ => [side, side, channels],
        }
    }

    /// Makes the network with a classifier in the scope `params`.
    ///
    /// # Errors
    /// As [`Architecture::build`].
    pub fn classifier(&self, params: &Parameters, classes: usize) -> Result<Classifier<Box<dyn Backbone>>> {
        Classifier::new(params, self.architecture.build(params)?, classes)
    }
}

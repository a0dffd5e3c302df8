//! Networks: structure only, no training. Names are timm's.

mod cnn;
mod heads;
mod mobilenet_v1;
mod pixels;

pub use cnn::{SmallCnn, SmallCnnConfig};
pub use heads::{Predictor, Projector};
pub use mobilenet_v1::{MobileNetV1, MobileNetV1Config, mobilenet_stages};
pub use pixels::Pixels;

use crate::error::{Error, Result};
use crate::nn::{Init, Linear, Mode, Module, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::tensor::{Shape, Tensor};

/// A network that turns images `[N, H, W, C]` into features `[N, D]`.
pub trait Backbone: Module {
    /// The number of features D.
    fn features(&self) -> usize;
}

/// A backbone with a linear classifier called `classifier`.
pub struct Classifier<B> {
    /// Images to features.
    pub backbone: B,
    classifier: Linear,
}

impl<B: Backbone> Classifier<B> {
    /// Adds a classifier of `classes` to `backbone`, in the same scope.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, backbone: B, classes: usize) -> Result<Self> {
        let features = backbone.features();
        // timm's rule for mobile networks: uniform within 1 / sqrt(classes), bias 0.
        let init = Init::Uniform { bound: 1.0 / (classes.max(1) as f32).sqrt() };
        let classifier = Linear::with(params, "classifier", features, classes, true, init, Init::ZEROS)?;
        Ok(Self { backbone, classifier })
    }
}

impl<B: Backbone> Module for Classifier<B> {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.classifier.forward(&self.backbone.forward(x, mode)?, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let features = self.backbone.summarize(input, summary)?;
        self.classifier.summarize(&features, summary)
    }
}

/// The backbones that can be asked for by name.
pub const BACKBONES: [&str; 4] = ["cnn_16_32_64", "cnn_32_64_128", "mobilenetv1", "pixels"];

/// What a backbone asked for by name is made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackboneOptions {
    /// Channels of the images.
    pub channels: usize,
    /// Width multiplier of mobile networks.
    pub width: f32,
    /// Stride of the first convolution.
    pub stem_stride: usize,
    /// Values of one image, for the backbone that has no layers.
    pub pixels: usize,
}

impl Default for BackboneOptions {
    fn default() -> Self {
        Self { channels: 3, width: 1.0, stem_stride: 2, pixels: 0 }
    }
}

/// Makes a backbone by name in the scope `params`.
///
/// # Errors
/// [`Error::Argument`] listing [`BACKBONES`] where the name is none of them; out of memory.
pub fn backbone(params: &Parameters, name: &str, options: BackboneOptions) -> Result<Box<dyn Backbone>> {
    let BackboneOptions { channels, width, stem_stride, pixels } = options;
    let cnn = |widths| SmallCnn::new(params, SmallCnnConfig { channels, widths });
    Ok(match name {
        "cnn_16_32_64" => Box::new(cnn([16, 32, 64])?),
        "cnn_32_64_128" => Box::new(cnn([32, 64, 128])?),
        "mobilenetv1" => {
            let config = MobileNetV1Config { channels, width, stem_stride, activation: Activation::Relu6, ..Default::default() };
            Box::new(MobileNetV1::new(params, config)?)
        }
        "pixels" => Box::new(Pixels::new(pixels)),
        other => return Err(Error::argument("model", format!("there is no \"{other}\"; there are {}", BACKBONES.join(", ")))),
    })
}

impl Module for Box<dyn Backbone> {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.as_ref().forward(x, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        self.as_ref().summarize(input, summary)
    }
}

impl Backbone for Box<dyn Backbone> {
    fn features(&self) -> usize {
        self.as_ref().features()
    }
}

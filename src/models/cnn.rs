//! A small plain network for small images: three times convolution 3x3, batch norm, ReLU; the first
//! two halve the image.

use super::registry::Family;
use super::{Architecture, Backbone, Model, ModelOptions};
use crate::error::Result;
use crate::nn::layers::{BatchNormOptions, Conv2dOptions};
use crate::nn::{BatchNorm, Conv2d, Mode, Module, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::tensor::{Shape, Tensor};

/// How a small network is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SmallCnnConfig {
    /// Channels of the images.
    pub channels: usize,
    /// Channels after each convolution.
    pub widths: [usize; 3],
}

/// Small plain networks.
pub(super) const FAMILY: Family = Family { names: &["cnn_16_32_64", "cnn_32_64_128"], patterns: &[], parse, published: &[] };

fn parse(name: &str, options: &ModelOptions) -> Option<Result<Model>> {
    let widths = match name {
        "cnn_16_32_64" => [16, 32, 64],
        "cnn_32_64_128" => [32, 64, 128],
        _ => return None,
    };
    Some(Ok(Model::new(32, SmallCnnConfig { channels: options.channels, widths })))
}

impl Architecture for SmallCnnConfig {
    fn build(&self, params: &Parameters) -> Result<Box<dyn Backbone>> {
        Ok(Box::new(SmallCnn::new(params, *self)?))
    }
}

/// Images `[N, H, W, C]` to features `[N, widths[2]]`.
pub struct SmallCnn {
    layers: Vec<(Conv2d, BatchNorm)>,
    features: usize,
}

impl SmallCnn {
    /// Makes the network in the scope `params`: `conv1`, `bn1` and so on.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, config: SmallCnnConfig) -> Result<Self> {
        let mut channels = config.channels;
        let mut layers = Vec::new();
        for (index, width) in config.widths.into_iter().enumerate() {
            let number = index + 1;
            // A stride in the first two convolutions halves the image without a pooling layer.
            let stride = if index < 2 { 2 } else { 1 };
            let conv = Conv2d::new(params, &format!("conv{number}"), channels, width, Conv2dOptions { stride, ..Default::default() })?;
            let norm_config = BatchNormOptions { activation: Activation::Relu, ..Default::default() };
            layers.push((conv, BatchNorm::new(params, &format!("bn{number}"), width, norm_config)?));
            channels = width;
        }
        Ok(Self { layers, features: channels })
    }
}

impl Module for SmallCnn {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.forward_features(x, mode)?.global_avg_pool2d()
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let step = |shape: Shape, (conv, norm): &(Conv2d, BatchNorm)| {
            let shape = conv.summarize(&shape, summary)?;
            norm.summarize(&shape, summary)
        };
        let maps = self.layers.iter().try_fold(input.clone(), step)?;
        Ok(Shape::from([maps.dim(0), maps.last()]))
    }
}

impl Backbone for SmallCnn {
    fn features(&self) -> usize {
        self.features
    }

    fn forward_features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let step = |x: Tensor, (conv, norm): &(Conv2d, BatchNorm)| norm.forward_behind(conv, &x, None, mode);
        self.layers.iter().try_fold(x.clone(), step)
    }
}

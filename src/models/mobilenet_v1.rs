//! MobileNetV1 (Howard et al. 2017, arXiv:1704.04861): a stem and 13 depthwise-separable blocks. Names and initial values are
//! timm's `mobilenetv1_*` (stages of 1, 2, 2, 6, 2 blocks; ReLU6; no residuals).

use super::Backbone;
use crate::error::Result;
use crate::nn::layers::{BatchNormConfig, Conv2dConfig};
use crate::nn::{BatchNorm, Conv2d, DepthwiseConv2d, Init, Mode, Module, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::tensor::{Shape, Tensor};

/// Channels and stride of each block, by stage.
const STAGES: [&[(usize, usize)]; 5] = [
    &[(64, 1)],
    &[(128, 2), (128, 1)],
    &[(256, 2), (256, 1)],
    &[(512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)],
    &[(1024, 2), (1024, 1)],
];

/// Output channels and stride of each block at width 1.
pub fn mobilenet_stages() -> impl Iterator<Item = (usize, usize)> {
    STAGES.iter().copied().flatten().copied()
}

/// How a MobileNetV1 is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MobileNetV1Config {
    /// Multiplies every width; results are rounded to multiples of 8.
    pub width: f32,
    /// Channels of the images.
    pub channels: usize,
    /// Stride of the first convolution: 2 for large images, 1 for 32 x 32 and less.
    pub stem_stride: usize,
    /// ReLU6 as in the authors' code and timm, ReLU as in their paper.
    pub activation: Activation,
    /// Added to the variance in batch norm.
    pub eps: f32,
    /// Weight of the new batch in running statistics.
    pub momentum: f32,
}

impl Default for MobileNetV1Config {
    fn default() -> Self {
        Self { width: 1.0, channels: 3, stem_stride: 2, activation: Activation::Relu6, eps: 1e-5, momentum: 0.1 }
    }
}

/// Channels rounded to a multiple of 8, but by no more than a tenth downwards (the mobile networks' rule).
pub fn round_channels(channels: f32) -> usize {
    let rounded = (((channels + 4.0) / 8.0) as usize * 8).max(8);
    if (rounded as f32) < 0.9 * channels { rounded + 8 } else { rounded }
}

struct Block {
    depthwise: DepthwiseConv2d,
    norm1: BatchNorm,
    pointwise: Conv2d,
    norm2: BatchNorm,
}

/// The network without its classifier: images `[N, H, W, C]` to features `[N, 1024 * width]`.
pub struct MobileNetV1 {
    stem: Conv2d,
    norm: BatchNorm,
    blocks: Vec<Block>,
    features: usize,
}

impl MobileNetV1 {
    /// Makes the network in the scope `params`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, config: MobileNetV1Config) -> Result<Self> {
        let norm_config = BatchNormConfig { eps: config.eps, momentum: config.momentum, activation: config.activation };
        let width = |channels: usize| round_channels(channels as f32 * config.width);
        let convolution = |kernel: usize, stride: usize, fan_out: usize| Conv2dConfig {
            kernel,
            stride,
            init: Some(Init::kaiming_fan_out(kernel * kernel * fan_out)),
            ..Default::default()
        };
        let mut channels = width(32);
        let stem = Conv2d::new(params, "conv_stem", config.channels, channels, convolution(3, config.stem_stride, channels))?;
        let norm = BatchNorm::new(params, "bn1", channels, norm_config)?;
        let mut blocks = Vec::new();
        for (stage, rows) in STAGES.iter().enumerate() {
            for (index, (outputs, stride)) in rows.iter().enumerate() {
                let scope = params.scope(format!("blocks.{stage}.{index}"));
                let outputs = width(*outputs);
                blocks.push(Block {
                    depthwise: DepthwiseConv2d::new(&scope, "conv_dw", channels, convolution(3, *stride, 1))?,
                    norm1: BatchNorm::new(&scope, "bn1", channels, norm_config)?,
                    pointwise: Conv2d::new(&scope, "conv_pw", channels, outputs, convolution(1, 1, outputs))?,
                    norm2: BatchNorm::new(&scope, "bn2", outputs, norm_config)?,
                });
                channels = outputs;
            }
        }
        Ok(Self { stem, norm, blocks, features: channels })
    }

    fn layers(&self) -> impl Iterator<Item = &dyn Module> {
        let stem: [&dyn Module; 2] = [&self.stem, &self.norm];
        stem.into_iter().chain(self.blocks.iter().flat_map(|b| {
            let layers: [&dyn Module; 4] = [&b.depthwise, &b.norm1, &b.pointwise, &b.norm2];
            layers
        }))
    }
}

impl Module for MobileNetV1 {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let stem = self.norm.forward_behind(&self.stem, x, None, mode)?;
        let block = |x: Tensor, b: &Block| {
            let x = b.norm1.forward(&b.depthwise.forward(&x, mode)?, mode)?;
            b.norm2.forward_behind(&b.pointwise, &x, None, mode)
        };
        self.blocks.iter().try_fold(stem, block)?.global_avg_pool2d()
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let maps = self.layers().try_fold(input.clone(), |shape, layer| layer.summarize(&shape, summary))?;
        Ok(Shape::from([maps.dim(0), maps.last()]))
    }
}

impl Backbone for MobileNetV1 {
    fn features(&self) -> usize {
        self.features
    }
}

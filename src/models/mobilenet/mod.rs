//! One network for the whole mobile family: a stem, stages of blocks, and a head. MobileNets and
//! EfficientNets are tables for it ([`tables`]); names and initial values are timm's.

pub mod block;
mod family;
pub mod stages;
pub mod tables;

pub use block::{BlockConfig, Kind};
pub use stages::{Scaling, SqueezeRule, round_channels};

use std::sync::Arc;

use block::Block;
pub(super) use family::FAMILY;

use super::torchvision::{self, Renames};
use super::{Architecture, Backbone};
use crate::error::{Result, require_share};
use crate::nn::layers::{BatchNormOptions, Conv2dOptions};
use crate::nn::{Blocks, Conv2d, ConvNorm, Init, Mode, Module, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::ops::convolution::geometry::Padding;
use crate::tensor::{Shape, Tensor};

/// What stands between the last stage and the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The mean over the image.
    Pool,
    /// A 1x1 convolution to so many channels with batch norm, then the mean.
    Convolution(usize),
    /// The mean, then a 1x1 convolution to so many channels with a bias (MobileNetV3).
    PoolFirst(usize),
}

/// What all convolutions and batch norms of a network share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Style {
    /// Stem, head and blocks that do not say otherwise.
    pub activation: Activation,
    /// TensorFlow's padding, which is asymmetric at stride 2, instead of kernel / 2 on every side.
    /// The same shapes, other numbers.
    pub same_padding: bool,
    /// Added to the variance in batch norm.
    pub eps: f32,
    /// Weight of the new batch in running statistics.
    pub momentum: f32,
}

impl Default for Style {
    /// timm's own.
    fn default() -> Self {
        Self { activation: Activation::Relu6, same_padding: false, eps: 1e-5, momentum: 0.1 }
    }
}

impl Style {
    fn norm(&self, activation: Activation) -> BatchNormOptions {
        BatchNormOptions { eps: self.eps, momentum: self.momentum, activation, ..Default::default() }
    }

    /// `fan_out` counts output channels a group.
    fn convolution(&self, kernel: usize, stride: usize, fan_out: usize) -> Conv2dOptions {
        let padding = self.same_padding.then_some(Padding::Same);
        Conv2dOptions {
            kernel,
            stride,
            padding,
            init: Some(Init::kaiming_fan_out(kernel.saturating_mul(kernel).saturating_mul(fan_out))),
            ..Default::default()
        }
    }
}

/// How a mobile network is made. The functions of the families ([`Self::v1`],
/// [`Self::efficientnet`] and so on) fill it; every field may be changed afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct MobileNetConfig {
    /// Channels of the images.
    pub channels: usize,
    /// Channels of the first convolution.
    pub stem: usize,
    /// Stride of the first convolution: 2 for large images, 1 for 32 x 32 and less.
    pub stem_stride: usize,
    /// The blocks, by stage.
    pub stages: Vec<Vec<BlockConfig>>,
    /// What stands behind them.
    pub head: Head,
    /// Activation, padding, batch norm.
    pub style: Style,
    /// Dropout before a classifier.
    pub drop_rate: f32,
}

impl MobileNetConfig {
    /// Replaces the activation everywhere.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.style.activation = activation;
        self.stages.iter_mut().flatten().for_each(|block| block.activation = activation);
        self
    }

    /// Sets stochastic depth: block i of n is dropped with probability `rate * i / n`, a sample at
    /// a time, where it can be skipped.
    #[must_use]
    pub fn with_drop_path(mut self, rate: f32) -> Self {
        let count = self.stages.iter().flatten().count().max(1) as f32;
        for (index, block) in self.stages.iter_mut().flatten().enumerate() {
            block.drop_path = rate * index as f32 / count;
        }
        self
    }
}

impl Architecture for MobileNetConfig {
    fn build(&self, params: &Parameters) -> Result<Box<dyn Backbone>> {
        Ok(Box::new(MobileNet::new(params, self)?))
    }

    fn with_norm(&self, eps: f32, momentum: f32) -> Option<Arc<dyn Architecture>> {
        Some(Arc::new(Self { style: Style { eps, momentum, ..self.style }, ..self.clone() }))
    }

    fn torchvision(&self) -> Option<Renames> {
        torchvision::mobile(self)
    }
}

enum HeadLayer {
    Pool,
    Convolution(ConvNorm),
    PoolFirst(Conv2d, Activation),
}

/// The network without its classifier: images `[N, H, W, C]` to features `[N, D]`.
pub struct MobileNet {
    stem: ConvNorm,
    blocks: Blocks<Block>,
    head: HeadLayer,
    features: usize,
    drop_rate: f32,
}

impl MobileNet {
    /// Makes the network in the scope `params`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, config: &MobileNetConfig) -> Result<Self> {
        require_share("mobilenet", "drop_rate", config.drop_rate)?;
        let style = config.style;
        let norm = style.norm(style.activation);
        let stem = style.convolution(3, config.stem_stride, config.stem);
        let stem = ConvNorm::new(params, ["conv_stem", "bn1"], [config.channels, config.stem], stem, norm)?;
        let (mut blocks, mut channels) = (Vec::new(), config.stem);
        for (stage, configs) in config.stages.iter().enumerate() {
            for (index, block) in configs.iter().enumerate() {
                let scope = params.scope(format!("blocks.{stage}.{index}"));
                blocks.push(Block::new(&scope, channels, *block, style, blocks.len() as u32)?);
                channels = block.outputs;
            }
        }
        let (head, features) = match config.head {
            Head::Pool => (HeadLayer::Pool, channels),
            Head::Convolution(features) => {
                let convolution = style.convolution(1, 1, features);
                (HeadLayer::Convolution(ConvNorm::new(params, ["conv_head", "bn2"], [channels, features], convolution, norm)?), features)
            }
            Head::PoolFirst(features) => {
                let convolution = Conv2dOptions { bias: true, ..style.convolution(1, 1, features) };
                (HeadLayer::PoolFirst(Conv2d::new(params, "conv_head", channels, features, convolution)?, style.activation), features)
            }
        };
        Ok(Self { stem, blocks: blocks.into(), head, features, drop_rate: config.drop_rate })
    }
}

impl Module for MobileNet {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let [_, features] = self.maps_and_features(x, mode)?;
        Ok(features)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let maps = self.stem.summarize(input, summary)?;
        let maps = self.blocks.summarize(&maps, summary)?;
        match &self.head {
            HeadLayer::Pool => {}
            HeadLayer::Convolution(layer) => drop(layer.summarize(&maps, summary)?),
            HeadLayer::PoolFirst(convolution, _) => drop(convolution.summarize(&maps.with(1, 1).with(2, 1), summary)?),
        }
        Ok(Shape::from([maps.dim(0), self.features]))
    }

    fn fold(&mut self) -> Result<()> {
        self.stem.fold()?;
        self.blocks.fold()?;
        if let HeadLayer::Convolution(layer) = &mut self.head { layer.fold() } else { Ok(()) }
    }
}

impl Backbone for MobileNet {
    fn features(&self) -> usize {
        self.features
    }

    fn forward_features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let x = self.blocks.forward(&self.stem.forward(x, mode)?, mode)?;
        if let HeadLayer::Convolution(layer) = &self.head { layer.forward(&x, mode) } else { Ok(x) }
    }

    fn maps_and_features(&self, x: &Tensor, mode: Mode) -> Result<[Tensor; 2]> {
        let maps = self.forward_features(x, mode)?;
        let pooled = maps.global_avg_pool2d()?;
        let features = match &self.head {
            HeadLayer::Pool | HeadLayer::Convolution(_) => pooled,
            HeadLayer::PoolFirst(convolution, activation) => {
                let [n, c] = [pooled.shape().dim(0), pooled.shape().last()];
                activation.apply(&convolution.forward(&pooled.reshape(&[n, 1, 1, c])?, mode)?)?.reshape(&[n, self.features])?
            }
        };
        Ok([maps, features])
    }

    fn set_grad_checkpointing(&mut self, on: bool) -> Result<()> {
        self.blocks.set_checkpoints(on);
        Ok(())
    }

    fn drop_rate(&self) -> f32 {
        self.drop_rate
    }
}

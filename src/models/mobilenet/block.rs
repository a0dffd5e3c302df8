//! The blocks of mobile networks, with timm's names for their layers.

use crate::error::{Result, require_share};
use crate::nn::layers::SqueezeExciteOptions;
use crate::nn::{ConvNorm, DropPath, Mode, Module, Parameters, SqueezeExcite, Summary};
use crate::ops::activation::Activation;
use crate::tensor::{Shape, Tensor};

use super::Style;
use super::stages::SqueezeRule;

/// What a block is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// depthwise, activation, squeeze, pointwise
    DepthwiseSeparable,
    /// depthwise, activation, pointwise, activation; never skipped: MobileNetV1
    DepthwiseSeparableActivated,
    /// pointwise, activation, depthwise, activation, squeeze, pointwise: MobileNetV2 and later
    /// (Sandler et al. 2018)
    InvertedResidual,
    /// dense, activation, pointwise: EfficientNetV2's fused blocks
    FusedResidual,
    /// dense, activation
    Convolution,
}

/// One block of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockConfig {
    /// What it is made of.
    pub kind: Kind,
    /// Side of the spatial convolution.
    pub kernel: usize,
    /// Stride of the spatial convolution.
    pub stride: usize,
    /// Channels inside.
    pub expanded: usize,
    /// Channels behind.
    pub outputs: usize,
    /// Channels between the two convolutions of squeeze-and-excitation; 0 for none.
    pub squeezed: usize,
    /// The variant of squeeze-and-excitation.
    pub rule: SqueezeRule,
    /// Between convolutions.
    pub activation: Activation,
    /// Whether the input is added to the output.
    pub skip: bool,
    /// Probability that a sample skips the block in training.
    pub drop_path: f32,
}

/// How the input is added to the output.
enum Skip {
    Never,
    /// In the last batch norm's kernel.
    Fused,
    /// Behind everything else, which may be dropped.
    Around(DropPath),
}

pub(super) struct Block {
    first: Vec<ConvNorm>,
    squeeze: Option<SqueezeExcite>,
    last: ConvNorm,
    skip: Skip,
}

impl Block {
    /// Makes the block for images of `inputs` channels in the scope `params`; `number` counts the
    /// network's blocks.
    pub fn new(params: &Parameters, inputs: usize, config: BlockConfig, style: Style, number: u32) -> Result<Self> {
        let BlockConfig { kind, kernel, stride, expanded, outputs, squeezed, rule, activation, skip, drop_path } = config;
        require_share(params.name(), "drop_path", drop_path)?;
        let dense = |names, channels: [usize; 2], kernel, stride, activation| {
            let [_, outputs] = channels;
            ConvNorm::new(params, names, channels, style.convolution(kernel, stride, outputs), style.norm(activation))
        };
        let depthwise = |names| ConvNorm::depthwise(params, names, expanded, style.convolution(kernel, stride, 1), style.norm(activation));
        let squeeze = || -> Result<Option<SqueezeExcite>> {
            let (activation, hard_gate) = match rule {
                SqueezeRule::Inputs => (activation, false),
                SqueezeRule::ExpandedHard => (Activation::Relu, true),
            };
            let config = SqueezeExciteOptions { squeezed, activation, hard_gate };
            (squeezed > 0).then(|| SqueezeExcite::new(params, "se", expanded, config)).transpose()
        };
        let none = Activation::None;
        // In timm's order, which is that of the state.
        let (first, squeeze, last) = match kind {
            Kind::DepthwiseSeparable | Kind::DepthwiseSeparableActivated => {
                let behind = if kind == Kind::DepthwiseSeparable { none } else { activation };
                let first = vec![depthwise(["conv_dw", "bn1"])?];
                (first, squeeze()?, dense(["conv_pw", "bn2"], [expanded, outputs], 1, 1, behind)?)
            }
            Kind::InvertedResidual => {
                let first = vec![dense(["conv_pw", "bn1"], [inputs, expanded], 1, 1, activation)?, depthwise(["conv_dw", "bn2"])?];
                (first, squeeze()?, dense(["conv_pwl", "bn3"], [expanded, outputs], 1, 1, none)?)
            }
            Kind::FusedResidual => {
                let first = vec![dense(["conv_exp", "bn1"], [inputs, expanded], kernel, stride, activation)?];
                (first, squeeze()?, dense(["conv_pwl", "bn2"], [expanded, outputs], 1, 1, none)?)
            }
            Kind::Convolution => (vec![], None, dense(["conv", "bn1"], [inputs, outputs], kernel, stride, activation)?),
        };
        let skip = match (skip, kind) {
            (false, _) => Skip::Never,
            (true, Kind::Convolution) => Skip::Around(DropPath::new(params, drop_path, number)),
            (true, _) if drop_path > 0.0 => Skip::Around(DropPath::new(params, drop_path, number)),
            (true, _) => Skip::Fused,
        };
        Ok(Self { first, squeeze, last, skip })
    }
}

impl Module for Block {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.first.iter().try_fold(x.clone(), |y, layer| layer.forward(&y, mode))?;
        let y = self.squeeze.as_ref().map_or(Ok(y.clone()), |squeeze| squeeze.forward(&y, mode))?;
        match &self.skip {
            Skip::Never => self.last.forward(&y, mode),
            Skip::Fused => self.last.forward_residual(&y, Some(x), mode),
            Skip::Around(drop_path) => drop_path.forward(&self.last.forward(&y, mode)?, mode)?.add(x),
        }
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let inside = self.first.iter().try_fold(input.clone(), |shape, layer| layer.summarize(&shape, summary))?;
        if let Some(squeeze) = &self.squeeze {
            squeeze.summarize(&inside, summary)?;
        }
        self.last.summarize(&inside, summary)
    }

    fn fold(&mut self) -> Result<()> {
        self.first.iter_mut().chain([&mut self.last]).try_for_each(ConvNorm::fold)
    }
}

//! Squeeze-and-excitation (Hu et al. 2018): channels reweighted by a small network of their means.

use super::{Conv2d, Conv2dOptions};
use crate::error::{Error, Result};
use crate::nn::{Init, Mode, Module, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::tensor::{Shape, Tensor};

/// The variants of mobile networks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SqueezeExciteOptions {
    /// Channels of the bottleneck.
    pub squeezed: usize,
    /// After the first convolution.
    pub activation: Activation,
    /// After the second: hard sigmoid (MobileNetV3) instead of sigmoid.
    pub hard_gate: bool,
}

/// `x * gate(expand(act(reduce(mean(x)))))`, named `conv_reduce` and `conv_expand` as in timm.
pub struct SqueezeExcite {
    reduce: Conv2d,
    expand: Conv2d,
    options: SqueezeExciteOptions,
}

impl SqueezeExcite {
    /// Makes the block for `[N, H, W, channels]`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, name: &str, channels: usize, options: SqueezeExciteOptions) -> Result<Self> {
        let scope = params.scope(name);
        let point = |outputs| Conv2dOptions { kernel: 1, bias: true, init: Some(Init::kaiming_fan_out(outputs)), ..Default::default() };
        let reduce = Conv2d::new(&scope, "conv_reduce", channels, options.squeezed, point(options.squeezed))?;
        let expand = Conv2d::new(&scope, "conv_expand", options.squeezed, channels, point(channels))?;
        Ok(Self { reduce, expand, options })
    }
}

impl Module for SqueezeExcite {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let wrong = || Error::shape("squeeze_excite", format!("input {} must be [N, H, W, C]", x.shape()));
        let [n, _, _, c] = x.shape().array::<4>().ok_or_else(wrong)?;
        let mean = x.global_avg_pool2d()?.reshape(&[n as isize, 1, 1, c as isize])?;
        let squeezed = self.options.activation.apply(&self.reduce.forward(&mean, mode)?)?;
        let logits = self.expand.forward(&squeezed, mode)?;
        let gate = if self.options.hard_gate { logits.hardsigmoid()? } else { logits.sigmoid()? };
        x.mul(&gate)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let pooled = input.with(1, 1).with(2, 1);
        let squeezed = self.reduce.summarize(&pooled, summary)?;
        self.expand.summarize(&squeezed, summary)?;
        Ok(input.clone())
    }
}

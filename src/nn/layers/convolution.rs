//! Convolution layers over NHWC images.

use crate::error::{Error, Result};
use crate::nn::{Init, Kind, Mode, Module, Parameter, Parameters, Summary};
use crate::ops::apply;
use crate::ops::convolution::conv2d::{self, Conv2dFuncOptions};
use crate::ops::convolution::depthwise_conv2d::DepthwiseConv2dFuncOptions;
use crate::ops::convolution::geometry::{Padding, Window};
use crate::tensor::{Shape, Tensor, check_sizes};

/// What both convolution layers are made of. Square kernels, the same stride along both axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv2dOptions {
    /// Side of the kernel.
    pub kernel: usize,
    /// Steps between outputs.
    pub stride: usize,
    /// Zeros around the image; `None` keeps the size at stride 1 (kernel / 2 on every side).
    pub padding: Option<Padding>,
    /// Steps between taps.
    pub dilation: usize,
    /// Groups of channels that do not mix (dense layer only).
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The weights' start, with a bias of 0; `None` is PyTorch's default for both.
    pub init: Option<Init>,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { kernel: 3, stride: 1, padding: None, dilation: 1, groups: 1, bias: false, init: None }
    }
}

impl Conv2dOptions {
    /// The start of a bias.
    fn bias_init(&self, fan_in: usize) -> Init {
        if self.init.is_some() { Init::ZEROS } else { Init::fan_in(fan_in) }
    }

    /// Refuses sizes that a convolution cannot have.
    fn check(&self, name: &str) -> Result<()> {
        if [self.kernel, self.stride, self.dilation, self.groups].contains(&0) {
            return Err(Error::argument(name, "kernel, stride, dilation and groups must be at least 1"));
        }
        check_sizes(name, "kernel, stride and dilation", [self.kernel, self.stride, self.dilation])
    }

    /// Multiply-adds of an output pixel of one channel, for so many channels of the input.
    fn taps(&self, channels: usize) -> usize {
        Shape::from([channels, self.kernel, self.kernel]).numel()
    }

    fn padding(&self) -> Padding {
        self.padding.unwrap_or(Padding::Explicit([self.dilation * (self.kernel / 2); 4]))
    }

    /// The output's shape for `channels` output channels.
    fn output(&self, name: &str, input: &Shape, channels: usize) -> Result<Shape> {
        let wrong = || Error::shape(name, format!("input {input} must be [N, H, W, C]"));
        let [n, h, w, _] = input.array::<4>().ok_or_else(wrong)?;
        let window = Window { stride: [self.stride; 2], padding: self.padding(), dilation: [self.dilation; 2] };
        let (_, [h, w]) = window.slide(name, [h, w], [self.kernel; 2])?;
        Ok(Shape::from([n, h, w, channels]))
    }
}

/// A dense or grouped convolution: `[N, H, W, in]` to `[N, OH, OW, out]`.
pub struct Conv2d {
    name: String,
    pub(super) weight: Parameter,
    pub(super) bias: Option<Parameter>,
    options: Conv2dOptions,
    inputs: usize,
    outputs: usize,
}

impl Conv2d {
    /// Makes the layer in the scope `params`: `weight`, and `bias` where the options ask for one.
    ///
    /// # Errors
    /// Groups that do not divide both channel counts; out of memory.
    pub fn new(params: &Parameters, name: &str, inputs: usize, outputs: usize, options: Conv2dOptions) -> Result<Self> {
        options.check(name)?;
        let groups = options.groups;
        if !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            return Err(Error::argument(name, format!("{groups} groups must divide {inputs} input and {outputs} output channels")));
        }
        let scope = params.scope(name);
        let fan_in = options.taps(inputs / groups);
        let shape = [outputs, options.kernel, options.kernel, inputs / groups];
        let weight = scope.parameter("weight", shape, Kind::Convolution, options.init.unwrap_or(Init::fan_in(fan_in)))?;
        let bias = options.bias.then(|| scope.parameter("bias", [outputs], Kind::Bias, options.bias_init(fan_in))).transpose()?;
        Ok(Self { name: scope.name().into(), weight, bias, options, inputs, outputs })
    }
}

impl Conv2d {
    pub(super) fn func_options(&self) -> Conv2dFuncOptions {
        let c = &self.options;
        Conv2dFuncOptions { stride: [c.stride; 2], padding: c.padding(), dilation: [c.dilation; 2], groups: c.groups }
    }

    /// The output's shape.
    pub(super) fn output(&self, input: &Shape) -> Result<Shape> {
        self.options.output(&self.name, input, self.outputs)
    }

    /// As `forward`, and partial statistics of the result for the batch norm behind.
    pub(super) fn forward_statistics(&self, x: &Tensor, mode: Mode) -> Result<Vec<Tensor>> {
        let (weight, bias) = (self.weight.tensor(mode)?, self.bias.as_ref().map(|b| b.tensor(mode)).transpose()?);
        let inputs: Vec<&Tensor> = [x, &weight].into_iter().chain(&bias).collect();
        apply(conv2d::Conv2d::new(self.func_options()).with_statistics(), &inputs)
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|b| b.tensor(mode)).transpose()?;
        x.conv2d(&self.weight.tensor(mode)?, bias.as_ref(), &self.func_options())
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let output = self.output(input)?;
        let per_output = self.options.taps(self.inputs / self.options.groups);
        let bias = if self.options.bias { self.outputs } else { 0 };
        summary.push(&self.name, &output, self.outputs * per_output + bias, output.numel().saturating_mul(per_output) as u64);
        Ok(output)
    }
}

/// A depthwise convolution with multiplier 1: every channel has its own kernel.
pub struct DepthwiseConv2d {
    name: String,
    pub(super) weight: Parameter,
    pub(super) bias: Option<Parameter>,
    options: Conv2dOptions,
    channels: usize,
}

impl DepthwiseConv2d {
    /// Makes the layer in the scope `params`.
    ///
    /// # Errors
    /// A kernel, stride or dilation of 0; out of memory.
    pub fn new(params: &Parameters, name: &str, channels: usize, options: Conv2dOptions) -> Result<Self> {
        options.check(name)?;
        let scope = params.scope(name);
        let (k, fan_in) = (options.kernel, options.taps(1));
        let weight = scope.parameter("weight", [k, k, channels], Kind::Depthwise, options.init.unwrap_or(Init::fan_in(fan_in)))?;
        let bias = options.bias.then(|| scope.parameter("bias", [channels], Kind::Bias, options.bias_init(fan_in))).transpose()?;
        Ok(Self { name: scope.name().into(), weight, bias, options, channels })
    }
}

impl DepthwiseConv2d {
    pub(super) fn func_options(&self) -> DepthwiseConv2dFuncOptions {
        let c = &self.options;
        DepthwiseConv2dFuncOptions { stride: [c.stride; 2], padding: c.padding(), dilation: [c.dilation; 2] }
    }
}

impl Module for DepthwiseConv2d {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|b| b.tensor(mode)).transpose()?;
        x.depthwise_conv2d(&self.weight.tensor(mode)?, bias.as_ref(), &self.func_options())
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let output = self.options.output(&self.name, input, self.channels)?;
        let taps = self.options.taps(1);
        let bias = if self.options.bias { self.channels } else { 0 };
        summary.push(&self.name, &output, self.channels * taps + bias, output.numel().saturating_mul(taps) as u64);
        Ok(output)
    }
}

//! A convolution, the batch norm behind it and its activation: what vision networks are built of.

use super::{BatchNorm, BatchNormOptions, Conv2d, Conv2dOptions, DepthwiseConv2d};
use crate::error::Result;
use crate::nn::{Mode, Module, Parameters, Summary};
use crate::tensor::{Shape, Tensor};

enum Convolution {
    Dense(Conv2d),
    Depthwise(DepthwiseConv2d),
}

/// The convolution with the batch norm multiplied into it.
struct Folded {
    weight: Tensor,
    bias: Tensor,
}

/// `activation(norm(conv(x)) + residual)` of images `[N, H, W, C]`. The two parts keep names of
/// their own, which differ from network to network.
pub struct ConvNorm {
    convolution: Convolution,
    norm: BatchNorm,
    folded: Option<Folded>,
}

impl ConvNorm {
    /// A dense or grouped convolution and a batch norm, called `names` in the scope `params`.
    ///
    /// # Errors
    /// As [`Conv2d::new`] and [`BatchNorm::new`].
    pub fn new(
        params: &Parameters,
        names: [&str; 2],
        [inputs, outputs]: [usize; 2],
        convolution: Conv2dOptions,
        norm: BatchNormOptions,
    ) -> Result<Self> {
        let [conv_name, norm_name] = names;
        let convolution = Convolution::Dense(Conv2d::new(params, conv_name, inputs, outputs, convolution)?);
        Ok(Self { convolution, norm: BatchNorm::new(params, norm_name, outputs, norm)?, folded: None })
    }

    /// As [`Self::new`], depthwise.
    ///
    /// # Errors
    /// As [`DepthwiseConv2d::new`] and [`BatchNorm::new`].
    pub fn depthwise(
        params: &Parameters,
        names: [&str; 2],
        channels: usize,
        convolution: Conv2dOptions,
        norm: BatchNormOptions,
    ) -> Result<Self> {
        let [conv_name, norm_name] = names;
        let convolution = Convolution::Depthwise(DepthwiseConv2d::new(params, conv_name, channels, convolution)?);
        Ok(Self { convolution, norm: BatchNorm::new(params, norm_name, channels, norm)?, folded: None })
    }

    /// As `forward`, adding `residual` before the activation.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn forward_residual(&self, x: &Tensor, residual: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        if let Some(folded) = self.folded.as_ref().filter(|_| mode == Mode::Eval) {
            let y = folded.run(&self.convolution, x)?;
            let y = residual.map_or(Ok(y.clone()), |r| y.add(r))?;
            return self.norm.activation().apply(&y);
        }
        match &self.convolution {
            Convolution::Dense(convolution) => self.norm.forward_behind(convolution, x, residual, mode),
            Convolution::Depthwise(convolution) => self.norm.forward_residual(&convolution.forward(x, mode)?, residual, mode),
        }
    }
}

impl Folded {
    fn run(&self, convolution: &Convolution, x: &Tensor) -> Result<Tensor> {
        let bias = Some(&self.bias);
        match convolution {
            Convolution::Dense(convolution) => x.conv2d(&self.weight, bias, &convolution.func_options()),
            Convolution::Depthwise(convolution) => x.depthwise_conv2d(&self.weight, bias, &convolution.func_options()),
        }
    }
}

impl Module for ConvNorm {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.forward_residual(x, None, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let output = match &self.convolution {
            Convolution::Dense(convolution) => convolution.summarize(input, summary)?,
            Convolution::Depthwise(convolution) => convolution.summarize(input, summary)?,
        };
        self.norm.summarize(&output, summary)
    }

    fn fold(&mut self) -> Result<()> {
        let (scale, shift) = self.norm.affine()?;
        let weight = match &self.convolution {
            // [O, kh, kw, I] by [O, 1, 1, 1]
            Convolution::Dense(convolution) => convolution.weight.detach()?.mul(&scale.reshape(&[-1isize, 1, 1, 1])?)?,
            // [kh, kw, C] by [C]
            Convolution::Depthwise(convolution) => convolution.weight.detach()?.mul(&scale)?,
        };
        let own = match &self.convolution {
            Convolution::Dense(convolution) => &convolution.bias,
            Convolution::Depthwise(convolution) => &convolution.bias,
        };
        let bias = own.as_ref().map_or(Ok(shift.clone()), |bias| bias.detach()?.mul(&scale)?.add(&shift))?;
        self.folded = Some(Folded { weight, bias });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gpu::Gpu;

    #[test]
    fn a_folded_layer_computes_what_it_did_with_and_without_a_bias() {
        let gpu = Gpu::new().unwrap();
        for (bias, depthwise) in [(false, false), (true, false), (false, true), (true, true)] {
            let params = Parameters::new(&gpu, 3);
            let options = Conv2dOptions { bias, ..Default::default() };
            let make = if depthwise {
                ConvNorm::depthwise(&params, ["conv", "norm"], 4, options, BatchNormOptions::default())
            } else {
                ConvNorm::new(&params, ["conv", "norm"], [4, 4], options, BatchNormOptions::default())
            };
            let mut layer = make.unwrap();
            // Each vector of four: biases, scales, shifts, means and variances are no round
            // numbers.
            for (i, parameter) in params.all().into_iter().enumerate().filter(|(_, p)| p.slot().unwrap().shape.numel() == 4) {
                parameter.detach().unwrap().write(&[0.7, 1.3, 0.4, 2.1].map(|v| v + 0.1 * i as f32)).unwrap();
            }
            let values: Vec<f32> = (0..100).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
            let x = Tensor::from_slice(&gpu, &values, [1, 5, 5, 4]).unwrap();
            let run = |layer: &ConvNorm| layer.forward(&x, Mode::Eval).unwrap().to_vec::<f32>().unwrap();
            let before = run(&layer);
            layer.fold().unwrap();
            let off = run(&layer).iter().zip(&before).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "bias {bias}, depthwise {depthwise}: off by {off}");
        }
    }
}

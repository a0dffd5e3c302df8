//! Batch and layer normalisation.

use super::Conv2d;
use crate::error::{Result, require_not_negative, require_share};
use crate::nn::{Counter, Init, Joint, Kind, Mode, Module, Parameter, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::ops::apply_one;
use crate::ops::normalization::batch_norm::statistics;
use crate::ops::normalization::batch_norm::{self, BatchNormFuncOptions};
use crate::tensor::{DType, Shape, Tensor};

/// How a batch norm is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub eps: f32,
    /// Weight of the new batch in the running statistics (PyTorch's convention).
    pub momentum: f32,
    /// Applied after the affine map, in the same kernel.
    pub activation: Activation,
    /// The scale's start; the shift's is 0.
    pub weight: Init,
    /// Whether scale and shift are trained; else they stay 1 and 0.
    pub affine: bool,
}

impl Default for BatchNormOptions {
    fn default() -> Self {
        Self { eps: 1e-5, momentum: 0.1, activation: Activation::None, weight: Init::ONES, affine: true }
    }
}

/// Batch normalisation over all axes but the last (Ioffe and Szegedy 2015), with its activation
/// fused. Where its running statistics are frozen ([`Parameters::freeze`]) it normalises by them in
/// [`Mode::Train`], too, and keeps them.
pub struct BatchNorm {
    scope: Parameters,
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    batches: Counter,
    options: BatchNormOptions,
    channels: usize,
}

impl BatchNorm {
    /// Makes the layer: `weight`, `bias`, `running_mean`, `running_var`, `num_batches_tracked`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::error::Error::Argument) for a negative eps or a momentum outside
    /// 0..=1; out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, name: &str, channels: usize, options: BatchNormOptions) -> Result<Self> {
        let scope = params.scope(name);
        require_not_negative(scope.name(), "eps", options.eps)?;
        require_share(scope.name(), "momentum", options.momentum)?;
        Ok(Self {
            scope: scope.clone(),
            weight: scope.parameter("weight", [channels], Kind::Norm, options.weight)?,
            bias: scope.parameter("bias", [channels], Kind::Norm, Init::ZEROS)?,
            running_mean: scope.statistic("running_mean", [channels], Init::ZEROS)?,
            running_var: scope.statistic("running_var", [channels], Init::ONES)?,
            batches: scope.counter("num_batches_tracked"),
            options,
            channels,
        })
    }

    /// As `forward`, adding `residual` before the activation.
    ///
    /// # Errors
    /// Those of the operator.
    pub fn forward_residual(&self, x: &Tensor, residual: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        self.run(x, None, residual, mode)
    }

    /// As `forward_residual` of what `convolution` makes of `x`: in training, where that pays
    /// (large maps on GPUs), the convolution brings the statistics along.
    ///
    /// # Errors
    /// Those of both operators.
    pub fn forward_behind(&self, convolution: &Conv2d, x: &Tensor, residual: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        let mode = self.effective(mode)?;
        let pays = mode.is_training()
            && self.scope.joint().is_none()
            && x.dtype() == DType::F32
            && statistics::wanted(x, &convolution.output(x.shape())?);
        if pays && let [y, statistics] = convolution.forward_statistics(x, mode)?.as_slice() {
            return self.run(y, Some(statistics), residual, mode);
        }
        self.run(&convolution.forward(x, mode)?, None, residual, mode)
    }

    /// Frozen running statistics are what it normalises by in training, too.
    fn effective(&self, mode: Mode) -> Result<Mode> {
        let frozen = mode.is_training() && (self.running_mean.slot()?.frozen || self.running_var.slot()?.frozen);
        Ok(if frozen { Mode::FrozenNorm } else { mode })
    }

    /// What it does to channel c outside training, before its activation: `scale[c] x + shift[c]`.
    pub(super) fn affine(&self) -> Result<(Tensor, Tensor)> {
        let scale = self.running_var.detach()?.add_scalar(self.options.eps)?.rsqrt()?.mul(&self.weight.detach()?)?;
        let shift = self.bias.detach()?.sub(&self.running_mean.detach()?.mul(&scale)?)?;
        Ok((scale, shift))
    }

    pub(super) fn activation(&self) -> Activation {
        self.options.activation
    }

    fn run(&self, x: &Tensor, statistics: Option<&Tensor>, residual: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        let BatchNormOptions { eps, momentum, activation, affine, .. } = self.options;
        let mode = self.effective(mode)?;
        let training = mode.is_training();
        if let Some(joint) = self.scope.joint().filter(|_| training) {
            return self.run_jointly(x, residual, mode, &*joint);
        }
        if mode == Mode::Train {
            let batches = self.batches.clone();
            x.gpu().each_run(move || batches.increment());
        }
        let options = BatchNormFuncOptions { eps, momentum, activation, training };
        let (mut mean, mut var) = (self.running_mean.detach()?, self.running_var.detach()?);
        if mode == Mode::TrainAgain {
            (mean, var) = (mean.copy()?, var.copy()?);
        }
        let watched = if affine { mode } else { Mode::Eval };
        let (weight, bias) = (self.weight.tensor(watched)?, self.bias.tensor(watched)?);
        let inputs: Vec<&Tensor> = [x, &weight, &bias, &mean, &var].into_iter().chain(statistics).chain(residual).collect();
        let operator = batch_norm::BatchNorm::new(options);
        apply_one(if statistics.is_some() { operator.with_statistics() } else { operator }, &inputs)
    }

    /// In training, by the statistics of all shards of the step: mean and variance, each a mean over
    /// shards of as many rows.
    fn run_jointly(&self, x: &Tensor, residual: Option<&Tensor>, mode: Mode, joint: &dyn Joint) -> Result<Tensor> {
        let BatchNormOptions { eps, momentum, activation, affine, .. } = self.options;
        let axes: Vec<isize> = (0..x.shape().rank().saturating_sub(1) as isize).collect();
        let wide = x.cast(DType::F32)?;
        let mean = joint.mean(&wide.mean(&axes, false)?)?;
        let centred = wide.sub(&mean)?;
        let var = joint.mean(&centred.square()?.mean(&axes, false)?)?;
        if mode == Mode::Train && joint.leads() {
            let batches = self.batches.clone();
            x.gpu().each_run(move || batches.increment());
            let rows = (x.numel() / self.channels.max(1) * joint.shards()) as f32;
            for (running, new, factor) in [(&self.running_mean, &mean, 1.0), (&self.running_var, &var, rows / (rows - 1.0).max(1.0))] {
                let running = running.detach()?;
                let moved = running.mul_scalar(1.0 - momentum)?.add(&new.detach().mul_scalar(momentum * factor)?)?;
                running.copy_from(&moved)?;
            }
        }
        let watched = if affine { mode } else { Mode::Eval };
        let scale = var.add_scalar(eps)?.rsqrt()?.mul(&self.weight.tensor(watched)?)?;
        let y = centred.mul(&scale)?.add(&self.bias.tensor(watched)?)?;
        let y = residual.map_or(Ok(y.clone()), |residual| y.add(&residual.cast(DType::F32)?))?;
        activation.apply(&y)?.cast(x.dtype())
    }
}

impl Module for BatchNorm {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.forward_residual(x, None, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        summary.push(self.scope.name(), input, 2 * self.channels, 0);
        Ok(input.clone())
    }
}

/// Layer normalisation over the last axis (Ba et al. 2016).
pub struct LayerNorm {
    name: String,
    weight: Parameter,
    bias: Parameter,
    eps: f32,
    features: usize,
}

impl LayerNorm {
    /// Makes the layer.
    ///
    /// # Errors
    /// As [`BatchNorm::new`].
    pub fn new(params: &Parameters, name: &str, features: usize, eps: f32) -> Result<Self> {
        let scope = params.scope(name);
        require_not_negative(scope.name(), "eps", eps)?;
        let weight = scope.parameter("weight", [features], Kind::Norm, Init::ONES)?;
        let bias = scope.parameter("bias", [features], Kind::Norm, Init::ZEROS)?;
        Ok(Self { name: scope.name().into(), weight, bias, eps, features })
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        x.layer_norm(&self.weight.tensor(mode)?, &self.bias.tensor(mode)?, self.eps)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        summary.push(&self.name, input, 2 * self.features, 0);
        Ok(input.clone())
    }
}

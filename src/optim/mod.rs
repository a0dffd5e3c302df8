//! Optimizers, schedules, averages. An optimizer step over all parameters is one update kernel a
//! chunk, behind the gradients' norm: clipping, skipping of non-finite steps, decay and
//! learning-rate multipliers of each parameter happen inside it.

mod by_name;
mod clip;
mod ema;
mod grad_scaler;
mod rules;
mod schedule;
mod slabs;

pub use by_name::Rule;
pub use clip::clip_each_norm;
pub use ema::Ema;
pub use grad_scaler::{GradScaler, GradScalerOptions};
pub use rules::{Adam, AdamOptions, AdamW, Lars, LarsOptions, RmsProp, RmsPropOptions, Sgd, SgdOptions};
pub use schedule::Schedule;

use crate::autograd::Gradients;
use crate::error::{Error, Result, require_not_negative, require_positive};
use crate::gpu::{Pending, Scalar};
use crate::tensor::Tensor;

/// What all optimizers can do to gradients before the update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerOptions {
    /// L2 penalty, or decoupled decay, by the optimizer.
    pub weight_decay: f32,
    /// Biases and normalisations are not decayed; LARS then takes their gradients as they are.
    pub exclude_bias_and_norm: bool,
    /// Depthwise weights are not decayed either (the rule of MobileNetV1's authors: they have few
    /// values each).
    pub exclude_depthwise: bool,
    /// Gradients whose global norm is larger are scaled down to it (PyTorch's `clip_grad_norm_`).
    pub clip_norm: Option<f32>,
    /// Each parameter's gradient whose own norm is larger is scaled down to it, before that (DINO's
    /// `clip_grad`).
    pub clip_each: Option<f32>,
    /// Gradients are multiplied by this first: 1 / loss scale.
    pub gradient_scale: f32,
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self {
            weight_decay: 0.0,
            exclude_bias_and_norm: false,
            exclude_depthwise: false,
            clip_norm: None,
            clip_each: None,
            gradient_scale: 1.0,
        }
    }
}

impl OptimizerOptions {
    /// Refuses settings without a meaning. An infinite norm clips nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] for a decay that is negative or not finite, a norm or a scale that is
    /// not positive.
    pub fn check(&self) -> Result<()> {
        require_not_negative("optimizer", "weight_decay", self.weight_decay)?;
        require_positive("optimizer", "gradient_scale", self.gradient_scale)?;
        for (setting, norm) in [("clip_norm", self.clip_norm), ("clip_each", self.clip_each)] {
            clip::check(setting, norm.unwrap_or(f32::INFINITY))?;
        }
        Ok(())
    }
}

/// One optimizer over one home of parameters.
pub trait Optimizer: Send {
    /// Updates every parameter that has a gradient and is not frozen; the others keep value and
    /// state. A step whose gradients are not all finite changes nothing ([`Self::skipped`] counts
    /// it).
    ///
    /// # Errors
    /// [`Error::Argument`] where none of the gradients is of its parameters, or for a learning rate
    /// that is negative or not finite; gradients of another type; out of memory; a lost device.
    fn step_with(&mut self, gradients: &Gradients, learning_rate: Scalar) -> Result<()>;

    /// As [`Self::step_with`], by a number or a [`Scalar`].
    ///
    /// # Errors
    /// As [`Self::step_with`].
    fn step(&mut self, gradients: &Gradients, learning_rate: impl Into<Scalar>) -> Result<()>
    where
        Self: Sized,
    {
        self.step_with(gradients, learning_rate.into())
    }

    /// Weight decay by a schedule, from the next step on: `decay` takes the place of
    /// [`OptimizerOptions::weight_decay`], for the same parameters.
    ///
    /// # Errors
    /// Out of memory; an optimizer that cannot.
    fn schedule_weight_decay(&mut self, _decay: Scalar) -> Result<()> {
        Err(Error::argument("weight_decay", "this optimizer has no schedule for it"))
    }

    /// From the next step on, gradients are those of a loss times `scaler`'s scale: they are freed
    /// of it, and each step moves it.
    ///
    /// # Errors
    /// An optimizer that cannot.
    fn scale_gradients(&mut self, _scaler: &GradScaler) -> Result<()> {
        Err(Error::argument("scale_gradients", "this optimizer knows no loss scale; train in f32"))
    }

    /// The state to keep in a checkpoint, by name. Writing into these tensors restores it.
    ///
    /// # Errors
    /// Out of memory.
    fn state(&mut self) -> Result<Vec<(String, Tensor)>>;

    /// How many steps were skipped because of non-finite gradients, on the way to the host.
    ///
    /// # Errors
    /// A lost device.
    fn skipped_later(&self) -> Result<Pending<u64>>;

    /// [`Self::skipped_later`], waiting for the device.
    ///
    /// # Errors
    /// A lost device.
    fn skipped(&self) -> Result<u64> {
        self.skipped_later()?.wait()
    }

    /// Of the last step, f32 on the device, the norm of all its gradients first: multiplied by
    /// [`OptimizerOptions::gradient_scale`], not yet clipped. Of a captured step it is the
    /// program's, as the loss is.
    fn gradient_norm(&self) -> Option<Tensor>;
}

impl<O: Optimizer + ?Sized> Optimizer for Box<O> {
    fn step_with(&mut self, gradients: &Gradients, learning_rate: Scalar) -> Result<()> {
        (**self).step_with(gradients, learning_rate)
    }

    fn schedule_weight_decay(&mut self, decay: Scalar) -> Result<()> {
        (**self).schedule_weight_decay(decay)
    }

    fn scale_gradients(&mut self, scaler: &GradScaler) -> Result<()> {
        (**self).scale_gradients(scaler)
    }

    fn state(&mut self) -> Result<Vec<(String, Tensor)>> {
        (**self).state()
    }

    fn skipped_later(&self) -> Result<Pending<u64>> {
        (**self).skipped_later()
    }

    fn gradient_norm(&self) -> Option<Tensor> {
        (**self).gradient_norm()
    }
}

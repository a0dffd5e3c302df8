//! The loss scale of mixed precision: f16 gradients are kept from vanishing by a factor on the loss.

use serde::{Deserialize, Serialize};

use crate::error::{Result, require_positive};
use crate::gpu::{Gpu, Pending};
use crate::ops::apply;
use crate::ops::optimizer::loss_scale::{Unscale, UpdateScale};
use crate::tensor::Tensor;

/// How a [`GradScaler`] behaves; PyTorch's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GradScalerOptions {
    /// The first scale.
    pub init_scale: f32,
    /// The factor after `growth_interval` steps that were taken.
    pub growth_factor: f32,
    /// The factor after a step that was skipped.
    pub backoff_factor: f32,
    /// Steps.
    pub growth_interval: u32,
}

impl Default for GradScalerOptions {
    fn default() -> Self {
        Self { init_scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000 }
    }
}

impl GradScalerOptions {
    fn rule(&self) -> UpdateScale {
        UpdateScale { growth: self.growth_factor, backoff: self.backoff_factor, interval: self.growth_interval }
    }

    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::error::Error::Argument) that names the setting.
    pub fn check(&self) -> Result<()> {
        require_positive("loss scale", "init_scale", self.init_scale)?;
        self.rule().check()
    }
}

/// A loss scale that lives on the device. Backward begins from [`Self::scale`]; an optimizer that
/// has been told of it ([`Optimizer::scale_gradients`](super::Optimizer::scale_gradients)) frees
/// the gradients of it, skips a step whose gradients are not finite, and moves the scale. Nothing is
/// read by the host, so a captured step does all of it. Clones are handles of the same scale.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use wgrad::gpu::Precision;
/// use wgrad::nn::{Linear, Mode, Module, Parameters};
/// use wgrad::optim::{GradScaler, Optimizer, Sgd, SgdOptions};
/// use wgrad::tensor::Tensor;
///
/// let gpu = wgrad::gpu::Gpu::new()?;
/// let gpu = gpu.with_precision(if gpu.capabilities().f16 { Precision::Mixed } else { Precision::F32 })?;
/// let params = Parameters::new(&gpu, 0);
/// let model = Linear::new(&params, "model", 4, 2)?;
/// let mut optimizer = Sgd::new(&params, SgdOptions::default())?;
/// let scaler = GradScaler::new(&gpu, Default::default())?;
/// optimizer.scale_gradients(&scaler)?;
/// let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0, 4.0], [1, 4])?;
/// let loss = model.forward(&x, Mode::Train)?.square()?.mean(&[], false)?;
/// optimizer.step(&loss.backward_from(&scaler.scale())?, 0.01)?;
/// assert_eq!(scaler.value_later()?.wait()?, 65536.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GradScaler {
    state: Tensor,
    rule: UpdateScale,
}

impl GradScaler {
    /// A scale at its start.
    ///
    /// # Errors
    /// As [`GradScalerOptions::check`]; out of memory.
    pub fn new(gpu: &Gpu, options: GradScalerOptions) -> Result<Self> {
        options.check()?;
        let state = Tensor::from_slice(&gpu.plain(), &[options.init_scale, 0.0], [2])?;
        Ok(Self { state, rule: options.rule() })
    }

    /// The scale, `[]`: what the backward pass of a loss begins from
    /// ([`Tensor::backward_from`]).
    pub fn scale(&self) -> Tensor {
        self.state.slot(0, [], std::sync::Arc::default())
    }

    /// The scale, on its way to the host.
    ///
    /// # Errors
    /// A lost device.
    pub fn value_later(&self) -> Result<Pending<f32>> {
        Ok(self.state.to_vec_later::<f32>()?.map(|state| Ok(state.first().copied().unwrap_or(f32::NAN))))
    }

    /// Scale and counter, to keep in a checkpoint. Writing into the tensor restores them.
    pub(super) fn state(&self) -> &Tensor {
        &self.state
    }

    /// Frees the gradients' factor in an optimizer's numbers of the scale.
    pub(super) fn unscale(&self, scalars: &Tensor) -> Result<()> {
        apply(Unscale, &[scalars, &self.state]).map(drop)
    }

    /// Moves the scale by what became of a step.
    pub(super) fn update(&self, control: &Tensor) -> Result<()> {
        apply(self.rule.clone(), &[&self.state, control]).map(drop)
    }
}

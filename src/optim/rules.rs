//! The optimizers: PyTorch's names, arguments and results.

use super::slabs::Slabs;
use super::{GradScaler, Optimizer, OptimizerOptions};
use crate::autograd::Gradients;
use crate::error::{Result, require_not_negative};
use crate::gpu::{Pending, Scalar};
use crate::nn::Parameters;
use crate::ops::optimizer::adam_update::AdamUpdate;
use crate::ops::optimizer::lars_update::LarsUpdate;
use crate::ops::optimizer::rmsprop_update::RmspropUpdate;
use crate::ops::optimizer::sgd_update::SgdUpdate;
use crate::tensor::Tensor;

/// An optimizer from its options, the names of its states, whether it needs the norm of each
/// parameter, its update, and the decay rates of averages whose bias it corrects.
macro_rules! optimizer {
    ($(#[$doc:meta])* $name:ident, $options:ty, $states:expr, $norms:literal, $rule:expr, $betas:expr) => {
        $(#[$doc])*
        pub struct $name {
            slabs: Slabs,
            options: $options,
        }

        impl $name {
            /// An optimizer of all parameters in the home of `params`, also of those that are made
            /// later.
            ///
            /// # Errors
            /// [`Error::Argument`](crate::error::Error::Argument) for settings without a meaning;
            /// out of memory.
            pub fn new(params: &Parameters, options: $options) -> Result<Self> {
                $rule(&options).check()?;
                options.common.check()?;
                Ok(Self { slabs: Slabs::new(params, options.common, $states(&options))?, options })
            }
        }

        impl Optimizer for $name {
            fn step_with(&mut self, gradients: &Gradients, learning_rate: Scalar) -> Result<()> {
                require_not_negative("optimizer", "learning_rate", learning_rate.get())?;
                let options = self.options;
                self.slabs.step(gradients, learning_rate, $betas(&options), || $rule(&options), $norms)
            }

            fn schedule_weight_decay(&mut self, decay: Scalar) -> Result<()> {
                self.slabs.schedule_weight_decay(decay)
            }

            fn scale_gradients(&mut self, scaler: &GradScaler) -> Result<()> {
                self.slabs.scale_gradients(scaler);
                Ok(())
            }

            fn state(&mut self) -> Result<Vec<(String, Tensor)>> {
                self.slabs.state()
            }

            fn skipped_later(&self) -> Result<Pending<u64>> {
                self.slabs.skipped_later()
            }

            fn gradient_norm(&self) -> Option<Tensor> {
                self.slabs.gradient_norm()
            }
        }
    };
}

fn none<C>(_: &C) -> [f32; 2] {
    [0.0; 2]
}

/// How [`Sgd`] is set up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SgdOptions {
    /// What is kept of the last update's direction.
    pub momentum: f32,
    /// Looks ahead by one step of the momentum.
    pub nesterov: bool,
    /// Decay and clipping.
    pub common: OptimizerOptions,
}

optimizer! {
    /// Stochastic gradient descent with momentum, without dampening.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::nn::{Linear, Mode, Module, Parameters};
    /// use wgrad::optim::{OptimizerOptions, Optimizer, Schedule, Sgd, SgdOptions};
    /// use wgrad::tensor::Tensor;
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let params = Parameters::new(&gpu, 0);
    /// let model = Linear::new(&params, "model", 1, 1)?;
    /// let common = OptimizerOptions { weight_decay: 1e-4, exclude_bias_and_norm: true, clip_norm: Some(1.0), ..Default::default() };
    /// let mut optimizer = Sgd::new(&params, SgdOptions { momentum: 0.9, nesterov: true, common })?;
    /// let schedule = Schedule::one_cycle(0.2, 60);
    /// let (x, y) = (Tensor::from_slice(&gpu, &[1.0f32, 2.0], [2, 1])?, Tensor::from_slice(&gpu, &[3.0f32, 5.0], [2, 1])?);
    /// let error = || model.forward(&x, Mode::Train)?.mse_loss(&y);
    /// let before = error()?.item()?;
    /// for step in 0..60 {
    ///     optimizer.step(&error()?.backward()?, schedule.rate(step))?;
    /// }
    /// assert!(error()?.item()? < 0.1 * before);
    /// # Ok(())
    /// # }
    /// ```
    Sgd, SgdOptions, |c: &SgdOptions| -> &'static [&'static str] { if c.momentum == 0.0 { &[] } else { &["momentum_buffer"] } }, false,
    |c: &SgdOptions| SgdUpdate { momentum: c.momentum, nesterov: c.nesterov }, none
}

/// How [`Adam`] and [`AdamW`] are set up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamOptions {
    /// Decay rates of the averages of the gradient and its square.
    pub betas: [f32; 2],
    /// Keeps the division finite.
    pub eps: f32,
    /// Decay and clipping.
    pub common: OptimizerOptions,
}

impl Default for AdamOptions {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, common: OptimizerOptions::default() }
    }
}

const AVERAGES: &[&str] = &["exp_avg", "exp_avg_sq"];

optimizer! {
    /// Adam (Kingma and Ba 2015); weight decay is added to the gradient.
    Adam, AdamOptions, |_: &AdamOptions| AVERAGES, false,
    |c: &AdamOptions| AdamUpdate { betas: c.betas, eps: c.eps, decoupled: false }, |c: &AdamOptions| c.betas
}

optimizer! {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW, AdamOptions, |_: &AdamOptions| AVERAGES, false,
    |c: &AdamOptions| AdamUpdate { betas: c.betas, eps: c.eps, decoupled: true }, |c: &AdamOptions| c.betas
}

/// How [`Lars`] is set up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LarsOptions {
    /// What is kept of the velocity.
    pub momentum: f32,
    /// How far a layer moves: its rate is this times the norm of its weights over that of their
    /// gradient.
    pub trust_coefficient: f32,
    /// That rate is not a factor of the learning rate, but taken in its place where it is smaller
    /// (LARC in NVIDIA's apex, `clip_lr` in solo-learn).
    pub clip_lr: bool,
    /// Decay and clipping.
    pub common: OptimizerOptions,
}

impl Default for LarsOptions {
    fn default() -> Self {
        Self { momentum: 0.9, trust_coefficient: 1e-3, clip_lr: false, common: OptimizerOptions::default() }
    }
}

optimizer! {
    /// Layer-wise adaptive rates (You et al. 2017), DeepMind's variant: the trust ratio scales the
    /// decayed gradient inside the momentum.
    Lars, LarsOptions, |_: &LarsOptions| -> &'static [&'static str] { &["velocity"] }, true,
    |c: &LarsOptions| LarsUpdate { momentum: c.momentum, eta: c.trust_coefficient, clip: c.clip_lr }, none
}

/// How [`RmsProp`] is set up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsPropOptions {
    /// Decay rate of the average of the squared gradient.
    pub alpha: f32,
    /// Added outside the root.
    pub eps: f32,
    /// What is kept of the last update's direction.
    pub momentum: f32,
    /// Decay and clipping.
    pub common: OptimizerOptions,
}

impl Default for RmsPropOptions {
    fn default() -> Self {
        Self { alpha: 0.99, eps: 1e-8, momentum: 0.0, common: OptimizerOptions::default() }
    }
}

optimizer! {
    /// RMSprop (Hinton 2012) with momentum, eps outside the root as in PyTorch.
    RmsProp, RmsPropOptions, |_: &RmsPropOptions| -> &'static [&'static str] { &["square_avg", "momentum_buffer"] }, false,
    |c: &RmsPropOptions| RmspropUpdate { alpha: c.alpha, eps: c.eps, momentum: c.momentum }, none
}

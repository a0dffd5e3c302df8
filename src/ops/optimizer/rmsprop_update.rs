//! RMSprop with momentum (PyTorch's: eps outside the root), over a whole slab in one dispatch.

use super::slab::{self, Rule, cost, infer, launch, reference, sample, squares};
use crate::error::{Result, require_not_negative, require_share};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, normal};
use crate::ops::{Array, Attributes, Cost, Operator};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "rmsprop_update";

/// g += decay w; s = alpha s + (1 - alpha) g^2; b = momentum b + g / (sqrt(s) + eps); w -= lr b.
/// Inputs: those of a [`Slab`](super::Slab), s `[n]`, b `[n]`, both zero before the first step.
#[derive(Debug, Clone)]
pub struct RmspropUpdate {
    /// Decay rate of the average of g^2.
    pub alpha: f32,
    /// Keeps the division finite.
    pub eps: f32,
    /// What is kept of the buffer.
    pub momentum: f32,
}

impl RmspropUpdate {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::error::Error::Argument) for an alpha or a momentum outside 0..=1,
    /// or an eps that is negative or not finite.
    pub fn check(&self) -> Result<()> {
        require_share(NAME, "alpha", self.alpha)?;
        require_share(NAME, "momentum", self.momentum)?;
        require_not_negative(NAME, "eps", self.eps).map(drop)
    }
}

impl Operator for RmspropUpdate {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.check()?;
        infer(NAME, inputs, 2, 0).map(|_| vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let constants = [self.alpha, 0.0, self.momentum, self.eps];
        launch(&Rule { name: "rmsprop", states: 2, constants }, inputs).map(|()| vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![0, 6, 7]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [alpha, eps, momentum] = [self.alpha, self.eps, self.momentum].map(f64::from);
        reference(inputs, 2, |e, state| {
            let [s, b] = state else { return f64::NAN };
            let g = e.gradient + e.decay * e.value;
            *s = alpha * *s + (1.0 - alpha) * g * g;
            *b = momentum * *b + g / (s.sqrt() + eps);
            e.value - e.lr * *b
        })
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        cost(inputs, 2, 12.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let number = |name: &str, default: f64| attributes.number_or(name, default).map(|v| v as f32);
    Ok(Box::new(RmspropUpdate { alpha: number("alpha", 0.99)?, eps: number("eps", 1e-8)?, momentum: number("momentum", 0.0)? }))
}

fn samples() -> Vec<Sample> {
    let on = |momentum: f32, blocks: usize, count: usize, taken: bool| {
        let n = blocks * super::BLOCK;
        let mut inputs = sample(blocks, count, taken);
        inputs.extend([squares(n), normal([n])]);
        Sample::new(RmspropUpdate { alpha: 0.9, eps: 1e-3, momentum }, inputs)
    };
    vec![on(0.9, 1, 1, true), on(0.0, 33, 5, true), on(0.9, 65, 7, true), on(0.9, 5, 3, false)]
}

fn bad() -> Vec<Bad> {
    let update = || RmspropUpdate { alpha: 0.9, eps: 1e-3, momentum: 0.9 };
    let with = |n: usize| sample(3, 2, true).into_iter().chain([normal([n]), normal([192])]).collect::<Vec<_>>();
    vec![
        Bad::new(update(), sample(3, 2, true), "it takes 8 inputs, 6 were given"),
        Bad::new(RmspropUpdate { alpha: 1.5, ..update() }, with(192), "alpha must lie in 0..=1, found 1.5"),
        Bad::new(RmspropUpdate { momentum: f32::NAN, ..update() }, with(192), "momentum must lie in 0..=1, found NaN"),
        Bad::new(RmspropUpdate { eps: -1.0, ..update() }, with(192), "eps must be finite and at least 0, found -1"),
        Bad::new(update(), with(128), "state 0 must have shape [192]"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["values", "gradients", "segments", "table", "scalars", "control", "square_avg", "momentum_buffer"],
        outputs: &[],
        kernels: &[slab::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

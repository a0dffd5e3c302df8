//! Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019), PyTorch's, over a whole slab
//! in one dispatch.

use super::slab::{self, Rule, cost, infer, launch, reference, sample, squares};
use crate::error::{Error, Result, require_not_negative};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, normal};
use crate::ops::{Array, Attributes, Cost, Operator};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "adam_update";

/// m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w -= lr / c1 * m / (sqrt(v) /
/// sqrt(c2) + eps), c the bias corrections of [`ClipNorm`](super::clip_norm::ClipNorm). Weight decay is added to
/// g, or with `decoupled` (AdamW) taken from w first. Inputs: those of a [`Slab`](super::Slab), m
/// `[n]`, v `[n]`, both zero before the first step.
#[derive(Debug, Clone)]
pub struct AdamUpdate {
    /// Decay rates of the averages of g and g^2.
    pub betas: [f32; 2],
    /// Keeps the division finite.
    pub eps: f32,
    /// AdamW.
    pub decoupled: bool,
}

impl AdamUpdate {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`Error::Argument`] for betas outside 0..1, or an eps that is negative or not finite.
    pub fn check(&self) -> Result<()> {
        if self.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) {
            return Err(Error::argument(NAME, format!("betas must lie in 0..1, found {:?}", self.betas)));
        }
        require_not_negative(NAME, "eps", self.eps).map(drop)
    }
}

impl Operator for AdamUpdate {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.check()?;
        infer(NAME, inputs, 2, 0).map(|_| vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [beta1, beta2] = self.betas;
        let constants = [beta1, beta2, f32::from(u8::from(self.decoupled)), self.eps];
        launch(&Rule { name: "adam", states: 2, constants }, inputs).map(|()| vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![0, 6, 7]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [beta1, beta2] = self.betas.map(f64::from);
        let eps = f64::from(self.eps);
        let correction = |i: usize| inputs.get(5).map_or(f64::NAN, |control| control.flat(i));
        let (c1, c2) = (correction(5), correction(6));
        reference(inputs, 2, |e, state| {
            let [m, v] = state else { return f64::NAN };
            let (value, g) =
                if self.decoupled { (e.value * (1.0 - e.lr * e.decay), e.gradient) } else { (e.value, e.gradient + e.decay * e.value) };
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            value - e.lr * (*m / c1) / ((*v / c2).sqrt() + eps)
        })
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        cost(inputs, 2, 15.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let beta = |name: &str, default: f64| attributes.number_or(name, default).map(|v| v as f32);
    Ok(Box::new(AdamUpdate {
        betas: [beta("beta1", 0.9)?, beta("beta2", 0.999)?],
        eps: attributes.number_or("eps", 1e-8)? as f32,
        decoupled: attributes.flag("decoupled")?,
    }))
}

fn samples() -> Vec<Sample> {
    let on = |decoupled: bool, blocks: usize, count: usize, taken: bool| {
        let n = blocks * super::BLOCK;
        let mut inputs = sample(blocks, count, taken);
        inputs.extend([normal([n]), squares(n)]);
        Sample::new(AdamUpdate { betas: [0.9, 0.999], eps: 1e-8, decoupled }, inputs)
    };
    vec![
        on(false, 1, 1, true),
        on(false, 33, 5, true),
        on(true, 7, 3, true),
        on(true, 65, 7, true),
        on(true, 5, 3, false),
        on(false, 0, 1, true),
    ]
}

fn bad() -> Vec<Bad> {
    let update = |beta: f32| AdamUpdate { betas: [beta, 0.999], eps: 1e-8, decoupled: false };
    let with = |n: usize| sample(3, 2, true).into_iter().chain([normal([192]), normal([n])]).collect::<Vec<_>>();
    vec![
        Bad::new(update(0.9), sample(3, 2, true), "it takes 8 inputs, 6 were given"),
        Bad::new(update(0.9), with(128), "state 1 must have shape [192]"),
        Bad::new(update(1.0), with(192), "betas must lie in"),
        Bad::new(update(f32::NAN), with(192), "betas must lie in"),
        Bad::new(AdamUpdate { eps: -1.0, ..update(0.9) }, with(192), "eps must be finite and at least 0, found -1"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["values", "gradients", "segments", "table", "scalars", "control", "exp_avg", "exp_avg_sq"],
        outputs: &[],
        kernels: &[slab::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

//! Stochastic gradient descent with momentum (PyTorch's SGD, no dampening), over a whole slab in
//! one dispatch.

use super::slab::{self, Rule, cost, infer, launch, reference, sample};
use crate::error::{Error, Result, require_share};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Cost, Operator};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "sgd_update";

/// g += decay w; b = momentum b + g; w -= lr b, or with Nesterov w -= lr (g + momentum b). A buffer
/// of zeros before the first step gives PyTorch's first step. Inputs: those of a
/// [`Slab`](super::Slab), and the momentum buffer `[n]` unless `momentum` is 0.
#[derive(Debug, Clone)]
pub struct SgdUpdate {
    /// What is kept of the buffer; 0: there is none.
    pub momentum: f32,
    /// Looks ahead by one step of the buffer.
    pub nesterov: bool,
}

impl SgdUpdate {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`Error::Argument`] for a momentum outside 0..=1, or Nesterov's without one.
    pub fn check(&self) -> Result<()> {
        require_share(NAME, "momentum", self.momentum)?;
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::argument(NAME, "nesterov needs a momentum above 0"));
        }
        Ok(())
    }

    fn states(&self) -> usize {
        usize::from(self.momentum != 0.0)
    }
}

impl Operator for SgdUpdate {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.check()?;
        infer(NAME, inputs, self.states(), 0).map(|_| vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let constants = [self.momentum, f32::from(u8::from(self.nesterov)), 0.0, 0.0];
        launch(&Rule { name: "sgd", states: self.states(), constants }, inputs).map(|()| vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        if self.states() == 1 { vec![0, 6] } else { vec![0] }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let momentum = f64::from(self.momentum);
        reference(inputs, self.states(), |e, state| {
            let g = e.gradient + e.decay * e.value;
            match state {
                [b] => {
                    *b = momentum * *b + g;
                    e.value - e.lr * if self.nesterov { g + momentum * *b } else { *b }
                }
                _ => e.value - e.lr * g,
            }
        })
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        cost(inputs, self.states(), 7.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let momentum = attributes.number_or("momentum", 0.0)? as f32;
    Ok(Box::new(SgdUpdate { momentum, nesterov: attributes.flag("nesterov")? }))
}

fn samples() -> Vec<Sample> {
    let on = |momentum: f32, nesterov: bool, blocks: usize, count: usize, taken: bool| {
        let mut inputs = sample(blocks, count, taken);
        inputs.extend((momentum != 0.0).then(|| normal([blocks * super::BLOCK])));
        Sample::new(SgdUpdate { momentum, nesterov }, inputs)
    };
    vec![
        on(0.0, false, 1, 1, true),
        on(0.0, false, 33, 5, true),
        on(0.9, false, 7, 3, true),
        on(0.9, true, 65, 7, true),
        on(0.9, true, 5, 3, false),
        on(0.9, false, 0, 1, true),
    ]
}

fn bad() -> Vec<Bad> {
    let plain = |momentum: f32, nesterov: bool| SgdUpdate { momentum, nesterov };
    let with = |index: usize, input: Input| {
        let mut inputs = sample(3, 2, true);
        if let Some(slot) = inputs.get_mut(index) {
            *slot = input;
        }
        inputs
    };
    let outside = Array::integers([3], vec![0.0, 1.0, 2.0]);
    vec![
        Bad::new(plain(2.0, false), with(6, normal([192])), "momentum must lie in 0..=1, found 2"),
        Bad::new(plain(-0.5, false), with(6, normal([192])), "momentum must lie in 0..=1, found -0.5"),
        Bad::new(plain(0.9, false), sample(3, 2, true), "it takes 7 inputs, 6 were given"),
        Bad::new(plain(0.0, true), sample(3, 2, true), "nesterov needs a momentum"),
        Bad::new(plain(0.0, false), with(0, normal([190])), "n a multiple of 64"),
        Bad::new(plain(0.0, false), with(1, normal([128])), "gradients must have shape [192]"),
        Bad::new(plain(0.0, false), with(2, indices([4], 2)), "one for each block of 64"),
        Bad::new(plain(0.0, false), with(2, Input::Values(outside)), "segments holds 2, outside 0..2"),
        Bad::new(plain(0.0, false), with(3, normal([2, 3])), "table must be [segments, 4]"),
        Bad::new(plain(0.0, false), with(4, normal([3])), "scalars must have shape [8]"),
        Bad::new(plain(0.0, false), with(5, indices([4], 2)), "control must be f32"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["values", "gradients", "segments", "table", "scalars", "control", "momentum_buffer"],
        outputs: &[],
        kernels: &[slab::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

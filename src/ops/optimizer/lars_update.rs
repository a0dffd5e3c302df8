//! LARS (You et al. 2017, as in DeepMind's BYOL), over a whole slab in one dispatch after
//! `segment_norms`; clipped, as LARC in NVIDIA's apex and `clip_lr` in solo-learn.

use super::slab::{self, Rule, check, cost, infer, launch, reference, sample};
use crate::error::{Result, require_positive, require_share};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, normal};
use crate::ops::{Array, Attributes, Cost, Edges, Operator};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "lars_update";

/// g += decay w; v = momentum v + trust g, trust = eta |w| / |g| of the segment (1 where either is
/// 0, or where the segment is marked); w -= lr v. Clipped, a trust that is not 1 for one of these
/// reasons is min(trust / lr, 1). Inputs: those of a [`Slab`](super::Slab), v
/// `[n]`, zero before the first step, and the norms [segments, 4] of `segment_norms`.
#[derive(Debug, Clone)]
pub struct LarsUpdate {
    /// What is kept of the velocity.
    pub momentum: f32,
    /// The trust coefficient.
    pub eta: f32,
    /// The learning rate is the most by which a segment moves, not a factor.
    pub clip: bool,
}

impl LarsUpdate {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::error::Error::Argument) for a momentum outside 0..=1, or an eta
    /// that is not positive and finite.
    pub fn check(&self) -> Result<()> {
        require_share(NAME, "momentum", self.momentum)?;
        require_positive(NAME, "eta", self.eta).map(drop)
    }
}

impl Operator for LarsUpdate {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.check()?;
        let (_, segments) = infer(NAME, inputs, 1, 1)?;
        if let Some(norms) = inputs.last() {
            check(NAME, "norms", norms, [segments, 4])?;
        }
        Ok(vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        launch(&Rule { name: "lars", states: 1, constants: [self.momentum, self.eta, f32::from(u8::from(self.clip)), 0.0] }, inputs)
            .map(|()| vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![0, 6]
    }

    fn edges(&self, input: usize) -> Edges {
        // The table is the host's, the norms are made of the other inputs.
        if input == 3 || input == 7 { Edges::None } else { Edges::All }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [momentum, eta] = [self.momentum, self.eta].map(f64::from);
        let norm = |segment: usize, which: usize| {
            inputs.last().map_or(f64::NAN, |norms| norms.at(&[segment, which]) * norms.at(&[segment, which + 2]).exp2())
        };
        reference(inputs, 1, |e, state| {
            let [v] = state else { return f64::NAN };
            let g = e.gradient + e.decay * e.value;
            let (of_w, of_g) = (norm(e.segment, 0), norm(e.segment, 1));
            let trust = match eta * of_w / of_g {
                _ if e.without_trust || of_w == 0.0 || of_g == 0.0 => 1.0,
                trust if self.clip && trust >= e.lr => 1.0,
                trust if self.clip => trust / e.lr,
                trust => trust,
            };
            *v = momentum * *v + trust * g;
            e.value - e.lr * *v
        })
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        cost(inputs, 1, 8.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let momentum = attributes.number_or("momentum", 0.9)? as f32;
    Ok(Box::new(LarsUpdate { momentum, eta: attributes.number_or("eta", 1e-3)? as f32, clip: attributes.flag("clip")? }))
}

fn samples() -> Vec<Sample> {
    let with = |blocks: usize, count: usize, taken: bool, lowest: f64, eta: f32, clip: bool| {
        let mut inputs = sample(blocks, count, taken);
        let norms = Array::from_fn([count, 4], |index| match *index {
            // The exponents of the last segment are those of small weights and large gradients.
            [s, 2] if s > 2 && s + 1 == count => -96.0,
            [s, 3] if s > 2 && s + 1 == count => 80.0,
            [_, 2 | 3] => 0.0,
            _ => lowest * (1.0 + 0.25 * index.iter().sum::<usize>() as f64),
        });
        inputs.extend([normal([blocks * super::BLOCK]), Input::Values(norms)]);
        Sample::new(LarsUpdate { momentum: 0.9, eta, clip }, inputs)
    };
    let on = |blocks: usize, count: usize, taken: bool, lowest: f64| with(blocks, count, taken, lowest, 0.01, false);
    // Some of the segments are clipped, some are not, some have no trust.
    let clipped = [with(65, 7, true, 0.25, 0.2, true), with(3, 1, true, 0.0, 0.2, true)];
    let plain = [on(1, 1, true, 0.5), on(3, 1, true, 0.0), on(33, 5, true, 0.5), on(65, 7, true, 0.25), on(5, 3, false, 0.5)];
    plain.into_iter().chain(clipped).collect()
}

fn bad() -> Vec<Bad> {
    let update = || LarsUpdate { momentum: 0.9, eta: 0.01, clip: false };
    let with = |segments: usize| sample(3, 2, true).into_iter().chain([normal([192]), normal([segments, 4])]).collect::<Vec<_>>();
    vec![
        Bad::new(update(), sample(3, 2, true), "it takes 8 inputs, 6 were given"),
        Bad::new(LarsUpdate { eta: 0.0, ..update() }, with(2), "eta must be positive and finite, found 0"),
        Bad::new(LarsUpdate { momentum: 2.0, ..update() }, with(2), "momentum must lie in 0..=1, found 2"),
        Bad::new(update(), with(3), "norms must have shape [2, 4]"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["values", "gradients", "segments", "table", "scalars", "control", "velocity", "norms"],
        outputs: &[],
        kernels: &[slab::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

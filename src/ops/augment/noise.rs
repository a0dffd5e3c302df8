//! Random numbers for each image of a batch, by its place in the data set: what masks, permutations
//! and latent noise are drawn from.

use super::{Draws, sample_draws};
use crate::error::{Error, Result};
use crate::gpu::{Launch, Scalar};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample, indices, uniform};
use crate::ops::{Array, Attributes, Cost, Operator, Tolerance, apply_one, exactly};
use crate::params;
use crate::tensor::random::{Purpose, threefry2x32, uniform_from_bits};
use crate::tensor::{DType, Spec, Tensor};

kernels!(NOISE = "augment/noise");

/// How the numbers are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Evenly in 0..1: multiples of 2^-24.
    Uniform,
    /// Mean 0 and variance 1, by Box and Muller's transform; none lies beyond 5.8.
    Normal,
}

/// `length` numbers for each of N indices: `[N]` to `[N, length]`.
///
/// They follow from the seed, the epoch, the index, the view and the step: never from the batch.
/// Their keys are [`Purpose::Mask`]'s, so they have nothing in common with what augmentation draws;
/// the step is below 256.
#[derive(Debug, Clone, PartialEq)]
pub struct Noise {
    /// Numbers an image.
    pub length: usize,
    /// Their distribution.
    pub distribution: Distribution,
    /// Where the random numbers come from.
    pub draws: Draws,
}

impl Noise {
    /// The first word of the key's second half, and of the counter's: a step has 2^16 keys of 256
    /// blocks of two numbers.
    fn key_and_counter(&self) -> (u32, Scalar<u32>) {
        let Draws { epoch, view, step, .. } = &self.draws;
        let view = *view;
        (Purpose::Mask.numbered(step << 16), epoch.map(move |epoch| epoch << 16 | view << 8))
    }

    fn number(&self, index: u32, element: usize) -> f64 {
        let (key, counter) = self.key_and_counter();
        let block = (element / 2) as u32;
        let [first, second] = threefry2x32([self.draws.seed, key + (block >> 8)], [index, counter.get() + (block & 255)]);
        let odd = element % 2 == 1;
        match self.distribution {
            Distribution::Uniform => f64::from(uniform_from_bits(if odd { second } else { first })),
            Distribution::Normal => {
                let radius = (-2.0 * ((f64::from(first >> 9) + 0.5) / f64::from(1 << 23)).ln()).sqrt();
                let angle = (f64::from(uniform_from_bits(second)) - 0.5) * std::f64::consts::TAU;
                radius * if odd { angle.sin() } else { angle.cos() }
            }
        }
    }
}

impl Operator for Noise {
    fn name(&self) -> &str {
        "noise"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [places] = exactly(self.name(), inputs)?;
        if places.dtype != DType::I32 {
            return Err(Error::dtype(self.name(), format!("indices must be i32, found {}", places.dtype)));
        }
        let Some([n]) = places.shape.array() else {
            return Err(Error::shape(self.name(), format!("indices must have one axis, found shape {}", places.shape)));
        };
        self.draws.check(self.name())?;
        if self.draws.step >= 256 || self.length == 0 || self.length > 1 << 25 {
            let message = format!("step must be below 256 and length in 1..=2^25, found {} and {}", self.draws.step, self.length);
            return Err(Error::argument(self.name(), message));
        }
        Ok(vec![Spec::f32([n, self.length])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([places], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let y = Tensor::empty(places.gpu(), &spec.shape, spec.dtype)?;
        let (key, counter) = self.key_and_counter();
        let blocks = self.length.div_ceil(2);
        let n = places.numel() * blocks;
        Launch::new(places.gpu(), &NOISE, "noise")
            .define("NORMAL", self.distribution == Distribution::Normal)
            .read(*places)
            .write(&y)
            .params(params![n, blocks, self.length, self.draws.seed, key, counter])
            .invocations(n)?;
        Ok(vec![y])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [places] = exactly(self.name(), inputs)?;
        Ok(vec![Array::from_fn([places.data.len(), self.length], |at| {
            let [row, element] = at else { return f64::NAN };
            self.number(places.flat(*row) as i32 as u32, *element)
        })])
    }

    fn tolerance(&self) -> Tolerance {
        match self.distribution {
            Distribution::Uniform => Tolerance { absolute: 0.0, relative: 0.0, reason: "integers as multiples of 2^-24 are exact" },
            Distribution::Normal => Tolerance { absolute: 1e-6, relative: 1e-5, reason: "a logarithm, its root, a sine and their product" },
        }
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        // Twenty rounds of three operations and six injections of two make two numbers.
        Cost::streaming(inputs, outputs, 36.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let distribution = match attributes.text_or("distribution", "uniform")? {
        "uniform" => Distribution::Uniform,
        "normal" => Distribution::Normal,
        other => return Err(Error::argument("noise", format!("there is no distribution \"{other}\"; there are uniform, normal"))),
    };
    Ok(Box::new(Noise { length: attributes.size("length")?, distribution, draws: Draws::from_attributes(attributes)? }))
}

pub(super) fn entry() -> Entry {
    let make = |length, distribution, draws| Noise { length, distribution, draws };
    let uniformly = move |length| make(length, Distribution::Uniform, sample_draws());
    Entry {
        name: "noise",
        module: module_path!(),
        inputs: &["indices"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(move || {
            let sizes = [(1, 1), (7, 5), (0, 3), (33, 65), (5, 49), (130, 4), (2, 1025)];
            let each = |distribution| sizes.map(|(n, l)| Sample::new(make(l, distribution, sample_draws()), [indices([n], 60_000)]));
            [each(Distribution::Uniform), each(Distribution::Normal)].into_iter().flatten().collect()
        }),
        bad: Box::new(move || {
            let step = make(3, Distribution::Normal, Draws { step: 256, ..sample_draws() });
            let epoch = make(3, Distribution::Normal, Draws { epoch: (1 << 16).into(), ..sample_draws() });
            vec![
                Bad::new(uniformly(3), [uniform([2], 0.0, 1.0)], "indices must be i32"),
                Bad::new(uniformly(3), [indices([2, 1], 9)], "indices must have one axis, found shape [2, 1]"),
                Bad::new(uniformly(0), [indices([2], 9)], "length in 1..=2^25, found 2 and 0"),
                Bad::new(step, [indices([2], 9)], "step must be below 256"),
                Bad::new(epoch, [indices([2], 9)], "epoch must be below 65536"),
            ]
        }),
    }
}

impl Tensor {
    /// `length` uniform numbers in 0..1 for each of these places in a data set, i32 `[N]`: f32
    /// `[N, length]`. See [`Noise`].
    ///
    /// # Errors
    /// Anything but i32 of one axis; a length of 0; draws beyond their limits, or a step of 256 or
    /// more; out of memory.
    pub fn uniform_noise(&self, length: usize, draws: Draws) -> Result<Tensor> {
        apply_one(Noise { length, distribution: Distribution::Uniform, draws }, &[self])
    }

    /// `length` standard normal numbers for each of these places in a data set, i32 `[N]`: f32
    /// `[N, length]`. See [`Noise`].
    ///
    /// # Errors
    /// As [`Self::uniform_noise`].
    pub fn normal_noise(&self, length: usize, draws: Draws) -> Result<Tensor> {
        apply_one(Noise { length, distribution: Distribution::Normal, draws }, &[self])
    }
}

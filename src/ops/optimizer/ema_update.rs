//! A moving average of a slab of parameters, in place: momentum encoders, mean teachers, averaged
//! weights.

use super::slab::{BLOCK, Scalars, check};
use crate::error::{Error, Result};
use crate::gpu::Launch;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, normal};
use crate::ops::{Array, Cost, Operator, exactly, require_f32};
use crate::params;
use crate::tensor::{Spec, Tensor};

const NAME: &str = "ema_update";
kernels!(KERNEL = "optimizer/ema_update");

/// average = m average + (1 - m) source, both `[n]`, n a multiple of 64; m is the moving average's
/// momentum of [`Scalars`]. Inputs: average (changed in place), source, scalars.
#[derive(Debug, Clone)]
pub struct EmaUpdate;

impl Operator for EmaUpdate {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [average, source, scalars] = exactly(NAME, inputs)?;
        require_f32(NAME, "average", average)?;
        if average.shape.rank() != 1 || !average.shape.numel().is_multiple_of(BLOCK) {
            return Err(Error::shape(NAME, format!("average must be [n] with n a multiple of {BLOCK}, found {}", average.shape)));
        }
        check(NAME, "source", source, &average.shape)?;
        check(NAME, "scalars", scalars, [Scalars::LENGTH])?;
        Ok(vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [average, source, scalars] = *exactly(NAME, inputs)?;
        let n4 = average.numel() / 4;
        Launch::new(average.gpu(), &KERNEL, "ema_update").write(average).read(source).read(scalars).params(params![n4]).invocations(n4)?;
        Ok(vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [average, source, scalars] = exactly(NAME, inputs)?;
        let m = scalars.flat(4);
        let data = average.data.iter().zip(&source.data).map(|(a, s)| m * a + (1.0 - m) * s).collect();
        Ok(vec![Array::new(&average.shape, data)])
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let n = inputs.first().map_or(0, |s| s.shape.numel()) as f64;
        Cost { flops: 3.0 * n, bytes: 12.0 * n }
    }
}

fn scalars(m: f64) -> Input {
    Input::Values(Array::from_fn([Scalars::LENGTH], |index| if index == [4] { m } else { 7.0 }))
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, m: f64| Sample::new(EmaUpdate, [normal([n]), normal([n]), scalars(m)]);
    vec![on(0, 0.5), on(64, 0.5), on(192, 0.0), on(64 * 33, 0.75), on(64 * 65, 1.0)]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(EmaUpdate, [normal([64]), normal([64])], "takes 3 inputs, 2 were given"),
        Bad::new(EmaUpdate, [normal([65]), normal([65]), scalars(0.5)], "n a multiple of 64"),
        Bad::new(EmaUpdate, [normal([64]), normal([128]), scalars(0.5)], "source must have shape [64]"),
        Bad::new(EmaUpdate, [normal([64]), normal([64]), normal([1])], "scalars must have shape [8]"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["average", "source", "scalars"],
        outputs: &[],
        kernels: &[KERNELS],
        build: Box::new(|_| Ok(Box::new(EmaUpdate))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

//! Clipping of each parameter's gradient on its own, on the device, in place.

use super::norms::{self, NORMS};
use super::segment_norms::segment_lanes;
use super::slab::{BLOCK, Scalars, check, check_layout, sample_segments};
use crate::error::{Result, require_positive};
use crate::gpu::{Launch, rounds};
use crate::ops::array::minimum;
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, normal, normal_with};
use crate::ops::{Array, Cost, Edges, Operator, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "clip_each";

/// `gradients` `[n]` times min(1, max_norm / (|s g| + 1e-6)), g those of a segment and s the
/// gradient_scale of `scalars` `[8]`: each parameter by itself, as DINO's authors clip. Segments
/// i32 [n / 64] (ascending) and table [segments, 4] as in the updates; what is not active, or has a
/// norm that is not finite (its step is skipped), stays.
#[derive(Debug, Clone)]
pub struct ClipEach {
    /// No gradient is longer afterwards.
    pub max_norm: f32,
}

impl Operator for ClipEach {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [gradients, segments, table, scalars] = exactly(NAME, inputs)?;
        check_layout(NAME, gradients, segments, table)?;
        check(NAME, "scalars", scalars, [Scalars::LENGTH])?;
        require_positive(NAME, "max_norm", self.max_norm)?;
        Ok(vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [gradients, segments, table, scalars] = *exactly(NAME, inputs)?;
        let (gpu, n, count) = (gradients.gpu(), gradients.numel(), table.shape().dim(0));
        let launch = |entry| Launch::new(gpu, &NORMS, entry).define("ENTRY", entry);
        let (sums, norms) = (Tensor::empty(gpu, [n / BLOCK, 4], DType::F32)?, Tensor::empty(gpu, [count, 4], DType::F32)?);
        let squares = launch("block_squares").read(gradients).read(segments).read(table).write(&sums);
        squares.params(params![n / BLOCK, count]).walk(rounds(BLOCK / 4, 0)).invocations(n / BLOCK)?;
        let (lanes, walk) = segment_lanes(gpu, n / BLOCK);
        let segment = launch("segment").define("LANES", lanes).read(&sums).read(segments).write(&norms);
        segment.params(params![n / BLOCK]).walk(walk).groups(count)?;
        let scale = launch("clip_each").write(gradients).read(segments).read(table).read(scalars).read(&norms);
        scale.params(params![n / 4, count, self.max_norm]).invocations(n / 4)?;
        Ok(vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, input: usize) -> Edges {
        if input >= 2 { Edges::None } else { Edges::All }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [gradients, segments, table, scalars] = exactly(NAME, inputs)?;
        let segment = |i: usize| segments.flat(i / BLOCK) as usize;
        let mut squares = vec![0.0; table.shape.dim(0)];
        for (i, g) in gradients.data.iter().enumerate() {
            squares.iter_mut().skip(segment(i)).take(1).for_each(|s| *s += g * g);
        }
        let factor = |segment: usize| {
            let norm = squares.get(segment).map_or(f64::NAN, |s| s.sqrt() * scalars.flat(5));
            if table.at(&[segment, 2]) == 0.0 || !norm.is_finite() { 1.0 } else { minimum(f64::from(self.max_norm) / (norm + 1e-6), 1.0) }
        };
        let clipped = gradients.data.iter().enumerate().map(|(i, g)| g * factor(segment(i))).collect();
        Ok(vec![Array::new(gradients.shape.clone(), clipped)])
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let n = inputs.first().map_or(0, |s| s.shape.numel()) as f64;
        Cost { flops: 3.0 * n, bytes: 12.0 * n }
    }
}

fn with(blocks: usize, count: usize, scale: f32) -> Vec<Input> {
    let (segments, table) = sample_segments(blocks, count);
    let scalars = Scalars { gradient_scale: scale.into(), ..Scalars::default() }.to_array().map(|s| f64::from(s.get())).to_vec();
    vec![normal([blocks * BLOCK]), Input::Values(segments), Input::Values(table), Input::Values(Array::new([Scalars::LENGTH], scalars))]
}

fn samples() -> Vec<Sample> {
    // Norms are near 8 times the root of a segment's blocks: some are clipped and some are not.
    let on = |blocks, count, scale, max_norm| Sample::new(ClipEach { max_norm }, with(blocks, count, scale));
    let scaled = |scale: f64| {
        let mut inputs = with(65, 7, 0.5);
        inputs.iter_mut().take(1).for_each(|gradients| *gradients = normal_with([65 * BLOCK], scale, 0.0));
        Sample::new(ClipEach { max_norm: 12.0 }, inputs)
    };
    vec![
        scaled(1e19),
        scaled(5e37),
        scaled(1e-30),
        on(0, 1, 1.0, 3.0),
        on(1, 1, 1.0, 3.0),
        on(3, 5, 0.25, 2.0),
        on(33, 5, 1.0, 20.0),
        on(65, 7, 0.5, 12.0),
        on(300, 3, 1.0, 1e6),
    ]
}

fn bad() -> Vec<Bad> {
    let replaced = |index: usize, n: usize| {
        let mut inputs = with(3, 2, 1.0);
        if let Some(slot) = inputs.get_mut(index) {
            *slot = normal([n]);
        }
        inputs
    };
    let clip = |max_norm| ClipEach { max_norm };
    vec![
        Bad::new(clip(1.0), [normal([64])], "takes 4 inputs, 1 were given"),
        Bad::new(clip(1.0), replaced(0, 100), "n a multiple of 64"),
        Bad::new(clip(1.0), replaced(3, 4), "scalars must have shape [8]"),
        Bad::new(clip(0.0), with(3, 2, 1.0), "max_norm must be positive"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["gradients", "segments", "table", "scalars"],
        outputs: &[],
        kernels: &[norms::KERNELS],
        build: Box::new(|a| Ok(Box::new(ClipEach { max_norm: a.number_or("max_norm", 3.0)? as f32 }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

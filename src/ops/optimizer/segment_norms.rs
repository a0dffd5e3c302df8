//! The norms of each parameter and its gradient, which LARS compares.

use super::norms::{self, NORMS, lanes, settled, times};
use super::slab::{BLOCK, CONTROL, check, check_layout, sample};
use crate::error::Result;
use crate::gpu::{Gpu, Launch, rounds};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, normal};
use crate::ops::{Array, Cost, Edges, Operator, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "segment_norms";

/// |w| and |factor g + decay w| (all factors of control applied) of every segment, f32 [segments, 4]: (a, b, c, d) with |w| = a 2^c and the other
/// b 2^d, where c and d are 0 unless the squares leave f32's range; 0 where it is not active.
/// Inputs: values `[n]`, gradients `[n]`, segments i32 [n / 64] (ascending), table [segments, 4],
/// control `[7]`.
#[derive(Debug, Clone)]
pub struct SegmentNorms;

/// Lanes of the kernel that sums segments, and its rounds: two searches for where one begins and
/// ends, the sum, and the joining of lanes. More than the schedule's own where one segment may be
/// too long for them.
pub(super) fn segment_lanes(gpu: &Gpu, blocks: usize) -> (u32, usize) {
    let walk = |lanes: u32| 2 * rounds(32, 0) + rounds(blocks.div_ceil(lanes as usize), 0) + rounds(16, 0);
    let own = lanes(gpu);
    let lanes = if gpu.capabilities().may_walk_exactly(walk(own)) { own } else { 64 };
    (lanes, walk(lanes))
}

impl Operator for SegmentNorms {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [values, gradients, segments, table, control] = exactly(NAME, inputs)?;
        let (n, count) = check_layout(NAME, values, segments, table)?;
        check(NAME, "gradients", gradients, [n])?;
        check(NAME, "control", control, [CONTROL])?;
        Ok(vec![Spec::f32([count, 4])])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [values, gradients, segments, table, control] = *exactly(NAME, inputs)?;
        let (gpu, blocks, count) = (values.gpu(), values.numel() / BLOCK, table.shape().dim(0));
        let sums = Tensor::empty(gpu, [blocks, 4], DType::F32)?;
        Launch::new(gpu, &NORMS, "blocks")
            .define("ENTRY", "blocks")
            .read(values)
            .read(gradients)
            .read(segments)
            .read(table)
            .read(control)
            .write(&sums)
            .params(params![blocks, count])
            .walk(rounds(BLOCK / 4, 0))
            .invocations(blocks)?;
        let norms = Tensor::empty(gpu, [count, 4], DType::F32)?;
        let (lanes, walk) = segment_lanes(gpu, blocks);
        Launch::new(gpu, &NORMS, "segment")
            .define("ENTRY", "segment")
            .define("LANES", lanes)
            .read(&sums)
            .read(segments)
            .write(&norms)
            .params(params![blocks])
            .walk(walk)
            .groups(count)?;
        Ok(vec![norms])
    }

    fn edges(&self, input: usize) -> Edges {
        if input == 3 { Edges::None } else { Edges::All }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [values, gradients, segments, table, control] = exactly(NAME, inputs)?;
        let count = table.shape.dim(0);
        let mut sums = Array::zeros([count, 2]);
        for (i, w) in values.data.iter().enumerate() {
            let segment = segments.flat(i / BLOCK) as usize;
            if table.at(&[segment, 2]) != 0.0 {
                let g = gradients.flat(i) * control.flat(1) * control.flat(4) + control.flat(3) * table.at(&[segment, 1]) * w;
                sums.add_at(&[segment, 0], w * w);
                sums.add_at(&[segment, 1], g * g);
            }
        }
        let norms = Array::from_fn([count, 4], |index| match *index {
            [segment, column] => {
                let [m, e] = settled(sums.at(&[segment, column % 2]));
                if column < 2 { m.sqrt() } else { e }
            }
            _ => f64::NAN,
        });
        Ok(vec![norms])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let n = inputs.first().map_or(0, |s| s.shape.numel()) as f64;
        Cost { flops: 7.0 * n, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn layout(blocks: usize, count: usize) -> Vec<Input> {
    let inputs = sample(blocks, count, true);
    inputs.into_iter().enumerate().filter(|(i, _)| *i != 4).map(|(_, input)| input).collect()
}

fn samples() -> Vec<Sample> {
    // More segments than blocks: some have none.
    let plain = [(0, 1), (1, 1), (3, 2), (3, 5), (33, 5), (65, 7), (300, 3)].map(|(blocks, count)| layout(blocks, count));
    // Beside such gradients decayed weights are nothing, or all there is.
    let scaled = [1e19, 3e37, 1e-25].map(|scale| {
        let mut inputs = layout(65, 7);
        inputs.iter_mut().skip(1).take(1).for_each(|gradients| times(gradients, scale));
        inputs
    });
    plain.into_iter().chain(scaled).map(|inputs| Sample::new(SegmentNorms, inputs)).collect()
}

fn bad() -> Vec<Bad> {
    let with = |index: usize, n: usize| {
        let mut inputs = layout(3, 2);
        if let Some(slot) = inputs.get_mut(index) {
            *slot = normal([n]);
        }
        inputs
    };
    vec![
        Bad::new(SegmentNorms, [normal([64])], "takes 5 inputs, 1 were given"),
        Bad::new(SegmentNorms, with(0, 100), "n a multiple of 64"),
        Bad::new(SegmentNorms, with(1, 128), "gradients must have shape [192]"),
        Bad::new(SegmentNorms, with(4, 1), "control must have shape [7]"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["values", "gradients", "segments", "table", "control"],
        outputs: &["norms"],
        kernels: &[norms::KERNELS],
        build: Box::new(|_| Ok(Box::new(SegmentNorms))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

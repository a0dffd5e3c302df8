//! The first stage of the global gradient norm: partial sums of squares.

use super::norms::{self, NORMS, lanes, settled, times};
use super::slab::{check, check_layout, sample};
use crate::error::Result;
use crate::gpu::{Launch, rounds};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, normal};
use crate::ops::{Array, Cost, Edges, Operator, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "square_sums";

/// Partial sums of the squares of `gradients` `[n]` in active segments (`segments` i32 [n / 64],
/// `table` [segments, 4]), f32 `[parts, 2]`: (m, e) stands for m 4^e, with e = 0 unless the sum is
/// beyond f32's range (80) or below 2^-70 (-96). Parts depends on n alone, and is at least 1.
#[derive(Debug, Clone)]
pub struct SquareSums;

/// vec4s that a workgroup sums, and how many workgroups there are.
fn parts(n: usize) -> (usize, usize) {
    let n4 = n / 4;
    let per = n4.div_ceil(1024).next_multiple_of(64).max(1024);
    (per, n4.div_ceil(per).max(1))
}

impl Operator for SquareSums {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [gradients, segments, table] = exactly(NAME, inputs)?;
        let (n, _) = check_layout(NAME, gradients, segments, table)?;
        check(NAME, "gradients", gradients, [n])?;
        Ok(vec![Spec::f32([parts(n).1, 2])])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [gradients, segments, table] = *exactly(NAME, inputs)?;
        let n = gradients.numel();
        let (per, groups) = parts(n);
        let partials = Tensor::empty(gradients.gpu(), [groups, 2], DType::F32)?;
        Launch::new(gradients.gpu(), &NORMS, "squares")
            .define("ENTRY", "squares")
            .define("LANES", lanes(gradients.gpu()))
            .walk(rounds(per.div_ceil(lanes(gradients.gpu()) as usize), 0) + rounds(16, 0))
            .read(gradients)
            .read(segments)
            .read(table)
            .write(&partials)
            .params(params![n / 4, table.shape().dim(0), per])
            .groups(groups)?;
        Ok(vec![partials])
    }

    fn edges(&self, input: usize) -> Edges {
        if input == 2 { Edges::None } else { Edges::All }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [gradients, segments, table] = exactly(NAME, inputs)?;
        let (per, groups) = parts(gradients.data.len());
        let mut sums = vec![0.0; groups];
        for (i, g) in gradients.data.iter().enumerate() {
            if table.at(&[segments.flat(i / super::BLOCK) as usize, 2]) != 0.0 {
                sums.iter_mut().skip(i / 4 / per).take(1).for_each(|sum| *sum += g * g);
            }
        }
        Ok(vec![Array::new([groups, 2], sums.into_iter().flat_map(settled).collect())])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let n = inputs.first().map_or(0, |s| s.shape.numel()) as f64;
        Cost { flops: 2.0 * n, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn layout(blocks: usize, count: usize) -> Vec<crate::ops::sample::Input> {
    sample(blocks, count, true).into_iter().skip(1).take(3).collect()
}

fn samples() -> Vec<Sample> {
    let plain = [(0, 1), (1, 1), (3, 2), (33, 5), (65, 7), (300, 9)].map(|(blocks, count)| layout(blocks, count));
    let scaled = [1e19, 3e37, 1e-25, 1e-36].map(|scale| {
        let mut inputs = layout(65, 7);
        inputs.iter_mut().take(1).for_each(|gradients| times(gradients, scale));
        inputs
    });
    plain.into_iter().chain(scaled).map(|inputs| Sample::new(SquareSums, inputs)).collect()
}

fn bad() -> Vec<Bad> {
    let with = |n: usize| std::iter::once(normal([n])).chain(layout(3, 2).into_iter().skip(1)).collect::<Vec<_>>();
    vec![
        Bad::new(SquareSums, [normal([64])], "takes 3 inputs, 1 were given"),
        Bad::new(SquareSums, with(100), "n a multiple of 64"),
        Bad::new(SquareSums, with(128), "one for each block of 64"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["gradients", "segments", "table"],
        outputs: &["partials"],
        kernels: &[norms::KERNELS],
        build: Box::new(|_| Ok(Box::new(SquareSums))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

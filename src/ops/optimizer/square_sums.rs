//! The first stage of the global gradient norm: partial sums of squares.

use super::slab::{check, check_layout, lanes, sample};
use crate::error::Result;
use crate::gpu::{Kernel, Launch, kernel};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, normal};
use crate::ops::{Array, Cost, Operator, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "square_sums";
static KERNEL: Kernel = kernel!("optimizer/norms");

/// Partial sums, f32 `[parts]`, of the squares of `gradients` `[n]` in active segments (`segments` i32 [n / 64], `table` [segments, 4]);
/// parts depends on n alone, and is at least 1.
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
        Ok(vec![Spec::f32([parts(n).1])])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [gradients, segments, table] = *exactly(NAME, inputs)?;
        let n = gradients.elements();
        let (per, groups) = parts(n);
        let partials = Tensor::empty(gradients.gpu(), [groups], DType::F32)?;
        Launch::new(gradients.gpu(), &KERNEL, "squares")
            .define("ENTRY", "squares")
            .define("LANES", lanes(gradients.gpu()))
            .read(gradients)
            .read(segments)
            .read(table)
            .write(&partials)
            .params(params![n / 4, table.shape().dim(0), per])
            .groups(groups)?;
        Ok(vec![partials])
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [gradients, segments, table] = exactly(NAME, inputs)?;
        let (per, groups) = parts(gradients.data.len());
        let mut sums = Array::zeros([groups]);
        for (i, g) in gradients.data.iter().enumerate() {
            if table.at(&[segments.flat(i / super::BLOCK) as usize, 2]) != 0.0 {
                sums.add_at(&[i / 4 / per], g * g);
            }
        }
        Ok(vec![sums])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let n = inputs.first().map_or(0, |s| s.shape.elements()) as f64;
        Cost { flops: 2.0 * n, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn layout(blocks: usize, count: usize) -> Vec<crate::ops::sample::Input> {
    sample(blocks, count, true).into_iter().skip(1).take(3).collect()
}

fn samples() -> Vec<Sample> {
    [(0, 1), (1, 1), (3, 2), (33, 5), (65, 7), (300, 9)].map(|(blocks, count)| Sample::new(SquareSums, layout(blocks, count))).into()
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
        family: "optimizer",
        inputs: &["gradients", "segments", "table"],
        outputs: &["partials"],
        shaders: &["optimizer/norms"],
        build: Box::new(|_| Ok(Box::new(SquareSums))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

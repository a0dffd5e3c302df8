//! How many rows have their largest logit at the target: the numerator of accuracy.

use super::mean::{self, mean};
use super::rows::{self, Rows, check_labels, check_logits};
use crate::error::Result;
use crate::ops::array::maximum;
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Cost, Operator, apply_one, exactly};
use crate::tensor::{Spec, Tensor};

/// The operator `correct`: logits, target to count. It has no gradient.
#[derive(Debug, Clone, Copy, Default)]
pub struct Correct;

impl Operator for Correct {
    fn name(&self) -> &str {
        "correct"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [logits, target] = exactly(self.name(), inputs)?;
        check_logits(self.name(), "logits", logits)?;
        check_labels(self.name(), logits, target, None)?;
        Ok(vec![Spec::f32([])])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [logits, target] = exactly(self.name(), inputs)?;
        let hits = Rows { kind: "hard", constant: 0.0, ignore: None }.terms("correct", logits, target, 1)?;
        Ok(vec![mean(&hits, hits.numel(), [0, 1], None, 1)?.0])
    }

    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [logits, target] = exactly(self.name(), inputs)?;
        let first_largest = |row: &[f64]| {
            let high = row.iter().copied().fold(f64::NEG_INFINITY, maximum);
            row.iter().position(|v| *v == high)
        };
        let hits = logits.rows().zip(&target.data).filter(|(row, label)| first_largest(row).is_some_and(|i| i as f64 == **label));
        Ok(vec![Array::new([], vec![hits.count() as f64])])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements = inputs.first().map_or(0, |s| s.shape.numel());
        Cost { flops: elements as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples() -> Vec<Sample> {
    let sizes = [(1, 1), (65, 3), (33, 4), (700, 10), (5, 33), (3, 1000), (0, 4)];
    let mut samples: Vec<Sample> = sizes.iter().map(|(n, c)| Sample::new(Correct, [normal([*n, *c]), indices([*n], *c)])).collect();
    // Ties: the first largest wins.
    samples.push(Sample::new(Correct, [Input::Values(Array::zeros([6, 3])), indices([6], 3)]));
    samples.push(Sample::new(Correct, [normal([2, 5, 4]), indices([2, 5], 4)]));
    samples
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(Correct, [normal([3, 5])], "it takes 2 inputs"),
        Bad::new(Correct, [normal([3, 5]), indices([5], 3)], "without its last axis"),
        Bad::new(Correct, [normal([3, 5]), normal([3])], "target must be i32"),
        Bad::new(Correct, [normal([1, 2]), Input::Values(Array::integers([1], vec![2.0]))], "target holds 2, outside 0..2"),
    ]
}

/// The family's line of the registry for `correct`.
pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "correct",
        module: module_path!(),
        inputs: &["logits", "target"],
        outputs: &["count"],
        kernels: &[rows::KERNELS, mean::KERNELS],
        build: Box::new(|_| Ok(Box::new(Correct))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }]
}

impl Tensor {
    /// The number of rows of logits `[.., C]` whose first largest value is at `target` (i32
    /// `[..]`), as an f32 `[]`; accuracy is that over the number of rows. A row that holds a NaN is
    /// wrong.
    ///
    /// # Errors
    /// Shapes or types that do not fit; a label known to lie outside `0..C` (one computed on the
    /// device makes the count NaN).
    pub fn correct(&self, target: &Tensor) -> Result<Tensor> {
        apply_one(Correct, &[self, target])
    }
}

//! Cross entropy of logits with target probabilities: mixed labels, a teacher's assignments.

use super::mean;
use super::rows::{self, Rows, check_alike, check_logits, log_softmax, saves};
use crate::error::Result;
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with, uniform};
use crate::ops::{Array, Autocast, Backward, Cost, Edges, Operator, Saves, apply_one, exactly};
use crate::tensor::{Spec, Tensor};

const ROWS: Rows = Rows { kind: "soft", constant: 0.0, ignore: None };

/// The operator `soft_cross_entropy`: logits, target to loss. No gradient flows to the target.
#[derive(Debug, Clone, Copy, Default)]
pub struct SoftCrossEntropy;

impl Operator for SoftCrossEntropy {
    fn name(&self) -> &str {
        "soft_cross_entropy"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [logits, target] = exactly(self.name(), inputs)?;
        check_logits(self.name(), "logits", logits)?;
        check_alike(self.name(), ["logits", "target"], logits, target)?;
        Ok(ROWS.outputs(logits))
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [logits, target] = exactly(self.name(), inputs)?;
        ROWS.forward(logits, target)
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        ROWS.backward(step)
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        saves()
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, input: usize) -> Edges {
        if input == 1 { Edges::Nan } else { Edges::All }
    }

    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [logits, target] = exactly(self.name(), inputs)?;
        let row_loss = |(x, q): (&[f64], &[f64])| -> f64 { log_softmax(x, 1.0).iter().zip(q).map(|(l, q)| -l * q).sum() };
        let sum: f64 = logits.rows().zip(target.rows()).map(row_loss).sum();
        Ok(vec![Array::new([], vec![sum / logits.rows().len().max(1) as f64])])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements = inputs.first().map_or(0, |s| s.shape.numel());
        Cost { flops: 6.0 * elements as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples() -> Vec<Sample> {
    let shapes: [&[usize]; 8] = [&[1, 1], &[3, 5], &[7, 33], &[65, 12], &[5, 1000], &[2, 20001], &[2, 3, 7], &[0, 4]];
    // Weights that do not sum to 1 have a gradient, too.
    let weights = |shape: &[usize]| uniform(shape, 0.0, 2.0 / shape.last().copied().unwrap_or(1) as f64);
    shapes.iter().map(|shape| Sample::new(SoftCrossEntropy, [normal_with(*shape, 3.0, 10.0), weights(shape)])).collect()
}

fn bad() -> Vec<Bad> {
    let bad = |inputs: Vec<Input>, expect| Bad::new(SoftCrossEntropy, inputs, expect);
    vec![
        bad(vec![normal([3, 5])], "it takes 2 inputs"),
        bad(vec![normal([3, 5]), normal([3, 4])], "same shape and type, found f32 [3, 5] and f32 [3, 4]"),
        bad(vec![normal([3, 5]), indices([3, 5], 2)], "same shape and type"),
        bad(vec![normal([]), normal([])], "at least one class"),
    ]
}

/// The family's line of the registry for cross entropy with probabilities.
pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "soft_cross_entropy",
        module: module_path!(),
        inputs: &["logits", "target"],
        outputs: &["loss"],
        kernels: &[rows::KERNELS, mean::KERNELS],
        build: Box::new(|_| Ok(Box::new(SoftCrossEntropy))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }]
}

impl Tensor {
    /// The mean over rows of `-sum target * log softmax(logits)`. `self` are logits `[.., C]`,
    /// `target` is like them and gets no gradient; the result is f32 `[]`.
    ///
    /// # Errors
    /// Shapes or types that do not fit; out of memory.
    pub fn soft_cross_entropy(&self, target: &Tensor) -> Result<Tensor> {
        apply_one(SoftCrossEntropy, &[self, target])
    }
}

//! What methods share that learn from images with and without labels.

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Scalar};
use crate::tensor::{DType, Tensor};

/// 1 for rows whose label is hidden, 0 for the others: f32 `[N, 1]`.
pub(super) fn unlabelled_rows(labels: &Tensor) -> Result<Tensor> {
    // HIDDEN is -1, all others are 0 and more.
    labels.cast(DType::F32)?.neg()?.relu()?.reshape(&[labels.numel() as isize, 1])
}

/// Refuses a setting outside 0 to 1.
pub(super) fn share(key: &str, value: f32) -> Result<f32> {
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(Error::argument(key, format!("expected 0 to 1, found {value}"))) }
}

/// The classes `0..classes` as one-hot rows, and `more` rows of zeros after them.
pub(super) fn one_hot(gpu: &Gpu, classes: usize, more: usize) -> Result<Tensor> {
    let rows = classes + more;
    let values: Vec<f32> = (0..rows * classes).map(|at| if at / classes == at % classes { 1.0 } else { 0.0 }).collect();
    Tensor::from_slice(gpu, &values, [rows, classes])
}

/// Targets from a network's own predictions.
pub(super) struct PseudoLabels {
    threshold: Tensor,
    /// `[C + 1, C]`
    rows: Tensor,
}

impl PseudoLabels {
    /// Those of which it is surer than, or as sure as, `threshold`.
    pub(super) fn new(gpu: &Gpu, classes: usize, threshold: f32) -> Result<Self> {
        let threshold = Tensor::from_slice(gpu, &[share("threshold", threshold)?], [1, 1])?;
        Ok(Self { threshold, rows: one_hot(gpu, classes, 1)? })
    }

    /// One-hot rows `[N, C]` of the likeliest classes, without a gradient; rows of zeros where none
    /// is likely enough.
    pub(super) fn of(&self, logits: &Tensor) -> Result<Tensor> {
        let likely = logits.detach().softmax(-1)?;
        // The threshold as one more class: where it wins, the row is of zeros. Of equals the first
        // wins.
        let threshold = self.threshold.expand(&[likely.shape().dim(0), 1])?;
        self.rows.embedding(&Tensor::concat(&[&likely, &threshold], 1)?.argmax(-1)?)
    }
}

/// A weight of a loss that varies over a run.
pub(super) struct ScheduledWeight {
    value: Scalar,
    tensor: Tensor,
}

impl ScheduledWeight {
    pub(super) fn new(gpu: &Gpu, value: Scalar) -> Result<Self> {
        Ok(Self { value, tensor: Tensor::scalar(gpu, 0.0)? })
    }

    /// `loss` times the present value.
    pub(super) fn times(&self, loss: &Tensor) -> Result<Tensor> {
        self.tensor.write_scalars(std::slice::from_ref(&self.value))?;
        loss.mul(&self.tensor)
    }

    /// The present value.
    pub(super) fn value(&self) -> f64 {
        self.value.get().into()
    }
}

//! Maps of many features to two: t-SNE's probabilities and its loss.

pub mod joint_probabilities;
pub mod tsne_loss;

use super::entry::Entry;
use super::require_f32;
use crate::error::{Error, Result};
use crate::tensor::Spec;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    vec![joint_probabilities::entry(), tsne_loss::entry()]
}

/// N of a matrix [N, N] of at least two rows.
fn square(operator: &str, what: &str, matrix: &Spec) -> Result<usize> {
    require_f32(operator, what, matrix)?;
    match matrix.shape.array() {
        Some([rows, columns]) if rows == columns && rows > 1 => Ok(rows),
        _ => Err(Error::shape(operator, format!("{what} {} must be [N, N] of at least 2 points", matrix.shape))),
    }
}

/// The width of the kernels' loads and stores: rows of whole vec4s, or scalars.
fn width(points: usize) -> usize {
    if points.is_multiple_of(4) { 4 } else { 1 }
}

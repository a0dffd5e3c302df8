//! What methods share that make a batch's features independent of each other.

use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Embeddings `[N, D]` in f32, and outside of mixed precision: products of them are statistics of
/// the batch, which stay f32.
pub(super) fn full_precision(z: &Tensor) -> Result<Tensor> {
    Ok(z.cast(DType::F32)?.with_handle(&z.gpu().plain()))
}

/// The sum of the squares of a `matrix` `[D, D]`, but for those on its `diagonal` `[D]`.
pub(super) fn off_diagonal_squares(matrix: &Tensor, diagonal: &Tensor) -> Result<Tensor> {
    matrix.square()?.sum(&[], false)?.sub(&diagonal.square()?.sum(&[], false)?)
}

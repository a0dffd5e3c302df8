//! InfoNCE within a batch (van den Oord et al. 2018, arXiv:1807.03748).

use crate::error::Result;
use crate::tensor::Tensor;

/// The mean over rows of `logsumexp_k(cos(a_i, b_k) / T) - cos(a_i, b_i) / T` of `a` and `b`
/// `[N, D]`: cross entropy with a row's own partner as the class.
pub(super) fn info_nce(a: &Tensor, b: &Tensor, temperature: f32) -> Result<Tensor> {
    let all = a.similarity_matrix(b, temperature)?.logsumexp(&[1], false)?;
    let own = a.cosine_similarity(b, 1e-8)?.mul_scalar(1.0 / temperature)?;
    all.sub(&own)?.mean(&[0], false)
}

//! Alignment and uniformity of features on the sphere (Wang and Isola 2020, arXiv:2005.10242):
//! smaller is better, for both.

use super::features::Features;
use crate::error::{Result, require_finite_rows};
use crate::gpu::Gpu;

/// Sharpness of the kernel of uniformity: the paper's.
const T: f64 = 2.0;

/// The mean of |a/|a| - b/|b||^2 over the rows a of `first` and b of `second` at the same place,
/// from 0 for equal directions to 4 for opposite ones.
///
/// # Errors
/// Features of different shapes; out of memory; features that are not finite.
pub fn alignment(gpu: &Gpu, first: &Features, second: &Features) -> Result<f64> {
    let unit = |features: &Features| features.upload(gpu)?.l2_normalize(-1, 1e-12);
    let apart = unit(first)?.sub(&unit(second)?)?;
    let sum = apart.mul(&apart)?.sum(&[0, 1], false)?.item()?;
    require_finite_rows("alignment of features", &[sum], 1)?;
    Ok(f64::from(sum) / first.len().max(1) as f64)
}

/// The logarithm of the mean of exp(-2 |a/|a| - b/|b||^2) over all pairs of rows: 0 where all point
/// in one direction, and less the more evenly they are spread.
///
/// # Errors
/// Out of memory.
pub fn uniformity(gpu: &Gpu, features: &Features) -> Result<f64> {
    let (mut sum, mut pairs) = (0.0, 0usize);
    features.cosines(gpu, features, |row, cosines| {
        // |a - b|^2 of unit vectors is 2 - 2 cos.
        let kernel = |cosine: &f32| (-T * (2.0 - 2.0 * f64::from(*cosine))).exp();
        sum += cosines.iter().skip(row + 1).map(kernel).sum::<f64>();
        pairs += cosines.len().saturating_sub(row + 1);
    })?;
    Ok((sum / pairs as f64).ln())
}

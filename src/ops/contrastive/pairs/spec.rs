//! Plain loops in float64 that the references of contrastive losses share.

use crate::ops::Array;
use crate::ops::array::maximum;

/// Normalised rows by plain loops, for references.
pub(crate) fn unit_rows(array: &Array) -> Vec<Vec<f64>> {
    let unit = |row: &[f64]| {
        let norm = maximum(row.iter().map(|v| v * v).sum::<f64>().sqrt(), 1e-12);
        row.iter().map(|v| v / norm).collect()
    };
    array.rows().map(unit).collect()
}

/// A scalar product, for references.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// log(sum(exp)), for references; -infinity of nothing.
pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
    let m = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if m == f64::NEG_INFINITY { m } else { m + values.iter().map(|v| (v - m).exp()).sum::<f64>().ln() }
}

/// The array of a reference's single number.
pub(crate) fn scalar(value: f64) -> Vec<Array> {
    vec![Array::new([], vec![value])]
}

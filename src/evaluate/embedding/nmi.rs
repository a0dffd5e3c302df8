//! Normalised mutual information of two partitions.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The mutual information of two labellings by the arithmetic mean of their entropies,
/// scikit-learn's default: 1 where they are the same partition under whatever names, 0 where one
/// says nothing about the other. Two of a single class each are the same.
///
/// # Errors
/// Labellings of different lengths, or of nothing.
pub fn normalized_mutual_information(a: &[i32], b: &[i32]) -> Result<f64> {
    if a.len() != b.len() || a.is_empty() {
        let message = format!("expected two labellings of the same things, found {} and {} labels", a.len(), b.len());
        return Err(Error::argument("normalised mutual information", message));
    }
    let n = a.len() as f64;
    let mut counts = [const { BTreeMap::<(i32, i32), u32>::new() }; 3];
    let [first, second, both] = &mut counts;
    for (&a, &b) in a.iter().zip(b) {
        *first.entry((a, 0)).or_default() += 1;
        *second.entry((b, 0)).or_default() += 1;
        *both.entry((a, b)).or_default() += 1;
    }
    let [a, b, both] = counts.map(|counts| counts.values().map(|count| f64::from(*count) / n).map(|p| -p * p.ln()).sum::<f64>());
    let (mutual, mean) = (a + b - both, (a + b) / 2.0);
    Ok(if mean == 0.0 { 1.0 } else { (mutual / mean).clamp(0.0, 1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_cases() {
        let nmi = |a: &[i32], b: &[i32]| normalized_mutual_information(a, b).unwrap();
        approx::assert_abs_diff_eq!(nmi(&[0, 0, 1, 1, 2], &[5, 5, -1, -1, 0]), 1.0, epsilon = 1e-12);
        assert!(nmi(&[0, 0, 1, 1], &[0, 1, 0, 1]).abs() < 1e-12);
        assert_eq!((nmi(&[3, 3], &[1, 1]), nmi(&[0, 1], &[1, 1])), (1.0, 0.0));
        // One class split in two: I = ln 2 of entropies ln 2 and (3/2) ln 2.
        approx::assert_abs_diff_eq!(nmi(&[0, 0, 1, 1], &[0, 0, 1, 2]), 0.8, epsilon = 1e-12);
        // scikit-learn's value.
        approx::assert_abs_diff_eq!(nmi(&[0, 0, 0, 1, 1, 2], &[0, 1, 0, 1, 1, 0]), 0.439_869_501, epsilon = 1e-8);
        assert!(normalized_mutual_information(&[0], &[]).unwrap_err().to_string().contains("1 and 0 labels"));
    }
}

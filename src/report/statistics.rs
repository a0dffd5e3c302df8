//! What repeated measurements say.

use serde::{Deserialize, Serialize};

/// Repeated measurements of one thing, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TimeSummary {
    /// Half of them took less.
    pub median: f64,
    /// A tenth of them took less.
    pub p10: f64,
    /// A tenth of them took more.
    pub p90: f64,
    /// Median of the distances from the median.
    pub mad: f64,
    /// The least.
    pub minimum: f64,
    /// How many.
    pub count: usize,
}

/// The value that a share `q` of the sorted `values` lies below, interpolated between neighbours;
/// NaN of none.
fn quantile(values: &[f64], q: f64) -> f64 {
    let at = q * values.len().saturating_sub(1) as f64;
    let get = |i: usize| values.get(i).or(values.last()).copied().unwrap_or(f64::NAN);
    let (low, high) = (get(at as usize), get(at as usize + 1));
    low + (high - low) * at.fract()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

impl TimeSummary {
    /// Of measurements in seconds.
    pub fn of_seconds(seconds: &[f64]) -> Self {
        let values = sorted(seconds.iter().map(|s| s * 1e3));
        let median = quantile(&values, 0.5);
        let distances = sorted(values.iter().map(|v| (v - median).abs()));
        TimeSummary {
            median,
            p10: quantile(&values, 0.1),
            p90: quantile(&values, 0.9),
            mad: quantile(&distances, 0.5),
            minimum: quantile(&values, 0.0),
            count: values.len(),
        }
    }

    /// The standard error of the median, as if the values were normal: 1.4826 MAD is then their
    /// standard deviation.
    pub fn error_of_median(&self) -> f64 {
        1.2533 * 1.4826 * self.mad / (self.count.max(1) as f64).sqrt()
    }

    /// Whether more measurements would hardly move the median: by less than `share` of it.
    pub fn is_stable(&self, share: f64) -> bool {
        self.count >= 5 && 2.0 * self.error_of_median() <= share * self.median
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)]
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_definition() {
        let sample = TimeSummary::of_seconds(&[0.005, 0.001, 0.002, 0.004, 0.003]);
        assert_eq!((sample.median, sample.minimum, sample.count), (3.0, 1.0, 5));
        assert!((sample.p10 - 1.4).abs() < 1e-9 && (sample.p90 - 4.6).abs() < 1e-9, "{sample:?}");
        approx::assert_abs_diff_eq!(sample.mad, 1.0, epsilon = 1e-9);
        approx::assert_abs_diff_eq!(TimeSummary::of_seconds(&[0.001, 0.002]).median, 1.5, epsilon = 1e-9);
    }

    #[test]
    fn stable_needs_agreement_and_number() {
        assert!(!TimeSummary::of_seconds(&[0.001; 4]).is_stable(0.01));
        assert!(TimeSummary::of_seconds(&[0.001; 5]).is_stable(0.01));
        assert!(!TimeSummary::of_seconds(&[0.001, 0.002, 0.003, 0.004, 0.005]).is_stable(0.01));
    }
}

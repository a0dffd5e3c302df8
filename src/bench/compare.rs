//! Two runs: what became faster, what slower, and what no one can say.

use std::fmt;

use super::run::{Row, Run};
use crate::report::TimeSummary;

/// Less than this share of the time is no difference that anyone should act on.
pub const LEAST_EFFECT: f64 = 0.03;

/// What can be said of two measurements of the same workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Certainly faster, and by more than [`LEAST_EFFECT`].
    Faster,
    /// Certainly slower, and by more than that.
    Slower,
    /// Certainly within that of each other.
    Same,
    /// The measurements spread too widely.
    Unsure,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Faster => "FASTER",
            Verdict::Slower => "SLOWER",
            Verdict::Same => "SAME",
            Verdict::Unsure => "UNSURE",
        })
    }
}

/// A comparison of one workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// `suite/name (schedule)`.
    pub name: String,
    /// Earlier median, milliseconds.
    pub before_ms: f64,
    /// Present median, milliseconds.
    pub after_ms: f64,
    /// Half of a 95 % interval of `after / before`.
    pub uncertainty: f64,
    /// What follows.
    pub verdict: Verdict,
}

/// More measurements in one process than this do not make its median surer: they share the
/// machine's mood.
const INDEPENDENT: usize = 10;

/// The standard error of the logarithm of a median that is to be compared with another process's.
/// Times are positive and their noise multiplies them: on a logarithmic scale a few samples with
/// one outlier say still that a thousand times is slower.
fn error(sample: &TimeSummary) -> f64 {
    // Standard deviations of a normal distribution with this MAD, and with this range from p10 to
    // p90.
    let deviation = (1.4826 * sample.mad / sample.median).max((sample.p90 / sample.p10).ln() / 2.563);
    1.2533 * deviation / (sample.count.clamp(1, INDEPENDENT) as f64).sqrt()
}

/// What two samples of the same workload say, and half of a 95 % interval of their ratio.
pub fn verdict(before: &TimeSummary, after: &TimeSummary) -> (Verdict, f64) {
    let ratio = after.median / before.median;
    let spread = 2.0 * error(before).hypot(error(after));
    let (low, high) = (ratio * (-spread).exp(), ratio * spread.exp());
    let (slower, faster) = (1.0 + LEAST_EFFECT, 1.0 / (1.0 + LEAST_EFFECT));
    let verdict = if low > slower {
        Verdict::Slower
    } else if high < faster {
        Verdict::Faster
    } else if low >= faster && high <= slower {
        Verdict::Same
    } else {
        Verdict::Unsure
    };
    (verdict, (high - low) / 2.0)
}

/// Every workload that both runs measured by the same clock, in the order of `after`.
pub fn compare(before: &Run, after: &Run) -> Vec<Comparison> {
    let same = |a: &Row, b: &Row| (&a.suite, &a.name, &a.schedule, &a.shape) == (&b.suite, &b.name, &b.schedule, &b.shape);
    let pairs = after.rows.iter().filter_map(|row| Some((before.rows.iter().find(|old| same(old, row))?, row)));
    pairs
        .map(|(old, new)| {
            let (a, b) = match (&old.device_ms, &new.device_ms) {
                (Some(a), Some(b)) => (a, b),
                _ => (&old.wall_ms, &new.wall_ms),
            };
            let (verdict, uncertainty) = verdict(a, b);
            let name = format!("{}/{} ({})", new.suite, new.name, new.schedule);
            Comparison { name, before_ms: a.median, after_ms: b.median, uncertainty, verdict }
        })
        .collect()
}

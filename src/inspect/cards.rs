//! Named cards by public figures, and what a step looks like on them on paper: which launches
//! cannot fill a card, and the least time that its peaks allow. An estimate, never a measurement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::gpu::PlannedLaunch;

/// A card by its vendor's public figures: peak rates that no program reaches.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Card {
    /// Its name.
    pub card: String,
    /// Units that each run workgroups of their own: compute units (AMD), multiprocessors (NVIDIA),
    /// cores (Apple), Xe cores or dual subslices (Intel).
    pub units: usize,
    /// Peak of f32, GFLOP/s.
    pub f32_gflops: f64,
    /// Peak of memory, GB/s.
    pub gbs: f64,
    /// From one dispatch to the next that depends on it, microseconds: a guess of the usual.
    pub dispatch_microseconds: f64,
}

/// The cards that are known, as in `cards.csv`.
///
/// # Errors
/// A damaged table; never, of one that is tested.
pub fn cards() -> Result<Vec<Card>> {
    let mut reader = csv::Reader::from_reader(include_bytes!("cards.csv").as_slice());
    reader.deserialize().collect::<std::result::Result<_, _>>().map_err(|e| Error::data("cards.csv", e.to_string()))
}

/// Launches of one pipeline on one grid, in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dispatch {
    /// The kernel and its entry point, `family/file:entry`.
    pub kernel: String,
    /// Constants of the variant.
    pub variant: String,
    /// How often it is launched.
    pub launches: usize,
    /// Workgroups of one launch.
    pub workgroups: usize,
    /// Invocations of one launch.
    pub invocations: usize,
    /// Floating-point operations of one launch, where it says them.
    pub flops: f64,
    /// Bytes of all bindings of one launch.
    pub bytes: f64,
}

/// The launches of a step, those alike together, the most work first.
pub fn dispatches(launches: &[PlannedLaunch]) -> Vec<Dispatch> {
    let mut alike: BTreeMap<(String, String, usize, u64, u64), Dispatch> = BTreeMap::new();
    for launch in launches {
        let (label, variant, groups) = (launch.label(), launch.kernel.variant.clone(), launch.workgroups);
        let size: u32 = launch.workgroup_size().iter().product();
        let entry = alike.entry((label.clone(), variant.clone(), groups, launch.flops.to_bits(), launch.bytes)).or_insert(Dispatch {
            kernel: label,
            variant,
            launches: 0,
            workgroups: groups,
            invocations: groups * size as usize,
            flops: launch.flops,
            bytes: launch.bytes as f64,
        });
        entry.launches += 1;
    }
    let mut list: Vec<Dispatch> = alike.into_values().collect();
    let work = |d: &Dispatch| (d.launches as f64 * d.flops, d.launches as f64 * d.bytes);
    list.sort_by(|a, b| work(b).0.total_cmp(&work(a).0).then(work(b).1.total_cmp(&work(a).1)));
    list
}

/// What a step is on a card, on paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Seconds of the step: of each launch the longer of its operations and its bytes at the card's
    /// peaks, on the share of units that its workgroups fill, and the way to the next launch.
    pub seconds: f64,
    /// Share of the operations in launches with fewer workgroups than the card has units.
    pub unfilled_flops: f64,
    /// Share of the time in those launches.
    pub unfilled_seconds: f64,
}

impl Card {
    /// Seconds of one launch.
    pub fn seconds(&self, dispatch: &Dispatch) -> f64 {
        let share = (dispatch.workgroups as f64 / self.units as f64).min(1.0);
        let work = (dispatch.flops / (self.f32_gflops * 1e9 * share)).max(dispatch.bytes / (self.gbs * 1e9));
        work + self.dispatch_microseconds * 1e-6
    }

    /// Whether a launch has a workgroup for each unit.
    pub fn is_filled_by(&self, dispatch: &Dispatch) -> bool {
        dispatch.workgroups >= self.units
    }

    /// The step on this card.
    pub fn estimate(&self, dispatches: &[Dispatch]) -> Estimate {
        let sum = |value: &dyn Fn(&Dispatch) -> f64, all: bool| -> f64 {
            let counted = dispatches.iter().filter(|d| all || !self.is_filled_by(d));
            counted.map(|d| d.launches as f64 * value(d)).sum()
        };
        let share = |value: &dyn Fn(&Dispatch) -> f64| sum(value, false) / sum(value, true).max(f64::MIN_POSITIVE);
        Estimate {
            seconds: sum(&|d| self.seconds(d), true),
            unfilled_flops: share(&|d| d.flops),
            unfilled_seconds: share(&|d| self.seconds(d)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dispatch(workgroups: usize, flops: f64, bytes: f64) -> Dispatch {
        Dispatch { kernel: "a:b".into(), variant: String::new(), launches: 2, workgroups, invocations: 0, flops, bytes }
    }

    #[test]
    fn a_step_is_the_sum_of_its_launches() {
        let card = Card { card: "a card".into(), units: 100, f32_gflops: 1000.0, gbs: 100.0, dispatch_microseconds: 10.0 };
        // 1 ms by operations, 2 ms by bytes, and 4 ms on a quarter of the units.
        let list = [dispatch(100, 1e9, 0.0), dispatch(500, 0.0, 2e8), dispatch(25, 1e9, 0.0)];
        let found = card.estimate(&list);
        approx::assert_relative_eq!(found.seconds, 2.0 * (7e-3 + 3.0 * 1e-5), max_relative = 1e-12);
        approx::assert_relative_eq!(found.unfilled_flops, 0.5);
        approx::assert_relative_eq!(found.unfilled_seconds, 4.01 / 7.03, max_relative = 1e-12);
        assert_eq!(card.estimate(&[]), Estimate { seconds: 0.0, unfilled_flops: 0.0, unfilled_seconds: 0.0 });
    }

    #[test]
    fn the_table_of_cards_is_sound() {
        let list = cards().unwrap();
        assert!(list.len() > 5);
        assert!(list.iter().all(|c| c.units > 0 && c.f32_gflops > 100.0 && c.gbs > 10.0 && c.dispatch_microseconds > 0.0));
    }
}

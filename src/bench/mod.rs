//! The kernel benchmark: how fast, how far from what this adapter can do, by which schedule, and is it still right?
//!
//! A [`workload::Workload`] is measured by [`measure::measure`] into a [`run::Row`]; the [`probes`] say what the adapter can do at best.

pub mod clock;
pub mod compare;
mod environment;
pub mod formats;
pub mod measure;
pub mod peers;
pub mod probes;
pub mod run;
pub mod sampled;
pub mod statistics;
pub mod workload;

use workload::Workload;

/// What can be measured by name.
pub const SUITES: [&str; 2] = ["peers", "probes"];

/// The workloads of a suite, in order; the probes are none.
pub fn workloads(suite: &str) -> Vec<Workload> {
    match suite {
        "peers" => peers::workloads(),
        _ => Vec::new(),
    }
}

//! The kernel benchmark: how fast, how far from what this adapter can do, by which schedule, and is
//! it still right?
//!
//! A [`workload::Workload`] is measured by [`measure::measure`] into a [`run::Row`]; the [`probes`]
//! say what the adapter can do at best.

pub mod arguments;
pub mod clock;
pub mod compare;
pub mod exchange;
pub mod formats;
mod gpu_scale;
mod half;
pub mod ladder;
mod layers;
pub mod measure;
mod operators;
pub mod peers;
pub mod probes;
pub mod report;
mod roofline;
pub mod run;
mod sampled;
pub mod sweep;
pub mod tune;
pub mod user;
pub mod workload;

use crate::gpu::Capabilities;
use workload::Workload;

/// What can be measured by name: the other libraries' workloads, every operator, the layers of
/// networks, the kernel ladder, what fits a large GPU, products of f16, and what the adapter can do at
/// best.
pub const SUITES: [&str; 7] = ["peers", "registry", "layers", "ladder", "gpu", "half", "probes"];

/// The workloads of a suite for an adapter, in order; the probes are none.
pub fn workloads(suite: &str, capabilities: &Capabilities) -> Vec<Workload> {
    match suite {
        "peers" => peers::workloads(),
        "registry" => operators::workloads(),
        "layers" => layers::workloads(capabilities),
        "ladder" => ladder::workloads(capabilities),
        "gpu" => gpu_scale::workloads(),
        "half" => half::workloads(capabilities),
        _ => Vec::new(),
    }
}

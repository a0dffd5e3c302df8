//! What an adapter can do at best, and what limits a kernel.

use serde::{Deserialize, Serialize};

/// What the adapter does at best, by probes of our own (`shaders/bench`), which do nothing else.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Peaks {
    /// Multiply-adds in registers, GFLOP/s.
    pub fma_gflops: Option<f64>,
    /// Multiply-adds whose operands come from a tile in the nearest memory, GFLOP/s: the roof of a
    /// matrix product.
    pub loads_gflops: Option<f64>,
    /// Copying far more than the caches hold: bytes read and bytes written, GB/s.
    pub copy_gbs: Option<f64>,
    /// Copying what the caches hold, GB/s.
    pub cached_copy_gbs: Option<f64>,
    /// Why there is no figure for cooperative matrices.
    pub matrix_absent: Option<String>,
    /// One more dispatch in a submission, microseconds.
    pub dispatch_microseconds: Option<f64>,
    /// Submitting one empty dispatch and waiting for it, microseconds.
    pub submit_microseconds: Option<f64>,
    /// The smallest step between two time stamps that was seen, nanoseconds: no interval is known
    /// better than this.
    pub tick_nanoseconds: Option<f64>,
}

/// What a workload waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Arithmetic: its operations take longer at the peak than its bytes.
    Compute,
    /// Memory: its bytes take longer at the peak than its operations.
    Memory,
    /// Launching: dispatches and submission take longer than both.
    Launch,
    /// No cost is known, or no peak was measured.
    #[default]
    Unknown,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
            Bound::Launch => "launch",
            Bound::Unknown => "-",
        })
    }
}

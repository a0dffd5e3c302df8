//! What a benchmark leaves behind: rows of measurements, the peaks that they are held against, and
//! where both come from. The table, JSON, CSV, HTML and comparisons are all made from this.

use serde::{Deserialize, Serialize};

use crate::report::{Bound, Environment, Peaks, TimeSummary, schedule_name};

/// One call of the benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Where it was measured.
    pub environment: Environment,
    /// What this adapter can do, measured in the same process.
    pub peaks: Peaks,
    /// The measurements, in order.
    pub rows: Vec<Row>,
}

/// What a result was compared with before it was timed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Gate {
    /// Whether it was right; `None` where nothing was compared.
    pub passed: Option<bool>,
    /// The largest error: as a fraction of what is allowed, or relative, as `against` says.
    pub max_error: Option<f64>,
    /// What it was compared with, on what, and by which measure.
    pub against: String,
}

/// One workload on one schedule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    /// `peers`, `registry`, `layers`, `ladder`, `gpu`, `probes`, `sweep` or `file`.
    pub suite: String,
    /// Unique in its suite and schedule.
    pub name: String,
    /// What it belongs to: an operator, a network, a family of kernels.
    pub group: String,
    /// Shapes and options, for people.
    pub shape: String,
    /// The schedule of heavy kernels.
    #[serde(deserialize_with = "schedule_name")]
    pub schedule: String,
    /// The kernels that were launched, with the constants of their variants (tiles among them).
    pub tile: String,
    /// Storage type.
    pub dtype: String,
    /// Whether it is right.
    pub gate: Gate,
    /// By time stamps of the device; `None` where there are none or they make no sense.
    pub device_ms: Option<TimeSummary>,
    /// From the call until one element of each result is on the host.
    pub wall_ms: TimeSummary,
    /// Processor time of this process, on software drivers.
    pub cpu_ms: Option<TimeSummary>,
    /// As the time that the figures are taken from, with caches that hold other data.
    pub cold_ms: Option<TimeSummary>,
    /// Building what this row needed first: pipelines, or what the first run took longer, since
    /// drivers compile at either time.
    pub compile_ms: f64,
    /// The first call, with all that happens once.
    pub first_ms: f64,
    /// Dispatches of one iteration.
    pub dispatches: usize,
    /// Floating-point operations at least.
    pub flops: Option<f64>,
    /// Bytes read and written at least.
    pub bytes: Option<f64>,
    /// GFLOP/s, from the device's time where there is one, else from the wall's.
    pub gflops: Option<f64>,
    /// GB/s, from the same time.
    pub gbs: Option<f64>,
    /// Operations a byte.
    pub intensity: Option<f64>,
    /// Of what the measured peaks allow at this intensity, by the same time.
    pub percent_of_peak: Option<f64>,
    /// Of the multiply-adds whose operands come from a tile in the nearest memory, per cent.
    pub percent_of_loads: Option<f64>,
    /// What limits it.
    pub bound: Bound,
    /// An element of the result, as the other libraries' programs print it.
    pub check: Option<f64>,
    /// What is held for the tensors of one iteration, bytes; inputs, parameters and state apart.
    pub memory_bytes: Option<u64>,
    /// The least that any allocator could hold for them, bytes.
    pub memory_bound_bytes: Option<u64>,
    /// Of a step of the ladder: how many times as fast it is as the step before it.
    pub gain: Option<f64>,
    /// The best of a sweep.
    pub winner: bool,
    /// What a reader must know.
    pub note: String,
}

impl Row {
    /// The time that figures are taken from, and its name: the device's where there is one.
    pub fn time(&self) -> (&TimeSummary, &'static str) {
        self.device_ms.as_ref().map_or((&self.wall_ms, "wall"), |device| (device, "device"))
    }

    /// Whether the result was compared and found wrong.
    pub fn is_wrong(&self) -> bool {
        self.gate.passed == Some(false)
    }
}

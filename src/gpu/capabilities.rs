//! What an adapter can do, gathered once in one value that every kernel choice reads.

use std::fmt;
use std::str::FromStr;

use super::Matrix;
use crate::error::{Error, Result};

/// Which of a heavy kernel's versions is launched (the design behind each is in `docs/kernels.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// For software drivers: no barriers and no workgroup memory; a register tile a lane.
    Software,
    /// For GPUs: register tiles fed from workgroup memory.
    Gpu,
    /// As [`Self::Gpu`], but products with an operand that is stored as f16 are made of the
    /// adapter's cooperative matrices.
    Matrix,
}

impl Schedule {
    /// Both schedules that every adapter runs, for tests and sweeps; [`Self::Matrix`] needs an
    /// adapter with [`Capabilities::matrix`].
    pub const ALL: [Schedule; 2] = [Schedule::Software, Schedule::Gpu];

    /// Neighbouring invocations that own a row together where a kernel walks rows: GPUs want
    /// neighbours to read neighbouring elements, software drivers want no barriers.
    pub(crate) fn row_lanes(self) -> usize {
        match self {
            Schedule::Software => 1,
            Schedule::Gpu | Schedule::Matrix => 16,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Schedule::Software => "software",
            Schedule::Gpu => "gpu",
            Schedule::Matrix => "matrix",
        })
    }
}

impl FromStr for Schedule {
    type Err = Error;

    /// Reads `software`, `gpu` and `matrix`, and older names of the first two, `cpu` and
    /// `simd`, which saved benchmarks and runs hold.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "software" | "cpu" => Ok(Schedule::Software),
            "gpu" | "simd" => Ok(Schedule::Gpu),
            "matrix" => Ok(Schedule::Matrix),
            other => Err(Error::argument("schedule", format!("expected \"software\", \"gpu\" or \"matrix\", found \"{other}\""))),
        }
    }
}

/// What kind of hardware an adapter is, in the order in which adapters are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU seen through a virtual machine.
    Virtual,
    /// Unknown to the driver.
    Other,
    /// A software driver such as llvmpipe.
    Software,
}

/// Who made the hardware, as far as kernels care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// AMD.
    Amd,
    /// Apple.
    Apple,
    /// Intel.
    Intel,
    /// NVIDIA.
    Nvidia,
    /// Everyone else, software drivers among them.
    Other,
}

/// The adapter and the device made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// The adapter's name as its driver gives it.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// What kind of hardware it is.
    pub kind: AdapterKind,
    /// Who made it.
    pub vendor: Vendor,
    /// Kernel parameters travel as immediates (push constants) rather than through a uniform
    /// buffer.
    pub immediates: bool,
    /// Subgroup operations may be used.
    pub subgroups: bool,
    /// Lanes of a subgroup, smallest and largest that the driver may choose. 0 without
    /// [`Self::subgroups`].
    pub subgroup_size: (u32, u32),
    /// 16-bit floats may be stored.
    pub f16: bool,
    /// The cooperative matrices of f16 with f32 sums that products may be made of.
    pub matrix: Option<Matrix>,
    /// Time stamps around passes may be taken.
    pub timestamps: bool,
    /// Largest range of one storage binding, bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer, bytes.
    pub max_buffer_bytes: u64,
    /// Storage buffers that one kernel may bind.
    pub max_storage_buffers: u32,
    /// Workgroup memory, bytes.
    pub max_workgroup_bytes: u32,
    /// Invocations of one workgroup.
    pub max_invocations: u32,
    /// Workgroups along one axis of a grid.
    pub max_grid: u32,
    /// The schedule that heavy kernels use, [`Schedule::Software`] or [`Schedule::Gpu`]; products
    /// of f16 may be left to [`Self::matrix`] above that.
    pub schedule: Schedule,
    /// Only WebGPU's default limits were asked for (`WGRAD_LIMITS=webgpu`).
    pub webgpu_limits: bool,
}

/// llvmpipe leaves the loops of an invocation after 65,535 rounds in all, without a word (Mesa's
/// `LP_MAX_TGSI_LOOP_ITERATIONS`).
pub(super) const SOFTWARE_ROUNDS: usize = 65_535;

/// What a choice between kernels allows, which leaves room for the rounds in which loops are left.
const ROUGH_ROUNDS: usize = 60_000;

impl Capabilities {
    /// Whether one invocation may run about `rounds` rounds of loops. Where it may not, kernels
    /// share the walk among lanes or dispatches.
    pub fn may_walk(&self, rounds: usize) -> bool {
        self.kind != AdapterKind::Software || rounds <= ROUGH_ROUNDS
    }

    /// Whether one invocation may run exactly `rounds` rounds, counted as by
    /// [`rounds`](super::rounds).
    pub fn may_walk_exactly(&self, rounds: usize) -> bool {
        self.kind != AdapterKind::Software || rounds < SOFTWARE_ROUNDS
    }

    /// Rounds that one invocation should not exceed where a walk can be shared in parts.
    pub fn longest_walk(&self) -> usize {
        if self.kind == AdapterKind::Software { ROUGH_ROUNDS } else { usize::MAX }
    }

    /// Refuses a walk of exactly `rounds` rounds, counted as by [`rounds`](super::rounds), that a
    /// driver would cut short.
    ///
    /// # Errors
    /// [`Error::Limit`] naming operator, rounds, adapter and remedy.
    pub fn check_walk(&self, operator: &str, rounds: usize) -> Result<()> {
        if self.may_walk_exactly(rounds) {
            return Ok(());
        }
        let most = SOFTWARE_ROUNDS - 1;
        let message =
            format!("{rounds} rounds of loops in one invocation exceed the {most} of a software driver; use smaller axes or a GPU");
        Err(Error::Limit { operator: operator.into(), message, adapter: self.name.clone() })
    }

    /// Whether an invocation may hold 8 x 8 sums of a blocked product, and its operands: on GPUs
    /// whose compilers keep such a tile in registers. Those of Intel, Apple and Qualcomm spill it.
    pub(crate) fn large_tiles(&self) -> bool {
        matches!(self.vendor, Vendor::Amd | Vendor::Nvidia)
    }

    /// Values of k that a blocked product reads before it multiplies them: two where a compiler has
    /// registers for them. Intel's spill by it.
    pub(crate) fn read_ahead(&self) -> u32 {
        if self.large_tiles() { 2 } else { 1 }
    }

    /// Lanes of a subgroup where the `software` schedule may rely on exactly one width: software
    /// drivers do not vary it.
    pub fn fixed_subgroup(&self) -> Option<u32> {
        let (min, max) = self.subgroup_size;
        (self.subgroups && min == max && min >= 4).then_some(min)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |b: bool| if b { "yes" } else { "no" };
        writeln!(f, "adapter          {} ({:?}, {})", self.name, self.kind, self.backend)?;
        writeln!(f, "vendor           {:?}", self.vendor)?;
        writeln!(f, "driver           {}", self.driver)?;
        writeln!(f, "schedule         {}", self.schedule)?;
        writeln!(f, "immediates       {}", yes(self.immediates))?;
        writeln!(f, "subgroups        {} ({} to {} lanes)", yes(self.subgroups), self.subgroup_size.0, self.subgroup_size.1)?;
        writeln!(f, "f16 storage      {}", yes(self.f16))?;
        writeln!(f, "matrices         {}", self.matrix.map_or("no".into(), |matrix| format!("{matrix} of f16, summed in f32")))?;
        writeln!(f, "time stamps      {}", yes(self.timestamps))?;
        writeln!(f, "largest buffer   {} MiB", self.max_buffer_bytes >> 20)?;
        writeln!(f, "largest binding  {} MiB", self.max_binding_bytes >> 20)?;
        writeln!(f, "storage buffers  {} a kernel", self.max_storage_buffers)?;
        writeln!(f, "workgroup        {} B, {} invocations", self.max_workgroup_bytes, self.max_invocations)?;
        write!(f, "limits           {}", if self.webgpu_limits { "WebGPU's defaults" } else { "the adapter's" })
    }
}

//! Cooperative matrices: what an adapter's matrix units multiply, and when a product is left to
//! them.
//!
//! WGSL's `coop_mat` of naga 30 knows squares of 8 and 16 alone, so of what an adapter lists
//! (VK_KHR_cooperative_matrix: 16x16x16 on AMD, that and 16x8x16 on NVIDIA; 8x8x8 on Metal and
//! lavapipe) the others cannot be asked for.

use std::fmt;

use super::{AdapterKind, Capabilities, Gpu, Knob, Schedule};
use crate::error::{Error, Result};

/// Rows, columns and length of the products that one subgroup multiplies at a time: A of M x K, B
/// of K x N, both f16, summed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    /// Rows of A and C.
    pub m: u32,
    /// Columns of B and C.
    pub n: u32,
    /// Columns of A, rows of B.
    pub k: u32,
}

impl Matrix {
    /// The largest of an adapter's that can be written, with f16 operands and f32 sums.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Option<Self> {
        use wgpu::CooperativeScalarType::{F16, F32};
        let listed = adapter.cooperative_matrix_properties();
        let fits = |p: &&wgpu::CooperativeMatrixProperties| p.ab_type == F16 && p.cr_type == F32 && !p.saturating_accumulation;
        let shapes = listed.iter().filter(fits).map(|p| Self { m: p.m_size, n: p.n_size, k: p.k_size });
        shapes.filter(|s| s.m == s.n && s.n == s.k && [8, 16].contains(&s.m)).max_by_key(|s| s.m)
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}

impl Capabilities {
    /// Refuses [`Schedule::Matrix`] of an adapter that has none.
    pub(super) fn check_schedule(&self, asked: Option<Schedule>) -> Result<()> {
        if asked != Some(Schedule::Matrix) || self.matrix.is_some() {
            return Ok(());
        }
        let why = if self.webgpu_limits { "WebGPU's default limits leave it none" } else { "its driver lists none that WGSL can name" };
        let message = format!("it needs cooperative matrices of f16 with f32 sums, and {why}; leave WGRAD_SCHEDULE out");
        Err(Error::Limit { operator: "schedule matrix".into(), message, adapter: format!("{}, {}", self.name, self.driver) })
    }
}

impl Gpu {
    /// The matrices that a product is left to: where the adapter has any and an operand is stored
    /// as f16 (`half`), so f32 keeps its bits. [`GpuOptions::schedule`](super::GpuOptions) forces
    /// or forbids them; else the tuning table's entry of `knob` decides; else GPUs take them, and
    /// software drivers, which only imitate them, do not.
    pub fn matrix(&self, knob: &Knob, bucket: u32, half: bool) -> Option<Matrix> {
        let capabilities = self.capabilities();
        let matrix = capabilities.matrix.filter(|_| half)?;
        let taken = match self.options().schedule {
            Some(schedule) => schedule == Schedule::Matrix,
            None => self.tuned(knob, bucket, u32::from(capabilities.kind != AdapterKind::Software)) == 1,
        };
        taken.then_some(matrix)
    }
}

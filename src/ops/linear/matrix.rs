//! How a product of cooperative matrices is shared by the subgroups of a workgroup; what its
//! kernels have in common is in `shaders/include/matrix.wgsl`.

use std::collections::BTreeMap;

use minijinja::Value;

use crate::gpu::{Capabilities, Gpu, Knob, Matrix};
use crate::tensor::{DType, Tensor};

/// k that go through workgroup memory at a time.
pub(crate) const STEP: usize = 32;
/// Halves from one line of a tile to the next: eight more than a step, so that eight lines begin in
/// different banks.
const STRIDE: usize = STEP + 8;

/// A workgroup's tile, and who works on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tile {
    matrix: Matrix,
    /// Rows and columns.
    pub side: usize,
    /// Workers below and beside each other: one subgroup each.
    down: usize,
    across: usize,
    invocations: usize,
}

impl Tile {
    /// A tile of `side` by `side`, 64 or 128; of 64 where the adapter has no room for 128.
    pub(crate) fn new(capabilities: &Capabilities, matrix: Matrix, side: usize) -> Self {
        let of = |side: usize| {
            let (down, across) = if side == 128 { (4, 2) } else { (2, 2) };
            // Enough for the narrowest subgroups, at most a block of 4 x 4 each; 32 bring four lines.
            let most = (side * STEP / 16).min(capabilities.max_invocations as usize);
            let wanted = down * across * capabilities.subgroup_size.0 as usize;
            let invocations = wanted.next_power_of_two().clamp(32, most.max(32));
            Self { matrix, side, down, across, invocations }
        };
        let tile = of(side);
        if tile.bytes() > capabilities.max_workgroup_bytes as usize { of(64) } else { tile }
    }

    /// Workgroup memory: two tiles of A and of B in f16, and a matrix of f32 for each worker.
    fn bytes(&self) -> usize {
        2 * 2 * 2 * self.side * STRIDE + 4 * self.down * self.across * (self.matrix.m * self.matrix.n) as usize
    }

    /// Blocks of 4 x 4 that an invocation brings of each operand in a step.
    pub(crate) fn blocks(&self) -> usize {
        self.side * STEP / 16 / self.invocations
    }

    /// Rounds of loops of an invocation that goes along `k`, where subgroups have the narrowest
    /// width.
    pub(crate) fn rounds(&self, capabilities: &Capabilities, k: usize) -> usize {
        use crate::gpu::rounds;
        let workers = self.down * self.across;
        let subgroups = (self.invocations / capabilities.subgroup_size.1.max(1) as usize).max(1);
        let matrices = self.side * self.side / (workers * (self.matrix.m * self.matrix.n) as usize);
        let lanes = capabilities.subgroup_size.0.max(1) as usize;
        let stores = matrices * rounds(((self.matrix.m * self.matrix.n) as usize / 4).div_ceil(lanes), 0);
        rounds(workers.div_ceil(subgroups), rounds(k.div_ceil(STEP), 0) + stores)
    }

    /// The constant `SHAPE` of the kernels.
    pub(crate) fn shape(&self) -> Value {
        let Matrix { m, n, k } = self.matrix;
        let sizes = [
            ("side", self.side),
            ("down", self.down),
            ("across", self.across),
            ("invocations", self.invocations),
            ("step", STEP),
            ("stride", STRIDE),
            ("m", m as usize),
            ("n", n as usize),
            ("k", k as usize),
        ];
        Value::from(BTreeMap::from(sizes))
    }
}

/// The matrices that a product of these operands is left to, if any ([`Gpu::matrix`]).
pub(crate) fn matrix(gpu: &Gpu, knob: &Knob, bucket: u32, operands: [&Tensor; 2]) -> Option<Matrix> {
    gpu.matrix(knob, bucket, operands.iter().any(|operand| operand.dtype() == DType::F16))
}

#[cfg(test)]
mod tests;

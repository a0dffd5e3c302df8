//! How a product of cooperative matrices is shared by the subgroups of a workgroup; what its
//! kernels have in common is in `shaders/include/matrix.wgsl`.

use std::collections::BTreeMap;

use minijinja::Value;

use crate::gpu::{AdapterKind, Capabilities, Gpu, Knob, Matrix, rounds};
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
    /// A tile of `side` by `side`, 64 or 128; of 64 where the adapter has no room for 128. Half of
    /// that on software drivers, whose compilers write every product of matrices out.
    pub(crate) fn new(capabilities: &Capabilities, matrix: Matrix, side: usize) -> Self {
        let of = |side: usize| {
            let side = if capabilities.kind == AdapterKind::Software { side / 2 } else { side };
            // Each brings a block of 4 x 4 of A and of B. Narrower subgroups are more, and idle.
            let invocations = side * STEP / 16;
            let workers = (invocations / capabilities.subgroup_size.1.max(1) as usize).max(1);
            let half = 1 << (workers.ilog2() / 2);
            let (down, across) = ((workers / half).min(side / matrix.m as usize), half.min(side / matrix.n as usize));
            Self { matrix, side, down, across, invocations }
        };
        let tile = of(side);
        if tile.bytes() > capabilities.max_workgroup_bytes as usize { of(64) } else { tile }
    }

    /// Workgroup memory: two tiles of A and of B in f16, and a matrix of f32 for each worker.
    fn bytes(&self) -> usize {
        2 * 2 * 2 * self.side * STRIDE + 4 * self.down * self.across * (self.matrix.m * self.matrix.n) as usize
    }

    /// Rounds of loops of an invocation that goes along `k`.
    pub(crate) fn rounds(&self, capabilities: &Capabilities, k: usize) -> usize {
        let elements = (self.matrix.m * self.matrix.n) as usize;
        let matrices = self.side * self.side / (self.down * self.across * elements);
        let lanes = capabilities.subgroup_size.0.max(1) as usize;
        rounds(k.div_ceil(STEP), 0) + matrices * rounds((elements / 4).div_ceil(lanes), 0)
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

//! How batch norm cuts its matrix into pieces, on software drivers and on GPUs.

use crate::gpu::{Gpu, Kernel, Launch, Schedule};
use crate::tensor::Shape;

/// How the matrix `[rows, columns]` of vec4s (or single channels) is cut into pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    kernel: &'static Kernel,
    schedule: Schedule,
    /// Rows of the matrix.
    pub rows: usize,
    /// Channels of a column: 4, or 1 where C is no multiple of 4.
    width: usize,
    /// Columns of the matrix.
    pub columns: usize,
    /// vec4s that a thread of the walk owns.
    blocks: usize,
}

/// Rows of a slab at most: one invocation walks them.
const LONGEST_SLAB: usize = 16_384;

/// Most slabs of a reduction.
const SLABS: usize = 256;
/// Lanes of a workgroup on software drivers: a subgroup.
const CPU_LANES: usize = 8;
/// Lanes of a workgroup of a walk on GPUs.
pub(super) const WALK_LANES: usize = 64;
/// Lanes of a workgroup of a reduction on GPUs.
const TREE_LANES: usize = 256;

impl Plan {
    /// The plan for x of this shape.
    pub fn new(gpu: &Gpu, kernel: &'static Kernel, x: &Shape) -> Self {
        let channels = x.last();
        let width = if channels.is_multiple_of(4) { 4 } else { 1 };
        let columns = channels / width;
        let schedule = gpu.capabilities().schedule;
        // As many as lose the fewest lanes at the end of a row, the more the better.
        let blocks = match schedule {
            Schedule::Cpu if columns >= 16 => (2..=4).rev().min_by_key(|b| columns.next_multiple_of(8 * b)).unwrap_or(1),
            _ => 1,
        };
        Self { kernel, schedule, rows: x.elements() / channels.max(1), width, columns, blocks }
    }

    /// Threads that share a row in the walk.
    fn threads(&self) -> usize {
        if self.blocks == 1 { self.columns } else { CPU_LANES }
    }

    /// Columns of a workgroup whose lanes end in a tree.
    fn tree_columns(&self) -> usize {
        self.columns.next_power_of_two().min(16)
    }

    /// Rows of a slab, and how many slabs there are: of shapes and schedule alone, so that results repeat.
    pub fn slabs(&self) -> (usize, usize) {
        let least = if self.schedule == Schedule::Simd { 4 * TREE_LANES / self.tree_columns() } else { 16 };
        let rows = self.rows.div_ceil(SLABS).min(LONGEST_SLAB).max(least);
        (rows, self.rows.div_ceil(rows))
    }

    /// A variant of the kernel, whose entry point is called after its step.
    pub fn launch<'a>(&self, gpu: &'a Gpu, step: &'a str, blocks: usize, tree: bool, lanes: usize) -> Launch<'a> {
        Launch::new(gpu, self.kernel, step)
            .define("STEP", step)
            .define("WIDTH", self.width)
            .define("BLOCKS", blocks)
            .define("TREE", tree)
            .define("LANES", lanes)
    }

    /// A reduction over rows (`per_row`) or over slabs: its launch, threads that share a row, and workgroups for `slabs` slabs.
    pub fn reduction<'a>(&self, gpu: &'a Gpu, step: &'a str, per_row: bool, slabs: usize) -> (Launch<'a>, usize, usize) {
        if self.schedule == Schedule::Simd {
            let threads = self.tree_columns();
            return (self.launch(gpu, step, 1, true, TREE_LANES), threads, slabs * self.columns.div_ceil(threads));
        }
        let (blocks, threads) = if per_row { (self.blocks, self.threads()) } else { (1, self.columns) };
        (self.launch(gpu, step, blocks, false, CPU_LANES), threads, (slabs * threads).div_ceil(CPU_LANES))
    }

    /// A walk over all elements: its launch, its parameters, and its workgroups.
    pub fn walk<'a>(&self, gpu: &'a Gpu, step: &'a str) -> (Launch<'a>, [usize; 7], usize) {
        let threads = self.threads();
        let (slabs, start, stride, extent, lanes) = match self.schedule {
            Schedule::Simd => {
                let slabs = self.rows.div_ceil(8);
                (slabs, 1, slabs, self.rows, WALK_LANES)
            }
            Schedule::Cpu => {
                // A slab is read in pieces of its rows, so it should stay in the cache (256 KiB).
                let rows = self.slabs().0.min((65536 / self.channels().max(1)).max(16));
                (self.rows.div_ceil(rows), rows, 1, rows, CPU_LANES)
            }
        };
        let params = [self.rows, self.columns, threads, slabs, start, stride, extent];
        (self.launch(gpu, step, self.blocks, false, lanes), params, (slabs * threads).div_ceil(lanes))
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.columns * self.width
    }
}

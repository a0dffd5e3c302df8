//! Sums over the pixels of all images, as the gradients to weights are: slabs of pixels are summed
//! apart, then added in order.

use crate::error::Result;
use crate::gpu::{Gpu, Launch, rounds};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Shape, Tensor};

kernels!(REDUCE = "convolution/reduce");

/// Partial sums hold at most this many floats (64 MiB).
const PARTIALS: usize = 16 << 20;

/// How the pixels are split for partial sums: by shapes and capabilities only.
pub(super) struct Slabs {
    pub count: usize,
    pub pixels: usize,
}

impl Slabs {
    /// About `wanted` slabs of at least `least` pixels, whose partial sums of `floats` each stay
    /// within [`PARTIALS`] and a binding.
    pub fn new(gpu: &Gpu, pixels: usize, wanted: usize, least: usize, floats: usize) -> Self {
        let partials = PARTIALS.min((gpu.capabilities().max_binding_bytes / 4) as usize);
        let most = (pixels / least).min(partials / floats.max(1)).max(1);
        let each = pixels.div_ceil(wanted.clamp(1, most)).max(1);
        Self { count: pixels.div_ceil(each).max(1), pixels: each }
    }

    /// The same, or more, where the walk over one would be too long: each of its pixels costs
    /// `cost` rounds, `step` of them together.
    pub fn short(self, gpu: &Gpu, pixels: usize, cost: usize, step: usize) -> Self {
        if gpu.capabilities().may_walk_exactly(rounds(self.pixels.div_ceil(step), cost - 1)) {
            return self;
        }
        let each = (gpu.capabilities().longest_walk() / cost * step).max(1);
        Self { count: pixels.div_ceil(each).max(1), pixels: each }
    }
}

/// Adds slabs of partial sums [slabs, groups * rows, columns rounded up to 4] into a tensor of
/// `shape`.
pub(super) fn reduce(
    partial: &Tensor,
    shape: Shape,
    slabs: usize,
    rows: usize,
    columns: usize,
    [row_stride, column_stride]: [usize; 2],
) -> Result<Tensor> {
    let result = Tensor::empty(partial.gpu(), shape, DType::F32)?;
    let n4 = partial.numel() / 4 / slabs.max(1);
    Launch::new(partial.gpu(), &REDUCE, "reduce")
        .read(partial)
        .write(&result)
        .params(params![n4, slabs, rows, columns, row_stride, column_stride])
        .walk(rounds(slabs, 0))
        .invocations(n4)?;
    Ok(result)
}

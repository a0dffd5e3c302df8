//! Partial statistics of a matrix `[rows, C]` that whoever makes it may bring along for batch norm:
//! `[slabs, 2, C]`, of each slab of [`SLAB_ROWS`] rows (the last may have fewer) the mean less the
//! slab's first row, and M2, the sum of squared deviations from the mean.
//!
//! On GPUs convolutions write them behind their sums (`shaders/include/tile_statistics.wgsl`), so
//! batch norm does not read x for them.

use super::plan::{Plan, Walk};
use crate::error::Result;
use crate::gpu::{Knob, Schedule, rounds};
use crate::ops::Array;
use crate::params;
use crate::tensor::{DType, Shape, Tensor};

/// Rows of a slab: those of the least tile of `convolution/conv2d_gpu` and `linear/gemm_gpu`, so
/// that the shape is the same everywhere.
const SLAB_ROWS: usize = 64;
/// Whether a convolution brings them along; by the vec4s of x.
const EPILOGUE: Knob = Knob { name: "normalization/batch_norm.epilogue", choices: &[0, 1] };

/// Rounds of the loops that write them behind a tile of `side` x `side` sums
/// (`shaders/include/tile_statistics.wgsl`).
pub(crate) fn tile_rounds(side: usize) -> usize {
    side.div_ceil(64).pow(2) * rounds(15, 0)
}

/// Their shape, for x of the shape `x`.
pub(crate) fn shape(x: &Shape) -> Shape {
    Shape::from([(x.numel() / x.last().max(1)).div_ceil(SLAB_ROWS), 2, x.last()])
}

/// Whether batch norm of x, which a convolution makes of `source`, gains by them: where the
/// convolution has them at hand, all at once, and x would be read again.
pub(crate) fn wanted(source: &Tensor, x: &Shape) -> bool {
    let (gpu, plan) = (source.gpu(), Plan::new(source.gpu(), x));
    let default = plan.schedule() == Schedule::Gpu && !plan.small();
    let [slabs, ..] = plan.in_slabs(SLAB_ROWS).partials();
    let whole = source.is_bindable() && !plan.in_pieces();
    whole && gpu.tuned(&EPILOGUE, plan.bucket(), u32::from(default)) == 1 && gpu.capabilities().may_walk(slabs)
}

/// The same of no more slabs than batch norm would cut x into, and the plan of what combines them.
pub(super) fn merged(plan: &Plan, x: &Tensor, partials: &Tensor) -> Result<(Tensor, Plan)> {
    let many = plan.in_slabs(SLAB_ROWS);
    let few = plan.in_slabs(SLAB_ROWS * many.merged());
    if many.merged() == 1 {
        return Ok((partials.clone(), few));
    }
    let merged = Tensor::empty(x.gpu(), few.partials(), DType::F32)?;
    let (launch, mut params, groups) = many.launch(x.gpu(), "merge", Walk::Merge);
    params.extend_from_slice(params![SLAB_ROWS, 0.0f32, 0.0f32]);
    launch.storage(x.dtype().storage()).read(partials).read(x).write(&merged).params(&params).groups(groups)?;
    Ok((merged, few))
}

/// Writes them in a pass over x, where the kernel that made x does not.
pub(crate) fn measure(x: &Tensor, partials: &Tensor) -> Result<()> {
    let plan = Plan::new(x.gpu(), x.shape()).in_slabs(SLAB_ROWS);
    let (launch, mut params, groups) = plan.launch(x.gpu(), "statistics", Walk::Slabs);
    params.extend_from_slice(params![SLAB_ROWS, 0.0f32, 0.0f32]);
    launch.storage(x.dtype().storage()).read(x).write(partials).params(&params).groups(groups)
}

/// Their specification.
pub(crate) fn reference(x: &Array) -> Array {
    let (c, rows) = (x.shape.last(), x.shape.numel() / x.shape.last().max(1));
    Array::from_fn(shape(&x.shape), |at| {
        let [slab, what, channel] = *at else { return f64::NAN };
        let (first, end) = (slab * SLAB_ROWS, rows.min((slab + 1) * SLAB_ROWS));
        let n = (end - first) as f64;
        let values = || (first..end).map(|row| x.flat(row * c + channel));
        let mean = values().sum::<f64>() / n;
        if what == 0 { mean - x.flat(first * c + channel) } else { values().map(|v| (v - mean) * (v - mean)).sum() }
    })
}

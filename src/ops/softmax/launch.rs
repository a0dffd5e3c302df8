//! How softmax is run: a thread or a workgroup owns a row.

use super::Softmax;
use crate::error::Result;
use crate::gpu::{Knob, Launch, Schedule, rounds};
use crate::ops::Operator;
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::Tensor;

kernels!(SOFTWARE = "softmax/softmax_software", GPU = "softmax/softmax_gpu");

/// Lanes of the workgroup that owns a row on GPUs.
const LANES: usize = 128;
/// The longest row that such a workgroup keeps in registers.
const IN_REGISTERS: usize = 1024;
/// Rows up to this length are a thread's on GPUs, too.
const SHORT: usize = 32;

/// Forward: `tensors` is x, the result y. Backward: y and dy, the result dx.
pub(super) fn softmax(softmax: &Softmax, backward: bool, tensors: &[&Tensor], result: &Tensor) -> Result<()> {
    if result.numel() == 0 {
        return Ok(());
    }
    let shape = result.shape();
    let axis = shape.axis(softmax.name(), softmax.dim)?;
    let n = shape.dim(axis);
    let inner = shape.iter().skip(axis + 1).product::<usize>();
    let rows = result.numel() / n;
    let rate = softmax.temperature.map(|t| 1.0 / t);
    let capabilities = result.gpu().capabilities();
    // Two walks over a row; one too long for an invocation is shared by a workgroup on every
    // schedule.
    let schedule = result.gpu().schedule("softmax/softmax.schedule", Knob::bucket(n));
    let shared = if schedule == Schedule::Gpu { n > SHORT } else { !capabilities.may_walk(2 * n) };
    let shared_rows = inner == 1 && shared;
    capabilities.check_walk(softmax.name(), if shared_rows { 3 * n.div_ceil(LANES) } else { 2 * n })?;
    let mut launch = Launch::new(result.gpu(), if shared_rows { &GPU } else { &SOFTWARE }, if backward { "backward" } else { "forward" })
        .storage(result.dtype().storage())
        .define("BACKWARD", backward)
        .define("LOG", softmax.log);
    for tensor in tensors {
        launch = launch.read(*tensor);
    }
    let launch = launch.write(result);
    if shared_rows {
        let width = if n.is_multiple_of(4) { 4 } else { 1 };
        let items = if n <= IN_REGISTERS { IN_REGISTERS / LANES / width } else { 0 };
        let walk = if items == 0 { 3 * rounds((n / width).div_ceil(LANES), 0) } else { 0 };
        return launch.define("WIDE", width == 4).define("ITEMS", items).params(params![n / width, rate]).walk(walk).groups(rows);
    }
    let (vec, rows, n, inner) = match (inner, n) {
        (1, n) if n.is_multiple_of(4) => ("rows", rows, n / 4, 1),
        (inner, n) if inner.is_multiple_of(4) => ("columns", rows / 4, n, inner / 4),
        (inner, n) => ("none", rows, n, inner),
    };
    let walk = rounds(n / 4, 0) + rounds(n.min(3), 0) + rounds(n, 0);
    launch.define("VEC", vec).params(params![rows, n, inner, rate]).walk(walk).invocations(rows)
}

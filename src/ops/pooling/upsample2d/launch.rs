//! How images are resampled: an element of what is written is a thread's.

use super::super::window::vec;
use super::ratio::Ratio;
use super::{Upsample2d, UpsampleMode};
use crate::error::Result;
use crate::gpu::{Launch, rounds};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(UPSAMPLE = "pooling/upsample2d");

/// x resampled, like `y`.
pub(super) fn forward(upsample: &Upsample2d, x: &Tensor, y: &Spec) -> Result<Tensor> {
    let y = Tensor::empty(x.gpu(), &y.shape, y.dtype)?;
    let ([_, h, w, _], ratios) = upsample.ratios(x.spec())?;
    launch(upsample, "forward", x, &y, [h, w], ratios)?;
    Ok(y)
}

/// The gradient of an x of the spec `of`.
pub(super) fn gradient(upsample: &Upsample2d, dy: &Tensor, of: &Spec) -> Result<Tensor> {
    let dx = Tensor::empty(dy.gpu(), &of.shape, of.dtype)?;
    let ([n, h, w, c], [rows, columns]) = upsample.ratios(of)?;
    if dy.gpu().capabilities().may_walk_exactly(reach(upsample, [h, w], [rows, columns])) {
        launch(upsample, "backward", dy, &dx, [h, w], [rows, columns])?;
    } else {
        // The weights of a pixel are those of its row times those of its column, so the axes can be
        // summed one after the other.
        let narrow = Tensor::empty(dy.gpu(), [n, rows.size, w, c], of.dtype)?;
        launch(upsample, "backward", dy, &narrow, [rows.size, w], [Ratio::same(rows.size), columns])?;
        launch(upsample, "backward", &narrow, &dx, [h, w], [rows, Ratio::same(w)])?;
    }
    Ok(dx)
}

/// Rounds of the gradient of a pixel.
fn reach(upsample: &Upsample2d, [h, w]: [usize; 2], [rows, columns]: [Ratio; 2]) -> usize {
    let reach = if upsample.mode == UpsampleMode::Bicubic { 2 } else { 1 };
    rounds(rows.readers(h, reach), rounds(columns.readers(w, reach), 0))
}

/// For an x of `sides` that become `ratios`.
fn launch(upsample: &Upsample2d, entry: &str, from: &Tensor, to: &Tensor, [h, w]: [usize; 2], [rows, columns]: [Ratio; 2]) -> Result<()> {
    let c = to.shape().last();
    let v = vec(c);
    let n = to.numel() / v;
    let between = upsample.mode != UpsampleMode::Nearest;
    Launch::new(from.gpu(), &UPSAMPLE, entry)
        .storage(to.dtype().storage())
        .define("VEC", v)
        .define("CUBIC", upsample.mode == UpsampleMode::Bicubic)
        .read(from)
        .write(to)
        .params(params![
            n,
            h,
            w,
            rows.size,
            columns.size,
            c / v,
            rows.num,
            rows.den,
            columns.num,
            columns.den,
            between,
            upsample.align_corners
        ])
        .walk(if entry == "forward" { 0 } else { reach(upsample, [h, w], [rows, columns]) })
        .invocations(n)
}

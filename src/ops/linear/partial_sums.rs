//! Sums over the middle axis of `[outer, slices, inner]`: slices of a split product, bias gradients, broadcast axes.

use crate::error::Result;
use crate::gpu::{Kernel, Launch, kernel};
use crate::params;
use crate::tensor::{DType, Tensor};

static PARTIAL_SUMS: Kernel = kernel!("linear/partial_sums");

/// `y[o, i] = alpha * sum_s x[o, s, i] (+ bias[i mod columns])`, added in order.
pub(crate) struct PartialSums<'a> {
    outer: usize,
    slices: usize,
    inner: usize,
    /// Rows of x in all: the last of the outer ones may have fewer than `slices`.
    rows: usize,
    alpha: f32,
    bias: Option<&'a Tensor>,
    columns: usize,
}

impl<'a> PartialSums<'a> {
    /// x is `[outer, slices, inner]`, y `[outer, inner]`.
    pub(crate) fn new(outer: usize, slices: usize, inner: usize) -> Self {
        Self { outer, slices, inner, rows: outer * slices, alpha: 1.0, bias: None, columns: 1 }
    }

    /// The factor of the sum.
    pub(crate) fn alpha(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    /// Adds `bias` of `columns` elements to every row of as many.
    pub(crate) fn bias(self, bias: Option<&'a Tensor>, columns: usize) -> Self {
        Self { bias, columns, ..self }
    }

    /// Writes the sums of `x` to `y`.
    ///
    /// # Errors
    /// Those of launching.
    pub(crate) fn run(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        let fours = self.inner.is_multiple_of(4) && (self.bias.is_none() || self.columns.is_multiple_of(4));
        let width = if fours { 4 } else { 1 };
        let count = self.outer * self.inner / width;
        let mut launch = Launch::new(x.gpu(), &PARTIAL_SUMS, "sum")
            .storage(y.dtype().storage())
            .define("XT", if x.dtype() == DType::F16 { "f16" } else { "f32" })
            .define("V", width)
            .define("BIAS", self.bias.is_some())
            .read(x)
            .write(y);
        if let Some(bias) = self.bias {
            launch = launch.read(bias);
        }
        launch.params(params![count, self.rows, self.slices, self.inner / width, self.columns, self.alpha]).invocations(count)
    }
}

/// The sums of the columns of `x`, seen as `[rows, columns]`; the result is f32. Many rows are added in two steps.
///
/// # Errors
/// Out of memory; those of launching.
pub(crate) fn column_sums(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let y = Tensor::empty(x.gpu(), [columns], DType::F32)?;
    let slices = rows.div_ceil(256).max(32);
    let outer = rows.div_ceil(slices);
    if outer <= 1 {
        PartialSums::new(1, rows, columns).run(x, &y)?;
    } else {
        let partial = Tensor::empty(x.gpu(), [outer, columns], DType::F32)?;
        PartialSums { rows, ..PartialSums::new(outer, slices, columns) }.run(x, &partial)?;
        PartialSums::new(1, outer, columns).run(&partial, &y)?;
    }
    Ok(y)
}

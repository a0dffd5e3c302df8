//! What losses of rows of logits share: how rows are spread over lanes, and their rules.

use super::mean::mean;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Launch, Schedule, rounds};
use crate::ops::array::maximum;
use crate::ops::entry::kernels;
use crate::ops::{Backward, Saves};
use crate::tensor::{DType, Shape, Spec, Tensor};

kernels!(ROWS = "loss/rows");

/// A loss of rows as its kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rows {
    /// `hard`, `soft` or `distill`, see the shader.
    pub kind: &'static str,
    /// Label smoothing or temperature.
    pub constant: f32,
    /// A label whose rows do not count.
    pub ignore: Option<i32>,
}

/// Inputs and outputs that [`Rows::backward`] asks for.
pub(super) fn saves() -> Saves {
    Saves { inputs: vec![0, 1], outputs: vec![1, 2] }
}

/// The number of rows of a matrix `[.., columns]`.
fn count(x: &Shape) -> usize {
    x.numel() / x.last().max(1)
}

impl Rows {
    fn launch<'a>(&self, gpu: &'a Gpu, step: &'a str, x: &Tensor, other: &Tensor) -> (Launch<'a>, usize, [crate::gpu::Param; 6]) {
        let width = if x.shape().last().is_multiple_of(4) { 4 } else { 1 };
        let (n, columns) = (count(x.shape()), x.shape().last() / width);
        // Three walks over a row at most.
        let tree = gpu.capabilities().schedule == Schedule::Gpu || !gpu.capabilities().may_walk(3 * columns);
        // A row a thread on software drivers; on GPUs at least 8 lanes a row, and 4 loads a lane
        // where a row is long enough.
        let (lanes, per_row) = if tree { (256, columns.div_ceil(4).next_power_of_two().clamp(8, 256)) } else { (8, 1) };
        let launch = Launch::new(gpu, &ROWS, step)
            .storage(x.dtype().storage())
            .define("KIND", self.kind)
            .define("STEP", step)
            .define("WIDTH", width)
            .define("TREE", tree)
            .define("LANES", lanes)
            .walk(3 * rounds(columns.div_ceil(per_row), 0) + if tree { 6 * rounds(8, 0) } else { 0 })
            .read(x)
            .read(other);
        let ignore = self.ignore.unwrap_or(0);
        let params = [n.into(), columns.into(), per_row.into(), self.constant.into(), ignore.into(), self.ignore.is_some().into()];
        (launch, n.div_ceil(lanes / per_row), params)
    }

    /// The loss of each row and `numbers - 1` more numbers a row, `[numbers, rows]`.
    pub fn terms(&self, step: &str, x: &Tensor, other: &Tensor, numbers: usize) -> Result<Tensor> {
        let rows = Tensor::empty(x.gpu(), [numbers, count(x.shape())], DType::F32)?;
        let (launch, groups, params) = self.launch(x.gpu(), step, x, other);
        launch.write(&rows).params(&params).groups(groups)?;
        Ok(rows)
    }

    /// The mean loss, the numbers of each row, and the weight of one row in the mean.
    pub fn forward(&self, x: &Tensor, other: &Tensor) -> Result<Vec<Tensor>> {
        let n = count(x.shape());
        let rows = self.terms("loss", x, other, if self.kind == "distill" { 5 } else { 4 })?;
        let (loss, inverse) = mean(&rows, n, [0, 1], (self.kind == "hard").then_some(n), n)?;
        Ok(vec![loss, rows, inverse])
    }

    /// The gradient of the logits.
    pub fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, other) = (step.input(0)?, step.input(1)?);
        let (rows, inverse, cotangent) = (step.output(1)?, step.output(2)?, step.cotangent(0)?);
        let dx = Tensor::empty(x.gpu(), x.shape(), x.dtype())?;
        let (launch, groups, params) = self.launch(step.gpu(), "gradient", x, other);
        launch.read(rows).read(inverse).read(&cotangent).write(&dx).params(&params).groups(groups)?;
        Ok(vec![Some(dx), None])
    }

    /// What [`Self::forward`] returns.
    pub fn outputs(&self, x: &Spec) -> Vec<Spec> {
        let numbers = if self.kind == "distill" { 5 } else { 4 };
        vec![Spec::f32([]), Spec::f32([numbers, count(&x.shape)]), Spec::f32([1])]
    }
}

/// Logits are floats `[.., C]` with at least one class.
pub(super) fn check_logits(operator: &str, what: &str, x: &Spec) -> Result<()> {
    if x.dtype.is_float() && x.shape.rank() > 0 && x.shape.last() > 0 {
        return Ok(());
    }
    Err(Error::shape(operator, format!("{what} must be floats [.., C] of at least one class, found {x}")))
}

/// Labels are i32 `[..]` for logits `[.., C]`, in `0..C`.
pub(super) fn check_labels(operator: &str, x: &Spec, target: &Spec, ignore: Option<i32>) -> Result<()> {
    let rows = x.shape.split_last().map_or(&[][..], |(_, rows)| rows);
    if target.shape.get(..) != Some(rows) {
        return Err(Error::shape(
            operator,
            format!("target must have the shape of logits without its last axis, {:?}, found {}", rows, target.shape),
        ));
    }
    target.check_indices(operator, "target", x.shape.last(), ignore)
}

/// Both are floats of the same shape and type.
pub(super) fn check_alike(operator: &str, names: [&str; 2], a: &Spec, b: &Spec) -> Result<()> {
    let [first, second] = names;
    if a.dtype.is_float() && a.shape == b.shape && a.dtype == b.dtype {
        return Ok(());
    }
    let message = format!("{first} and {second} must be floats of the same shape and type, found {a} and {b}");
    Err(if a.shape == b.shape { Error::dtype(operator, message) } else { Error::shape(operator, message) })
}

/// `x / temperature - log sum exp(x / temperature)` of a row in float64.
pub(super) fn log_softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let high = row.iter().copied().fold(f64::NEG_INFINITY, maximum);
    let sum: f64 = row.iter().map(|v| ((v - high) / temperature).exp()).sum();
    row.iter().map(|v| (v - high) / temperature - sum.ln()).collect()
}

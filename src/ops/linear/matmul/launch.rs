//! How matrix products are run: [`Gemm`] over the axes of the batch, and sums over those along
//! which an operand is shared.

use super::super::gemm::Gemm;
use super::{Axis, Form, Problem};
use crate::error::Result;
use crate::ops::reduction::sum_to;
use crate::tensor::{Shape, Spec, Tensor};

/// Elements between the matrices of one operand along each batch axis.
fn steps(axes: &[Axis; 3], varies: impl Fn(&Axis) -> bool, matrix: usize) -> [usize; 3] {
    let mut step = matrix;
    let mut steps = [0; 3];
    for (s, axis) in steps.iter_mut().zip(axes).rev() {
        if varies(axis) {
            *s = step;
            step *= axis.size;
        }
    }
    steps
}

/// From the gradient of a broadcast operand to its own: the sum over the batch axes along which it
/// does not vary.
fn reduce(full: &Tensor, axes: &[Axis; 3], varies: impl Fn(&Axis) -> bool, matrix: usize, shape: &Shape) -> Result<Tensor> {
    let [a, b, c] = axes.map(|axis| axis.size);
    let [x, y, z] = axes.map(|axis| if varies(&axis) { axis.size } else { 1 });
    sum_to(&full.view([a, b, c, matrix])?, &Shape::from([x, y, z, matrix]))?.view(shape)
}

impl Problem {
    fn sizes(&self) -> [usize; 3] {
        self.axes.map(|axis| axis.size)
    }

    fn batches(&self) -> usize {
        self.sizes().iter().product()
    }

    /// Elements between the matrices of a, b and the result.
    fn a_steps(&self) -> [usize; 3] {
        steps(&self.axes, |axis| axis.a, self.m * self.k)
    }

    fn b_steps(&self) -> [usize; 3] {
        steps(&self.axes, |axis| axis.b, self.k * self.n)
    }

    fn y_steps(&self) -> [usize; 3] {
        steps(&self.axes, |_| true, self.m * self.n)
    }
}

/// The product, like `y`.
pub(super) fn forward(form: Form, p: &Problem, a: &Tensor, b: &Tensor, y: &Spec) -> Result<Tensor> {
    let y = Tensor::empty(a.gpu(), y.shape.clone(), y.dtype)?;
    let gemm = match form {
        Form::Nn => Gemm::nn(p.m, p.n, p.k),
        Form::Nt => Gemm::nt(p.m, p.n, p.k),
        Form::Tn => Gemm::tn(p.m, p.n, p.k),
    };
    gemm.batched3(p.sizes(), p.a_steps(), p.b_steps()).run(a, b, None, &y)?;
    Ok(y)
}

/// The gradient of a.
pub(super) fn left_gradient(form: Form, p: &Problem, a: &Tensor, b: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (m, n, k) = (p.m, p.n, p.k);
    let full = Tensor::empty(a.gpu(), [p.batches(), m * k], a.dtype())?;
    match form {
        Form::Nn => Gemm::nt(m, k, n).batched3(p.sizes(), p.y_steps(), p.b_steps()).run(dy, b, None, &full)?,
        Form::Nt => Gemm::nn(m, k, n).batched3(p.sizes(), p.y_steps(), p.b_steps()).run(dy, b, None, &full)?,
        Form::Tn => Gemm::nt(k, m, n).batched3(p.sizes(), p.b_steps(), p.y_steps()).run(b, dy, None, &full)?,
    }
    reduce(&full, &p.axes, |axis| axis.a, m * k, a.shape())
}

/// The gradient of b.
pub(super) fn right_gradient(form: Form, p: &Problem, a: &Tensor, b: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (m, n, k) = (p.m, p.n, p.k);
    let full = Tensor::empty(b.gpu(), [p.batches(), k * n], b.dtype())?;
    match form {
        Form::Nn => Gemm::tn(k, n, m).batched3(p.sizes(), p.a_steps(), p.y_steps()).run(a, dy, None, &full)?,
        Form::Nt => Gemm::tn(n, k, m).batched3(p.sizes(), p.y_steps(), p.a_steps()).run(dy, a, None, &full)?,
        Form::Tn => Gemm::nn(k, n, m).batched3(p.sizes(), p.a_steps(), p.y_steps()).run(a, dy, None, &full)?,
    }
    reduce(&full, &p.axes, |axis| axis.b, k * n, b.shape())
}

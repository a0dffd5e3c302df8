//! Operators on tensors that are larger than a binding: they run on pieces of rows ([`Operator::rows`]), one after another, and the results
//! are laid together. Gradients of what all rows share are added up in the order of the pieces. Batch norm, whose statistics need all
//! rows, walks pieces by itself.

use std::ops::Range;

use super::Operator;
use crate::autograd::{Backward, sum};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::rows::{fitting, ranges};
use crate::tensor::{Spec, Tensor};

/// How the rows of an operator are cut.
struct Cut {
    /// The inputs that lie in rows.
    inputs: Vec<usize>,
    /// Rows in all, and of a piece.
    rows: usize,
    each: usize,
}

impl Cut {
    /// `None` where everything can be bound, or nothing can be cut.
    fn new(operator: &dyn Operator, gpu: &Gpu, inputs: &[Spec], outputs: &[Spec]) -> Option<Self> {
        let most = gpu.capabilities().max_binding_bytes;
        if inputs.iter().chain(outputs).all(|spec| spec.bytes() <= most) {
            return None;
        }
        let carried = operator.rows(inputs, outputs);
        let rows = outputs.first()?.shape.first().copied().filter(|rows| *rows > 1 && !carried.is_empty())?;
        let bytes: Vec<u64> = carried.iter().filter_map(|i| inputs.get(*i)).chain(outputs).map(|spec| spec.bytes() / rows as u64).collect();
        let (fit, step) = fitting(&bytes, most)?;
        let each = rows.div_ceil(rows.div_ceil(fit)).next_multiple_of(step);
        (each < rows).then_some(Self { inputs: carried, rows, each })
    }

    fn carries(&self, input: usize) -> bool {
        self.inputs.contains(&input)
    }

    fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        ranges(self.rows, self.each)
    }
}

/// [`Operator::forward`], in pieces where it must be.
pub(super) fn forward(operator: &dyn Operator, inputs: &[&Tensor], specs: &[Spec], outputs: &[Spec]) -> Result<Vec<Tensor>> {
    let cut = inputs.first().and_then(|x| Some((x.gpu(), Cut::new(operator, x.gpu(), specs, outputs)?)));
    let Some((gpu, cut)) = cut else { return operator.forward(inputs, outputs) };
    let whole = outputs.iter().map(|s| Tensor::empty(gpu, &s.shape, s.dtype)).collect::<Result<Vec<_>>>()?;
    for rows in cut.pieces() {
        let own = operator.piece(&rows);
        let operator = own.as_deref().unwrap_or(operator);
        let part = |(index, x): (usize, &&Tensor)| if cut.carries(index) { x.rows(&rows, cut.rows) } else { Ok((*x).clone()) };
        let parts = inputs.iter().enumerate().map(part).collect::<Result<Vec<_>>>()?;
        let specs: Vec<Spec> = parts.iter().map(|t| t.spec().clone()).collect();
        let made = operator.forward(&parts.iter().collect::<Vec<_>>(), &operator.infer(&specs)?)?;
        whole.iter().zip(&made).try_for_each(|(whole, part)| whole.put_rows(&rows, cut.rows, part))?;
    }
    Ok(whole)
}

/// [`Operator::backward`], in the same pieces.
pub(super) fn backward(operator: &dyn Operator, step: &Backward) -> Result<Vec<Option<Tensor>>> {
    let (inputs, outputs) = step.specs();
    let Some(cut) = Cut::new(operator, step.gpu(), inputs, outputs) else { return operator.backward(step) };
    let mut gradients: Vec<Option<Tensor>> = vec![None; inputs.len()];
    for rows in cut.pieces() {
        let own = operator.piece(&rows);
        let found = own.as_deref().unwrap_or(operator).backward(&step.rows(&cut.inputs, &rows, cut.rows)?)?;
        for (index, (gradient, part)) in gradients.iter_mut().zip(found).enumerate() {
            let Some(part) = part else { continue };
            if !cut.carries(index) {
                *gradient = Some(gradient.take().map_or(Ok(part.clone()), |before| sum(&before, &part))?);
                continue;
            }
            let whole = gradient.take().map_or_else(|| Tensor::empty(step.gpu(), &step.input_spec(index)?.shape, part.dtype()), Ok)?;
            whole.put_rows(&rows, cut.rows, &part)?;
            *gradient = Some(whole);
        }
    }
    Ok(gradients)
}

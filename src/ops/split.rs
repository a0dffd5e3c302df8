//! Operators on tensors that are larger than a binding: they run on pieces of rows
//! ([`Operator::rows`]), one after another, and the results are laid together. Gradients of what
//! all rows share are added up in the order of the pieces. Where axis 0 is too short for pieces, as
//! it is for one large image, the axes behind it that are alike ([`Operator::leading`]) are merged
//! into it: the pieces are bands of the image. Batch norm, whose statistics need all rows, walks
//! pieces by itself.

use std::ops::Range;

use super::Operator;
use crate::autograd::{Backward, sum};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::rows::{fitting, ranges};
use crate::tensor::{Spec, Tensor};

/// How the rows of an operator are cut.
struct Cut {
    /// Inputs and outputs, in the shapes that have all rows along axis 0.
    inputs: Vec<Spec>,
    outputs: Vec<Spec>,
    /// The inputs that lie in rows.
    carried: Vec<usize>,
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
        let leading = operator.leading(inputs, outputs).max(1);
        (1..=leading).find_map(|axes| Self::along(operator, most, merged(operator, inputs, outputs, axes)?))
    }

    /// The cut of axis 0.
    fn along(operator: &dyn Operator, most: u64, (inputs, outputs): (Vec<Spec>, Vec<Spec>)) -> Option<Self> {
        let carried = operator.rows(&inputs, &outputs);
        let rows = outputs.first()?.shape.first().copied().filter(|rows| *rows > 1 && !carried.is_empty())?;
        let bytes: Vec<u64> =
            carried.iter().filter_map(|i| inputs.get(*i)).chain(&outputs).map(|spec| spec.bytes() / rows as u64).collect();
        let (fit, step) = fitting(&bytes, most)?;
        let each = rows.div_ceil(rows.div_ceil(fit)).next_multiple_of(step);
        (each < rows).then_some(Self { inputs, outputs, carried, rows, each })
    }

    fn carries(&self, input: usize) -> bool {
        self.carried.contains(&input)
    }

    fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        ranges(self.rows, self.each)
    }
}

/// Inputs and outputs with the first `axes` axes of the outputs as one; an input has them all, as
/// broadcasting aligns it, or keeps its shape. `None` where that is another operation.
fn merged(operator: &dyn Operator, inputs: &[Spec], outputs: &[Spec], axes: usize) -> Option<(Vec<Spec>, Vec<Spec>)> {
    if axes == 1 {
        return Some((inputs.to_vec(), outputs.to_vec()));
    }
    let y = &outputs.first()?.shape;
    let lead = y.get(..axes)?;
    let merge = |spec: &Spec, sizes: &[usize]| {
        let sizes = [lead.iter().product()].into_iter().chain(lead.iter().skip(1).map(|_| 1)).chain(sizes.iter().skip(axes).copied());
        Spec { shape: sizes.collect::<Vec<_>>().into(), ..spec.clone() }
    };
    let input = |x: &Spec| {
        let missing = std::iter::repeat_n(1, y.rank().saturating_sub(x.shape.rank()));
        let sizes: Vec<usize> = missing.chain(x.shape.iter().copied()).collect();
        if sizes.starts_with(lead) { merge(x, &sizes) } else { x.clone() }
    };
    let inputs: Vec<Spec> = inputs.iter().map(input).collect();
    let outputs = outputs.iter().map(|y| y.shape.starts_with(lead).then(|| merge(y, &y.shape))).collect::<Option<Vec<_>>>()?;
    let made = operator.infer(&inputs).ok()?;
    let same = made.len() == outputs.len() && made.iter().zip(&outputs).all(|(a, b)| a.shape == b.shape && a.dtype == b.dtype);
    same.then_some((inputs, outputs))
}

/// [`Operator::forward`], in pieces where it must be.
pub(super) fn forward(operator: &dyn Operator, inputs: &[&Tensor], specs: &[Spec], outputs: &[Spec]) -> Result<Vec<Tensor>> {
    let cut = inputs.first().and_then(|x| Some((x.gpu(), Cut::new(operator, x.gpu(), specs, outputs)?)));
    let Some((gpu, cut)) = cut else { return operator.forward(inputs, outputs) };
    let whole = outputs.iter().map(|s| Tensor::empty(gpu, &s.shape, s.dtype)).collect::<Result<Vec<_>>>()?;
    let places = whole.iter().zip(&cut.outputs).map(|(y, spec)| y.view(&spec.shape)).collect::<Result<Vec<_>>>()?;
    let inputs = inputs.iter().zip(&cut.inputs).map(|(x, spec)| x.view(&spec.shape)).collect::<Result<Vec<_>>>()?;
    for rows in cut.pieces() {
        let own = operator.piece(&rows);
        let operator = own.as_deref().unwrap_or(operator);
        let part = |(index, x): (usize, &Tensor)| if cut.carries(index) { x.rows(&rows, cut.rows) } else { Ok(x.clone()) };
        let parts = inputs.iter().enumerate().map(part).collect::<Result<Vec<_>>>()?;
        let specs: Vec<Spec> = parts.iter().map(|t| t.spec().clone()).collect();
        let made = operator.forward(&parts.iter().collect::<Vec<_>>(), &operator.infer(&specs)?)?;
        places.iter().zip(&made).try_for_each(|(whole, part)| whole.put_rows(&rows, cut.rows, part))?;
    }
    Ok(whole)
}

/// [`Operator::backward`], in the same pieces.
pub(super) fn backward(operator: &dyn Operator, step: &Backward) -> Result<Vec<Option<Tensor>>> {
    let (inputs, outputs) = step.specs();
    let Some(cut) = Cut::new(operator, step.gpu(), inputs, outputs) else { return operator.backward(step) };
    let step = &step.viewed(&cut.inputs, &cut.outputs)?;
    let mut gradients: Vec<Option<Tensor>> = vec![None; inputs.len()];
    for rows in cut.pieces() {
        let own = operator.piece(&rows);
        let found = own.as_deref().unwrap_or(operator).backward(&step.rows(&cut.carried, &rows, cut.rows)?)?;
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
    let own = |(gradient, spec): (Option<Tensor>, &Spec)| gradient.map(|g| g.view(&spec.shape)).transpose();
    gradients.into_iter().zip(inputs).map(own).collect()
}

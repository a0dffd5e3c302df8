//! Repeating a tensor along axes of size 1, and along new ones in front.

use crate::ops::reduction::reduce;
use std::ops::Range;

use super::strided::{self, Axis, check_rank, copy};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::reduction::sum_to;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, broadcast_rows, exactly};
use crate::tensor::{Shape, Spec, Tensor};

/// x repeated to `shape` by the broadcasting rule.
#[derive(Debug, Clone)]
pub struct Expand {
    /// The sizes of y; -1 keeps the size of x.
    pub shape: Vec<isize>,
}

impl Expand {
    fn resolve(&self, from: &Shape) -> Result<Shape> {
        let wrong = |rule: &str| Error::shape("expand", format!("{from} cannot become {:?}: {rule}", self.shape));
        let new = self.shape.len().checked_sub(from.rank()).ok_or_else(|| wrong("axes can only be added, in front"))?;
        let size = |(k, size): (usize, &isize)| {
            let own = k.checked_sub(new).map(|axis| from.dim(axis));
            match (own, usize::try_from(*size)) {
                (None | Some(1), Ok(size)) => Ok(size),
                (Some(own), Ok(size)) if own == size => Ok(size),
                (Some(own), Err(_)) if *size == -1 => Ok(own),
                _ => Err(wrong("only axes of size 1 can be repeated")),
            }
        };
        Ok(Shape::from(self.shape.iter().enumerate().map(size).collect::<Result<Vec<usize>>>()?))
    }
}

/// For each axis of `to`, whether x is repeated along it.
fn repeated(from: &Shape, to: &Shape) -> Vec<bool> {
    let new = to.rank().saturating_sub(from.rank());
    let own = |k: usize| k.checked_sub(new).map(|axis| from.dim(axis));
    to.iter().enumerate().map(|(k, size)| own(k) != Some(*size)).collect()
}

impl Operator for Expand {
    fn name(&self) -> &str {
        "expand"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("expand", inputs)?;
        let shape = self.resolve(&x.shape)?;
        check_rank("expand", &shape)?;
        Ok(vec![Spec::new(shape, x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [y]) = (exactly("expand", inputs)?, exactly("expand", outputs)?);
        let mut strides = x.shape().strides().into_iter().rev();
        let mask = repeated(x.shape(), &y.shape);
        let mut moved: Vec<Axis> = Vec::with_capacity(mask.len());
        for (size, repeated) in y.shape.iter().zip(&mask).rev() {
            let stride = strides.next().unwrap_or(0);
            moved.push(Axis::whole(*size, if *repeated { 0 } else { stride as i64 }));
        }
        moved.reverse();
        Ok(vec![copy(x, &moved, 0, 0.0)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(sum_to(&step.cotangent(0)?, &step.input_spec(0)?.shape)?)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        broadcast_rows(inputs, outputs)
    }

    fn piece(&self, rows: &Range<usize>) -> Option<Box<dyn Operator>> {
        let shape = [rows.len() as isize].into_iter().chain(self.shape.iter().skip(1).copied()).collect();
        Some(Box::new(Expand { shape }))
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("expand", inputs)?;
        let shape = self.resolve(&x.shape)?;
        let new = shape.rank() - x.shape.rank();
        let y = Array::from_fn(shape, |at| {
            let own: Vec<usize> = at.iter().skip(new).zip(x.shape.iter()).map(|(i, size)| if *size == 1 { 0 } else { *i }).collect();
            x.at(&own)
        });
        Ok(vec![Array { dtype: x.dtype, ..y }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 0.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(Expand { shape: attributes.integers("shape")? }))
}

fn expand(shape: &[isize]) -> Expand {
    Expand { shape: shape.to_vec() }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(expand(&[4, 3, 5]), [normal([3, 1])]),
        Sample::new(expand(&[7]), [normal([])]),
        Sample::new(expand(&[33, 65]), [normal([1, 65])]),
        Sample::new(expand(&[5, -1]), [normal([1, 8])]),
        Sample::new(expand(&[2, 3, 2, 3, 2, 3]), [normal([3, 1, 3, 1, 3])]),
        Sample::new(expand(&[3, 2, 1]), [normal([3, 2, 1])]),
        Sample::new(expand(&[600, 3]), [normal([3])]),
        Sample::new(expand(&[2, 7, 65, 4]), [normal([1, 1, 1, 4])]),
        Sample::new(expand(&[0, 3]), [normal([3])]),
        Sample::new(expand(&[3, 4]), [indices([3, 1], 50)]),
    ]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(expand(&[3, 4]), [normal([3, 2])], "only axes of size 1 can be repeated"),
        Bad::new(expand(&[3]), [normal([1, 3])], "axes can only be added"),
        Bad::new(expand(&[-1, 3]), [normal([3])], "only axes of size 1"),
        Bad::new(expand(&[1, 1, 1, 1, 1, 1, 3]), [normal([3])], "at most 6"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "expand",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[strided::KERNELS, reduce::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// This tensor repeated to `shape`: sizes are equal or 1, aligned at the last axis. Binary
    /// operators broadcast by themselves.
    ///
    /// # Errors
    /// A shape that it does not broadcast to; more than six axes; out of memory.
    pub fn expand(&self, shape: &[usize]) -> Result<Tensor> {
        apply_one(Expand { shape: shape.iter().map(|s| isize::try_from(*s).unwrap_or(isize::MAX)).collect() }, &[self])
    }
}

//! A run of one axis.

use super::strided::{self, Axis, axes, check_rank, copy};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, axes_before, exactly, rows_beside};
use crate::tensor::{Shape, Spec, Tensor};

/// `y = x[.., start..end, ..]` along axis `dim`.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The axis; -1 is the last.
    pub dim: isize,
    /// The first element.
    pub start: usize,
    /// The one behind the last.
    pub end: usize,
}

impl Slice {
    fn axis(&self, shape: &Shape) -> Result<usize> {
        let axis = shape.axis("slice", self.dim)?;
        if self.start <= self.end && self.end <= shape.dim(axis) {
            return Ok(axis);
        }
        Err(Error::shape("slice", format!("{}..{} is not within axis {axis} of shape {shape}", self.start, self.end)))
    }
}

impl Operator for Slice {
    fn name(&self) -> &str {
        "slice"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("slice", inputs)?;
        check_rank("slice", &x.shape)?;
        Ok(vec![Spec::new(x.shape.with(self.axis(&x.shape)?, self.end - self.start), x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [x] = exactly("slice", inputs)?;
        let axis = self.axis(x.shape())?;
        if axis == 0 && !x.is_bindable() {
            return Ok(vec![x.rows(&(self.start..self.end), x.shape().dim(0))?.copy()?]);
        }
        let mut moved = axes(x.shape());
        let mut base = 0;
        if let Some(a) = moved.get_mut(axis) {
            base = self.start as i64 * a.stride;
            *a = Axis::whole(self.end - self.start, a.stride);
        }
        Ok(vec![copy(x, &moved, base, 0.0)?])
    }

    // What was cut off had no effect: zeros around the gradient.
    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (dy, shape) = (step.cotangent(0)?, &step.input_spec(0)?.shape);
        let axis = self.axis(shape)?;
        if axis == 0 && Spec::new(shape, dy.dtype()).bytes() > step.gpu().capabilities().max_binding_bytes {
            let dx = Tensor::zeros(step.gpu(), shape, dy.dtype())?;
            dx.put_rows(&(self.start..self.end), shape.dim(0), &dy)?;
            return Ok(vec![Some(dx)]);
        }
        let mut moved = axes(dy.shape());
        if let Some(a) = moved.get_mut(axis) {
            (a.size, a.low) = (shape.dim(axis), self.start as i64);
        }
        Ok(vec![Some(copy(&dy, &moved, 0, 0.0)?)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        rows_beside(inputs, inputs.first().and_then(|x| x.shape.axis(self.name(), self.dim).ok()))
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, self.dim)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("slice", inputs)?;
        let axis = self.axis(&x.shape)?;
        let y = Array::from_fn(x.shape.with(axis, self.end - self.start), |at| {
            let shifted: Vec<usize> = at.iter().enumerate().map(|(k, i)| if k == axis { i + self.start } else { *i }).collect();
            x.at(&shifted)
        });
        Ok(vec![Array { dtype: x.dtype, ..y }])
    }

    fn cost(&self, _: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(outputs, outputs, 0.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(slice(attributes.integer("dim")?, attributes.size("start")?, attributes.size("end")?)))
}

fn slice(dim: isize, start: usize, end: usize) -> Slice {
    Slice { dim, start, end }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(slice(1, 1, 4), [normal([3, 6, 2])]),
        Sample::new(slice(0, 2, 3), [normal([3, 6])]),
        Sample::new(slice(-1, 1, 33), [normal([5, 65])]),
        Sample::new(slice(-1, 4, 12), [normal([3, 7, 16])]),
        Sample::new(slice(-1, 3, 7), [normal([5, 9])]),
        Sample::new(slice(1, 1, 3), [normal([2, 4, 3, 8])]),
        Sample::new(slice(0, 0, 1), [normal([1])]),
        Sample::new(slice(0, 2, 2), [normal([5, 3])]),
        Sample::new(slice(0, 1, 4), [indices([5, 4], 99)]),
    ]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(slice(0, 2, 4), [normal([3])], "2..4 is not within axis 0"),
        Bad::new(slice(0, 2, 1), [normal([3])], "2..1 is not within axis 0"),
        Bad::new(slice(1, 0, 1), [normal([3])], "axis 1 is out of range"),
        Bad::new(slice(0, 0, 1), [normal([]), normal([])], "it takes 1 inputs"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "slice",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[strided::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Elements `start..end` along axis `dim` (-1 is the last), of at most six axes. It copies:
    /// tensors are contiguous.
    ///
    /// # Errors
    /// A range that is not within the axis; out of memory.
    pub fn slice(&self, dim: isize, start: usize, end: usize) -> Result<Tensor> {
        apply_one(slice(dim, start, end), &[self])
    }
}

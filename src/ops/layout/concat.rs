//! Tensors one after another along an axis.

use super::strided::{self, Axis, axes, check_rank, copy, width};
use crate::error::{Error, Result};
use crate::gpu::Launch;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Operator, apply_one, axes_before, rows_beside};
use crate::params;
use crate::tensor::{DType, Shape, Spec, Tensor};

kernels!(CONCAT = "layout/concat");

/// The most tensors that one call joins.
const MOST: usize = 1024;

/// The inputs, one or more, one after another along axis `dim`; they agree along every other axis.
#[derive(Debug, Clone)]
pub struct Concat {
    /// The axis; -1 is the last.
    pub dim: isize,
}

impl Concat {
    /// Axis and shape of the result.
    fn joined(&self, shapes: &[&Shape]) -> Result<(usize, Shape)> {
        let [first, rest @ ..] = shapes else {
            return Err(Error::shape("concat", "it takes at least 1 input, 0 were given"));
        };
        let axis = first.axis("concat", self.dim)?;
        for shape in rest {
            if shape.rank() != first.rank() || shape.with(axis, 0) != first.with(axis, 0) {
                return Err(Error::shape("concat", format!("{first} and {shape} differ along another axis than {axis}")));
            }
        }
        Ok((axis, first.with(axis, shapes.iter().fold(0, |sum: usize, s| sum.saturating_add(s.dim(axis))))))
    }
}

impl Operator for Concat {
    fn name(&self) -> &str {
        "concat"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (_, shape) = self.joined(&inputs.iter().map(|s| &s.shape).collect::<Vec<_>>())?;
        check_rank("concat", &shape)?;
        if inputs.len() > MOST {
            return Err(Error::shape("concat", format!("it takes at most {MOST} inputs, {} were given; join some first", inputs.len())));
        }
        let dtype = inputs.first().map_or(DType::F32, |s| s.dtype);
        match inputs.iter().find(|s| s.dtype != dtype) {
            Some(other) => Err(Error::dtype("concat", format!("all inputs must have one type, found {dtype} and {}", other.dtype))),
            None => Ok(vec![Spec::new(shape, dtype)]),
        }
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let (axis, shape) = self.joined(&inputs.iter().map(|t| t.shape()).collect::<Vec<_>>())?;
        let Some((x, spec)) = inputs.first().zip(outputs.first()) else { return Ok(Vec::new()) };
        let y = Tensor::empty(x.gpu(), shape, spec.dtype)?;
        let mut start = 0;
        if axis == 0 && !y.is_bindable() {
            for x in inputs {
                let end = start + x.shape().dim(0);
                y.put_rows(&(start..end), y.shape().dim(0), x)?;
                start = end;
            }
            return Ok(vec![y]);
        }
        let row = |shape: &Shape| shape.iter().skip(axis).product::<usize>();
        let w = width(inputs.iter().map(|t| row(t.shape())));
        for x in inputs {
            let length = row(x.shape());
            let n = x.numel() / w;
            Launch::new(x.gpu(), &CONCAT, "part")
                .define("T", x.dtype().to_string())
                .define("W", w)
                .read(*x)
                .write(&y)
                .params(params![n, length / w, row(y.shape()) / w, start / w])
                .invocations(n)?;
            start += length;
        }
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let dy = step.cotangent(0)?;
        let axis = dy.shape().axis("concat", self.dim)?;
        let mut start = 0;
        let mut gradients = Vec::with_capacity(step.input_count());
        for index in 0..step.input_count() {
            let size = step.input_spec(index)?.shape.dim(axis);
            if axis == 0 && !dy.is_bindable() {
                let rows = start as usize..start as usize + size;
                gradients.push(if step.needs(index) { Some(dy.rows(&rows, dy.shape().dim(0))?.copy()?) } else { None });
                start += size as i64;
                continue;
            }
            let mut moved = axes(dy.shape());
            let mut base = 0;
            if let Some(a) = moved.get_mut(axis) {
                base = start * a.stride;
                *a = Axis::whole(size, a.stride);
            }
            gradients.push(if step.needs(index) { Some(copy(&dy, &moved, base, 0.0)?) } else { None });
            start += size as i64;
        }
        Ok(gradients)
    }

    // As many as there may be: the operator itself does not know its inputs.
    fn differentiable(&self) -> Vec<usize> {
        (0..MOST).collect()
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        rows_beside(inputs, inputs.first().and_then(|x| x.shape.axis(self.name(), self.dim).ok()))
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, self.dim)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (axis, shape) = self.joined(&inputs.iter().map(|a| &a.shape).collect::<Vec<_>>())?;
        let y = Array::from_fn(shape, |at| {
            let mut at = at.to_vec();
            for x in inputs {
                let size = x.shape.dim(axis);
                match at.get_mut(axis) {
                    Some(i) if *i >= size => *i -= size,
                    _ => return x.at(&at),
                }
            }
            f64::NAN
        });
        Ok(vec![Array { dtype: inputs.first().map_or(y.dtype, |x| x.dtype), ..y }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 0.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(concat(attributes.integer("dim")?)))
}

fn concat(dim: isize) -> Concat {
    Concat { dim }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(concat(0), [normal([2, 3, 4]), normal([5, 3, 4])]),
        Sample::new(concat(1), [normal([2, 3, 4]), normal([2, 1, 4])]),
        Sample::new(concat(-1), [normal([7, 3]), normal([7, 33]), normal([7, 1])]),
        Sample::new(concat(-1), [normal([5, 4]), normal([5, 8])]),
        Sample::new(concat(0), [normal([65])]),
        Sample::new(concat(1), [normal([3, 5]), Input::Same(0)]),
        Sample::new(concat(0), [normal([0, 5]), normal([3, 5])]),
        Sample::new(concat(0), [indices([3, 1], 9), indices([2, 1], 9)]),
    ]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(concat(0), [], "at least 1 input"),
        Bad::new(concat(2), [normal([3, 5]), normal([3, 5])], "axis 2 is out of range"),
        Bad::new(concat(0), [normal([3, 5]), normal([3, 4])], "differ along another axis"),
        Bad::new(concat(0), [normal([3, 5]), normal([3])], "differ along another axis"),
        Bad::new(concat(0), [normal([3]), indices([3], 2)], "all inputs must have one type"),
    ]
}

/// The operator's line of the registry. Of any number of inputs, the reference files name two.
pub(super) fn entry() -> Entry {
    Entry {
        name: "concat",
        module: module_path!(),
        inputs: &["a", "b"],
        outputs: &["y"],
        kernels: &[KERNELS, strided::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// `tensors` one after another along axis `dim` (-1 is the last); they agree along every other
    /// axis.
    ///
    /// # Errors
    /// No tensor; other axes or types that differ; out of memory.
    pub fn concat(tensors: &[&Tensor], dim: isize) -> Result<Tensor> {
        apply_one(concat(dim), tensors)
    }
}

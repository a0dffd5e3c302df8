//! One element of an axis for each element of an index.

use super::index_select::INDICES_A_WALK;
use super::index_select::moved;
use super::strided::{Axis, axes, check_rank, collapse, missing, parameters};
use crate::error::{Error, Result};
use crate::gpu::{Launch, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::params;
use crate::tensor::{Shape, Spec, Tensor};

kernels!(GATHER = "layout/gather");

/// `y[i][j][k] = x[i][index[i][j][k]][k]` for `dim` 1, likewise for other axes. index and y have
/// one shape; x has as many axes, and may be larger along each but `dim`, which is free.
#[derive(Debug, Clone)]
pub struct Gather {
    /// The axis; -1 is the last.
    pub dim: isize,
}

impl Gather {
    fn axis(&self, x: &Shape, index: &Shape) -> Result<usize> {
        let axis = x.axis("gather", self.dim)?;
        let larger = |(k, (have, want)): (usize, (&usize, &usize))| k != axis && want > have;
        if x.rank() != index.rank() || x.iter().zip(index.iter()).enumerate().any(larger) {
            let rule = format!("both need as many axes, and index may be larger along axis {axis} only");
            return Err(Error::shape("gather", format!("index {index} does not fit x {x}: {rule}")));
        }
        Ok(axis)
    }
}

impl Operator for Gather {
    fn name(&self) -> &str {
        "gather"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x, index] = exactly("gather", inputs)?;
        check_rank("gather", &x.shape)?;
        let axis = self.axis(&x.shape, &index.shape)?;
        index.check_indices("gather", "index", x.shape.dim(axis), None)?;
        Ok(vec![Spec::new(&index.shape, x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [x, index] = exactly("gather", inputs)?;
        let axis = self.axis(x.shape(), index.shape())?;
        let y = Tensor::empty(x.gpu(), index.shape(), x.dtype())?;
        let own = axes(x.shape()).into_iter().zip(index.shape().iter()).enumerate();
        let walk: Vec<Axis> = own.map(|(k, (a, size))| Axis::whole(*size, if k == axis { 0 } else { a.stride })).collect();
        let step: usize = x.shape().iter().skip(axis + 1).product();
        let n = y.numel();
        let mut words = params![n, x.shape().dim(axis), step, 0u32, step].to_vec();
        words.push(missing(x.dtype()));
        words.extend(parameters(&collapse(&walk), false));
        Launch::new(x.gpu(), &GATHER, "forward")
            .define("T", x.dtype().to_string())
            .define("PASS", "forward")
            .read(*x)
            .read(*index)
            .write(&y)
            .params(&words)
            .invocations(n)?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (dy, index, spec) = (step.cotangent(0)?, step.input(1)?, step.input_spec(0)?);
        let axis = self.axis(&spec.shape, index.shape())?;
        let dx = Tensor::empty(dy.gpu(), &spec.shape, spec.dtype)?;
        let own = axes(index.shape()).into_iter().zip(spec.shape.iter()).enumerate();
        let along = |(k, (a, size)): (usize, (Axis, &usize))| if k == axis { Axis::whole(*size, 0) } else { Axis { size: *size, ..a } };
        let walk: Vec<Axis> = own.map(along).collect();
        let within = |shape: &Shape| shape.iter().skip(axis + 1).product::<usize>();
        let n = dx.numel();
        let count = index.shape().dim(axis);
        // The list is walked in parts, each adding to what the ones before left.
        for first in (0..count.max(1)).step_by(INDICES_A_WALK) {
            let last = count.min(first + INDICES_A_WALK);
            let mut words = params![n, spec.shape.dim(axis), within(index.shape()), last, within(&spec.shape), 0.0f32].to_vec();
            words.extend(parameters(&collapse(&walk), true));
            words.extend_from_slice(params![first]);
            Launch::new(dy.gpu(), &GATHER, "backward")
                .define("T", spec.dtype.to_string())
                .define("PASS", "backward")
                .read(&dy)
                .read(index)
                .write(&dx)
                .params(&words)
                .walk(rounds(last - first, 0))
                .invocations(n)?;
        }
        Ok(vec![Some(dx), None])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        let [x, index] = inputs else { return Vec::new() };
        match self.axis(&x.shape, &index.shape) {
            Ok(0) => vec![1],
            Ok(_) if x.shape.first() == index.shape.first() => vec![0, 1],
            _ => Vec::new(),
        }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x, index] = exactly("gather", inputs)?;
        let axis = self.axis(&x.shape, &index.shape)?;
        let y = Array::from_fn(&index.shape, |at| {
            let named = |k: usize, i: usize| if k == axis { index.at(at) as usize } else { i };
            x.at(&at.iter().enumerate().map(|(k, i)| named(k, *i)).collect::<Vec<_>>())
        });
        Ok(vec![Array { dtype: x.dtype, ..y }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        moved(inputs, outputs)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(gather(attributes.integer("dim")?)))
}

fn gather(dim: isize) -> Gather {
    Gather { dim }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(gather(1), [normal([4, 7]), indices([4, 3], 7)]),
        Sample::new(gather(0), [normal([5, 3, 3]), indices([9, 2, 3], 5)]),
        Sample::new(gather(1), [normal([3, 5, 4]), indices([2, 7, 1], 5)]),
        Sample::new(gather(-1), [normal([33, 65]), indices([33, 1], 65)]),
        Sample::new(gather(0), [normal([1]), indices([5], 1)]),
        Sample::new(gather(1), [normal([3, 5]), indices([0, 5], 5)]),
        Sample::new(gather(1), [indices([3, 5], 80), indices([3, 2], 5)]),
    ]
}

fn bad() -> Vec<Bad> {
    let outside = |v: f64| Input::Values(Array::integers([1, 1], vec![v]));
    vec![
        Bad::new(gather(1), [normal([4, 7]), indices([5, 3], 7)], "does not fit x [4, 7]"),
        Bad::new(gather(1), [normal([4, 7]), indices([4], 7)], "does not fit x [4, 7]"),
        Bad::new(gather(1), [normal([4, 7]), normal([4, 3])], "index must be i32"),
        Bad::new(gather(1), [normal([4, 7]), outside(7.0)], "index holds 7, outside 0..7"),
        Bad::new(gather(0), [normal([4, 7]), outside(-2.0)], "index holds -2, outside 0..4"),
        Bad::new(gather(2), [normal([4, 7]), indices([4, 7], 4)], "axis 2 is out of range"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "gather",
        module: module_path!(),
        inputs: &["x", "index"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// For each element of `index` (i32) the element of this tensor at the same place, but with
    /// that number along axis `dim` (-1 is the last). A number that only the device knows and that
    /// lies outside the axis gives NaN (the least integer in an integer tensor).
    ///
    /// # Errors
    /// An index of another rank, larger along another axis, not i32, or known to lie outside the
    /// axis; more than six axes; out of memory.
    pub fn gather(&self, dim: isize, index: &Tensor) -> Result<Tensor> {
        apply_one(gather(dim), &[self, index])
    }
}

//! The largest values along an axis and where they are: topk, and argmax, which is the position of
//! the first.

use crate::error::{Error, Result};
use crate::gpu::{Launch, Schedule, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, distinct, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, apply, apply_one, axes_before, exactly, require_float, rows_beside};
use crate::params;
use crate::tensor::{DType, Shape, Spec, Tensor};

kernels!(TOPK = "reduction/topk", BACKWARD = "reduction/topk_backward");

/// Rows up to this length are a thread's on GPUs, too.
const SHORT: usize = 64;

/// `[outer, length, inner]` around an axis.
fn around(shape: &Shape, axis: usize) -> [usize; 3] {
    [shape.iter().take(axis).product(), shape.dim(axis), shape.iter().skip(axis + 1).product()]
}

/// The shape rule of both: floats, an axis that exists, and at least `k` elements along it.
fn axis_of(operator: &str, x: &Spec, dim: isize, k: usize) -> Result<usize> {
    require_float(operator, "x", x)?;
    let axis = x.shape.axis(operator, dim)?;
    let length = x.shape.dim(axis);
    if k == 0 || k > length {
        return Err(Error::shape(operator, format!("k must be in 1..={length}, the size of axis {dim} of {}; found {k}", x.shape)));
    }
    Ok(axis)
}

/// Positions, and values where they are wanted.
fn pick(x: &Tensor, axis: usize, k: usize, positions: &Tensor, values: Option<&Tensor>) -> Result<()> {
    let [outer, length, inner] = around(x.shape(), axis);
    let rows = outer * inner;
    let capabilities = x.gpu().capabilities();
    let shared = if capabilities.schedule == Schedule::Gpu { length > SHORT } else { !capabilities.may_walk(k * length) };
    // A workgroup also takes columns that are too long for a thread.
    let long = !capabilities.may_walk_exactly(rounds(1, rounds(length, 0)));
    let tree = shared && (inner == 1 || long);
    let mut launch =
        Launch::new(x.gpu(), &TOPK, "topk").storage(x.dtype().storage()).define("TREE", tree).define("VALUES", values.is_some());
    launch = launch.read(x).write(positions);
    if let Some(values) = values {
        launch = launch.write(values);
    }
    let walk = rounds(k, rounds(if tree { length.div_ceil(128) } else { length }, 0));
    let launch = launch.params(params![rows, length, inner, k]).walk(walk);
    if tree { launch.groups(rows) } else { launch.invocations(rows) }
}

/// For references: the positions along `axis` in falling order of their values, cut at `k`, as an
/// array.
fn reference(x: &Array, axis: usize, k: usize, value: impl Fn(&[f64], usize) -> f64) -> Array {
    let with =
        |index: &[usize], i: usize| -> Vec<usize> { index.iter().enumerate().map(|(a, v)| if a == axis { i } else { *v }).collect() };
    Array::from_fn(x.shape.with(axis, k), |index| {
        let row: Vec<f64> = (0..x.shape.dim(axis)).map(|i| x.at(&with(index, i))).collect();
        let mut order: Vec<usize> = (0..row.len()).collect();
        let at = |i: usize| row.get(i).copied().unwrap_or(f64::NAN);
        // NaN is the largest, whatever its sign, and the zeros are equal.
        let key = |i: usize| if at(i).is_nan() { f64::NAN } else { at(i) + 0.0 };
        order.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
        let position = index.get(axis).and_then(|pick| order.get(*pick)).copied().unwrap_or(usize::MAX);
        value(&row, position)
    })
}

/// The `k` largest values along an axis and their positions.
#[derive(Debug, Clone)]
pub struct TopK {
    k: usize,
    dim: isize,
}

impl TopK {
    /// The `k` largest along `dim` (-1 is the last).
    pub fn new(k: usize, dim: isize) -> Self {
        Self { k, dim }
    }
}

impl Operator for TopK {
    fn name(&self) -> &str {
        "topk"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        let shape = x.shape.with(axis_of(self.name(), x, self.dim, self.k)?, self.k);
        Ok(vec![Spec::new(shape.clone(), x.dtype), Spec::i32(shape)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [values, positions]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let values = Tensor::empty(x.gpu(), &values.shape, values.dtype)?;
        let positions = Tensor::empty(x.gpu(), &positions.shape, DType::I32)?;
        pick(x, x.shape().axis(self.name(), self.dim)?, self.k, &positions, Some(&values))?;
        Ok(vec![values, positions])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (spec, dvalues, positions) = (step.input_spec(0)?, step.cotangent(0)?, step.output(1)?);
        let [_, length, inner] = around(&spec.shape, spec.shape.axis(self.name(), self.dim)?);
        let dx = Tensor::empty(step.gpu(), &spec.shape, spec.dtype)?;
        Launch::new(step.gpu(), &BACKWARD, "topk_backward")
            .storage(spec.dtype.storage())
            .read(&dvalues)
            .read(positions)
            .write(&dx)
            .params(params![dx.numel(), length, inner, self.k])
            .walk(rounds(self.k, 0))
            .invocations(dx.numel())?;
        Ok(vec![Some(dx)])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![], outputs: vec![1] }
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
        let [x] = exactly(self.name(), inputs)?;
        let axis = x.shape.axis(self.name(), self.dim)?;
        let values = reference(x, axis, self.k, |row, position| row.get(position).copied().unwrap_or(f64::NAN));
        let positions = reference(x, axis, self.k, |_, position| position as f64);
        Ok(vec![values, Array::integers(positions.shape, positions.data)])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements: usize = inputs.iter().map(|s| s.shape.numel()).sum();
        Cost { flops: (self.k * elements) as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

/// The position of the largest value along an axis, the first of equal ones.
#[derive(Debug, Clone)]
pub struct Argmax {
    dim: isize,
}

impl Argmax {
    /// Along `dim` (-1 is the last).
    pub fn new(dim: isize) -> Self {
        Self { dim }
    }
}

impl Operator for Argmax {
    fn name(&self) -> &str {
        "argmax"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        let axis = axis_of(self.name(), x, self.dim, 1)?;
        Ok(vec![Spec::i32(x.shape.iter().enumerate().filter(|(a, _)| *a != axis).map(|(_, s)| *s).collect::<Vec<_>>())])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let y = Tensor::empty(x.gpu(), &spec.shape, DType::I32)?;
        pick(x, x.shape().axis(self.name(), self.dim)?, 1, &y, None)?;
        Ok(vec![y])
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        rows_beside(inputs, inputs.first().and_then(|x| x.shape.axis(self.name(), self.dim).ok()))
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, self.dim)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly(self.name(), inputs)?;
        let positions = reference(x, x.shape.axis(self.name(), self.dim)?, 1, |_, position| position as f64);
        let shape = self.infer(&[Spec::f32(&x.shape)])?.into_iter().next().map(|s| s.shape).unwrap_or_default();
        Ok(vec![Array::integers(shape, positions.data)])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements: usize = inputs.iter().map(|s| s.shape.numel()).sum();
        Cost { flops: elements as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

/// Shapes, axes and, for topk, how many are picked.
const CASES: &[(&[usize], isize, usize)] = &[
    (&[1], 0, 1),
    (&[7], 0, 7),
    (&[0, 3], 1, 2),
    (&[3, 7], 0, 3),
    (&[5, 33], -1, 5),
    (&[3, 5, 4], 1, 2),
    (&[65, 3], 0, 4),
    (&[3, 1025], 1, 3),
];

/// Equal values, both zeros' neighbours and infinities: the first of equals wins.
fn ties() -> Input {
    let row = [2.0, -1.0, 2.0, f64::NEG_INFINITY, 2.0, 0.5, 0.5, -1.0];
    Input::Values(Array::new([11, 8], row.iter().cycle().take(88).copied().collect()))
}

fn samples() -> Vec<Sample> {
    CASES.iter().map(|(shape, dim, k)| Sample::new(TopK::new(*k, *dim), [distinct(*shape)])).collect()
}

fn argmax_samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = CASES.iter().map(|(shape, dim, _)| Sample::new(Argmax::new(*dim), [distinct(*shape)])).collect();
    samples.push(Sample::new(Argmax::new(1), [ties()]));
    samples.push(Sample::new(Argmax::new(0), [ties()]));
    samples
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(TopK::new(1, 2), [normal([3, 4])], "axis 2 is out of range for shape [3, 4]"),
        Bad::new(TopK::new(5, 1), [normal([3, 4])], "k must be in 1..=4, the size of axis 1 of [3, 4]; found 5"),
        Bad::new(TopK::new(0, 1), [normal([3, 4])], "found 0"),
        Bad::new(TopK::new(1, 0), [indices([3], 2)], "x must hold floats, found i32 [3]"),
    ]
}

fn argmax_bad() -> Vec<Bad> {
    vec![
        Bad::new(Argmax::new(-3), [normal([3, 4])], "axis -3 is out of range for shape [3, 4]"),
        Bad::new(Argmax::new(1), [normal([3, 0])], "the size of axis 1 of [3, 0]"),
        Bad::new(Argmax::new(0), [indices([3], 2)], "x must hold floats, found i32 [3]"),
    ]
}

/// The lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let dim = |attributes: &Attributes| attributes.integer_or("dim", -1);
    let topk = Entry {
        name: "topk",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["values", "indices"],
        kernels: &[KERNELS],
        build: Box::new(move |attributes| Ok(Box::new(TopK::new(attributes.size("k")?, dim(attributes)?)))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    };
    let argmax = Entry {
        name: "argmax",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(move |attributes| Ok(Box::new(Argmax::new(dim(attributes)?)))),
        samples: Box::new(argmax_samples),
        bad: Box::new(argmax_bad),
    };
    vec![topk, argmax]
}

impl Tensor {
    /// The `k` largest values along `dim` (-1 is the last) in falling order, and their positions
    /// (i32): two tensors whose axis `dim` has size `k`. Of equal values the first comes first.
    /// Gradients flow through the values.
    ///
    /// # Errors
    /// An axis that does not exist; `k` of 0 or above its size; integers; out of memory.
    pub fn topk(&self, k: usize, dim: isize) -> Result<(Tensor, Tensor)> {
        let outputs = apply(TopK::new(k, dim), &[self])?;
        let [values, positions] = exactly("topk", &outputs)?;
        Ok((values.clone(), positions.clone()))
    }

    /// The position (i32) of the largest value along `dim` (-1 is the last), the first of equal
    /// ones; that axis is removed.
    ///
    /// # Errors
    /// An axis that does not exist or is empty; integers; out of memory.
    pub fn argmax(&self, dim: isize) -> Result<Tensor> {
        apply_one(Argmax::new(dim), &[self])
    }
}

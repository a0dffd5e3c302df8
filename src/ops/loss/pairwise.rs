//! Means of a function of two tensors, element by element, a row of a table each: the WGSL of
//! `f(a, b)`, of its derivative by `a`, and `f` in float64. `p.beta` is the constant.

use super::mean::{self, mean};
use super::rows::check_alike;
use crate::error::{Result, require_not_negative};
use crate::gpu::{Launch, Schedule, rounds};
use crate::ops::array::minimum;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with, uniform};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

kernels!(PAIRWISE = "loss/pairwise");

/// A loss's definition.
#[derive(Debug)]
struct Definition {
    name: &'static str,
    inputs: &'static [&'static str; 2],
    forward: &'static str,
    derivative: &'static str,
    reference: fn(f64, f64, f64) -> f64,
    /// Whether `f` depends on `a - b` alone, so that the derivative by `b` is the negative one;
    /// else `b` is a constant target.
    difference: bool,
    /// Whether it has a constant, `beta`.
    constant: bool,
}

static MSE: Definition = Definition {
    name: "mse_loss",
    inputs: &["a", "b"],
    forward: "(a - b) * (a - b)",
    derivative: "2.0 * (a - b)",
    reference: |a, b, _| (a - b) * (a - b),
    difference: true,
    constant: false,
};

static SMOOTH_L1: Definition = Definition {
    name: "smooth_l1_loss",
    inputs: &["a", "b"],
    forward: "select(abs(a - b) - 0.5 * p.beta, 0.5 * (a - b) * (a - b) / p.beta, abs(a - b) < p.beta)",
    derivative: "select(select(sign(a - b), (a - b) / p.beta, abs(a - b) < p.beta), a - b, is_nan(a - b))",
    reference: |a, b, beta| {
        let d = (a - b).abs();
        if d < beta { 0.5 * d * d / beta } else { d - 0.5 * beta }
    },
    difference: true,
    constant: true,
};

static BCE: Definition = Definition {
    name: "bce_with_logits",
    inputs: &["logits", "target"],
    forward: "select(max(a, 0.0) - a * b + log1p_exp(-abs(a)), (1.0 - b) * a - minimum(a, 0.0), abs(a) > 3.4028234e38)",
    derivative: "sigmoid(a) - b",
    reference: |a, b, _| (1.0 - b) * a - (minimum(a, 0.0) - (-a.abs()).exp().ln_1p()),
    difference: false,
    constant: false,
};

/// The operators `mse_loss`, `smooth_l1_loss` and `bce_with_logits`: two tensors of the same shape
/// to their mean loss.
#[derive(Debug, Clone, Copy)]
pub struct Pairwise {
    definition: &'static Definition,
    beta: f32,
}

/// Workgroups of the first pass at most.
const GROUPS: usize = 128;

impl Pairwise {
    /// The mean of `(a - b)^2`.
    pub fn mse_loss() -> Self {
        Self { definition: &MSE, beta: 0.0 }
    }

    /// The mean of `d^2 / (2 beta)` where `d = |a - b|` is below `beta`, else of `d - beta / 2`.
    pub fn smooth_l1_loss(beta: f32) -> Self {
        Self { definition: &SMOOTH_L1, beta }
    }

    /// The mean binary cross entropy of `sigmoid(a)` with probabilities `b`.
    pub fn bce_with_logits() -> Self {
        Self { definition: &BCE, beta: 0.0 }
    }

    fn gradient(&self, a: &Tensor, b: &Tensor, cotangent: &Tensor, sign: f32) -> Result<Tensor> {
        let n4 = a.numel().div_ceil(4);
        let gradient = Tensor::empty(a.gpu(), a.shape(), a.dtype())?;
        Launch::new(a.gpu(), &PAIRWISE, "gradient")
            .storage(a.dtype().storage())
            .define("STEP", "gradient")
            .define("LANES", 64)
            .define("EXPRESSION", self.definition.derivative)
            .read(a)
            .read(b)
            .read(cotangent)
            .write(&gradient)
            .params(params![n4, sign / a.numel().max(1) as f32, self.beta])
            .invocations(n4)?;
        Ok(gradient)
    }
}

impl Operator for Pairwise {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [a, b] = exactly(self.name(), inputs)?;
        check_alike(self.name(), *self.definition.inputs, a, b)?;
        require_not_negative(self.name(), "beta", self.beta)?;
        Ok(vec![Spec::f32([])])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [a, b] = exactly(self.name(), inputs)?;
        let n = a.numel();
        let n4 = n.div_ceil(4);
        let tree = a.gpu().capabilities().schedule == Schedule::Gpu;
        let lanes: usize = if tree { 256 } else { 8 };
        let chunk = n4.div_ceil(GROUPS).max(4 * lanes).next_multiple_of(lanes);
        let groups = n4.div_ceil(chunk);
        let terms = Tensor::empty(a.gpu(), [if tree { groups } else { groups * lanes }], DType::F32)?;
        Launch::new(a.gpu(), &PAIRWISE, "partial_sums")
            .storage(a.dtype().storage())
            .define("STEP", "terms")
            .define("LANES", lanes)
            .define("TREE", tree)
            .define("EXPRESSION", self.definition.forward)
            .read(*a)
            .read(*b)
            .write(&terms)
            .params(params![n, n4, chunk, self.beta])
            .walk(rounds(chunk.div_ceil(lanes), 0))
            .groups(groups)?;
        Ok(vec![mean(&terms, terms.numel(), [0, 1], None, n)?.0])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (a, b, cotangent) = (step.input(0)?, step.input(1)?, step.cotangent(0)?);
        let da = if step.needs(0) { Some(self.gradient(a, b, &cotangent, 1.0)?) } else { None };
        let db = if step.needs(1) { Some(self.gradient(a, b, &cotangent, -1.0)?) } else { None };
        Ok(vec![da, db])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        if self.definition.difference { vec![0, 1] } else { vec![0] }
    }

    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [a, b] = exactly(self.name(), inputs)?;
        let beta = f64::from(self.beta);
        let sum: f64 = a.data.iter().zip(&b.data).map(|(a, b)| (self.definition.reference)(*a, *b, beta)).sum();
        Ok(vec![Array::new([], vec![sum / a.data.len().max(1) as f64])])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements = inputs.first().map_or(0, |s| s.shape.numel());
        Cost { flops: 4.0 * elements as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn build(definition: &'static Definition, attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let beta = if definition.constant { attributes.number_or("beta", 1.0)? as f32 } else { 0.0 };
    Ok(Box::new(Pairwise { definition, beta }))
}

fn samples(definition: &'static Definition) -> Vec<Sample> {
    let operator = |beta| Pairwise { definition, beta: if definition.constant { beta } else { 0.0 } };
    let shapes: [&[usize]; 8] = [&[], &[0], &[1], &[5], &[3, 7], &[33, 65], &[2, 3, 5, 7], &[50_001]];
    let b = |shape: &[usize]| if definition.difference { normal(shape) } else { uniform(shape, 0.0, 1.0) };
    let mut samples: Vec<Sample> =
        shapes.iter().map(|shape| Sample::new(operator(1.0), [normal_with(*shape, 2.0, 0.0), b(shape)])).collect();
    samples.push(Sample::new(operator(0.3), [normal_with([65], 2.0, 0.0), b(&[65])]));
    if definition.difference {
        samples.push(Sample::new(operator(0.5), [normal([7]), Input::Same(0)]));
    }
    samples
}

fn bad(definition: &'static Definition) -> Vec<Bad> {
    let bad = |inputs: Vec<Input>, expect| Bad::new(Pairwise { definition, beta: 1.0 }, inputs, expect);
    vec![
        bad(vec![normal([3])], "it takes 2 inputs"),
        bad(vec![normal([3, 5]), normal([5])], "must be floats of the same shape and type, found f32 [3, 5] and f32 [5]"),
        bad(vec![indices([3], 2), indices([3], 2)], "must be floats"),
        Bad::new(Pairwise { definition, beta: -1.0 }, [normal([3]), normal([3])], "beta must be finite and at least 0, found -1"),
    ]
}

/// The family's lines of the registry for losses of pairs.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |definition: &'static Definition| Entry {
        name: definition.name,
        module: module_path!(),
        inputs: definition.inputs,
        outputs: &["loss"],
        kernels: &[KERNELS, mean::KERNELS],
        build: Box::new(move |attributes| build(definition, attributes)),
        samples: Box::new(move || samples(definition)),
        bad: Box::new(move || bad(definition)),
    };
    [&MSE, &SMOOTH_L1, &BCE].into_iter().map(entry).collect()
}

impl Tensor {
    /// The mean of `(self - target)^2` over all elements, an f32 `[]`; gradients flow to both.
    ///
    /// # Errors
    /// Shapes or types that differ; out of memory.
    pub fn mse_loss(&self, target: &Tensor) -> Result<Tensor> {
        apply_one(Pairwise::mse_loss(), &[self, target])
    }

    /// The mean of `d^2 / (2 beta)` where `d = |self - target|` is below `beta`, else of
    /// `d - beta / 2` (Girshick 2015), an f32 `[]`; gradients flow to both.
    ///
    /// # Errors
    /// Shapes or types that differ; a negative `beta`; out of memory.
    pub fn smooth_l1_loss(&self, target: &Tensor, beta: f32) -> Result<Tensor> {
        apply_one(Pairwise::smooth_l1_loss(beta), &[self, target])
    }

    /// The mean of `-target log sigmoid(self) - (1 - target) log(1 - sigmoid(self))` over all
    /// elements, an f32 `[]`. `target` holds probabilities and gets no gradient.
    ///
    /// # Errors
    /// Shapes or types that differ; out of memory.
    pub fn bce_with_logits(&self, target: &Tensor) -> Result<Tensor> {
        apply_one(Pairwise::bce_with_logits(), &[self, target])
    }
}

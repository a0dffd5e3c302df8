//! What the updates share: a slab that holds all parameters of a model, how it is described to the
//! kernels, and their references.

use crate::error::{Error, Result};
use crate::gpu::{Launch, Scalar};
use crate::ops::entry::kernels;
use crate::ops::sample::{Input, normal, uniform};
use crate::ops::{Array, Cost, Operator, apply, require_f32};
use crate::params;
use crate::tensor::{Shape, Spec, Tensor};

kernels!(UPDATE = "optimizer/update");

/// Elements of a block, which belongs to one segment: slots of a slab start at multiples of it.
pub const BLOCK: usize = 64;

/// Numbers of what `clip_norm` says.
pub const CONTROL: usize = 7;

/// Numbers that may change from step to step, as the kernels read them: [`Self::to_array`] goes
/// into an f32 `[8]` tensor (by [`Tensor::write_scalars`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Scalars {
    /// The learning rate.
    pub lr: Scalar,
    /// 1 - beta1^t at step t = 1, 2, ...: what Adam's first average is divided by, where no step was
    /// skipped.
    pub bias_correction1: Scalar,
    /// 1 - beta2^t.
    pub bias_correction2: Scalar,
    /// Gradients are shortened to this global norm; 0: they are not.
    pub max_norm: Scalar,
    /// What a moving average keeps of itself.
    pub ema_momentum: Scalar,
    /// Multiplies the gradients before anything else: 1 / loss scale.
    pub gradient_scale: Scalar,
    /// Multiplies all weight decays.
    pub weight_decay: Scalar,
    /// t, skipped steps counted.
    pub step: Scalar,
}

impl Default for Scalars {
    fn default() -> Self {
        let [zero, one] = [0.0, 1.0].map(Scalar::from);
        Self {
            lr: zero.clone(),
            bias_correction1: one.clone(),
            bias_correction2: one.clone(),
            max_norm: zero,
            ema_momentum: one.clone(),
            gradient_scale: one.clone(),
            weight_decay: one.clone(),
            step: one,
        }
    }
}

impl Scalars {
    /// How many numbers the tensor holds.
    pub const LENGTH: usize = 8;

    /// The contents of the tensor.
    pub fn to_array(&self) -> [Scalar; Self::LENGTH] {
        let Self { lr, bias_correction1, bias_correction2, max_norm, ema_momentum, gradient_scale, weight_decay, step } = self;
        [lr, bias_correction1, bias_correction2, max_norm, ema_momentum, gradient_scale, weight_decay, step].map(Clone::clone)
    }
}

/// One row of the table of segments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// Multiplies the learning rate.
    pub lr_multiplier: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// Whether the step changes it; a frozen parameter, or one without a gradient, keeps its value
    /// and state.
    pub active: bool,
    /// LARS takes its gradient as it is (biases and norms in the papers).
    pub without_trust: bool,
}

impl Segment {
    /// The row of the table, an f32 [segments, 4] tensor.
    pub fn to_array(&self) -> [f32; 4] {
        [self.lr_multiplier, self.weight_decay, f32::from(u8::from(self.active)), f32::from(u8::from(self.without_trust))]
    }
}

/// The tensors of one update. Padding between slots must be zero in `gradients` (it is part of the
/// norm).
#[derive(Clone, Copy)]
pub struct Slab<'a> {
    /// All parameters, f32 `[n]`, n a multiple of [`BLOCK`]; changed in place.
    pub values: &'a Tensor,
    /// Their gradients, f32 `[n]`.
    pub gradients: &'a Tensor,
    /// The segment of each block, i32 [n / 64], ascending.
    pub segments: &'a Tensor,
    /// A [`Segment`] a row, f32 [segments, 4].
    pub table: &'a Tensor,
    /// [`Scalars`], f32 `[8]`.
    pub scalars: &'a Tensor,
    /// What `clip_norm` said, f32 `[7]`.
    pub control: &'a Tensor,
}

/// Runs an update of a slab with its states (and, for LARS, the segments' norms last).
///
/// # Errors
/// Shapes that do not fit; whatever the kernel reports.
pub fn update(operator: impl Operator, slab: &Slab, states: &[&Tensor]) -> Result<()> {
    let mut inputs = vec![slab.values, slab.gradients, slab.segments, slab.table, slab.scalars, slab.control];
    inputs.extend(states);
    apply(operator, &inputs).map(drop)
}

/// An update rule as the kernel knows it.
pub(super) struct Rule {
    pub name: &'static str,
    /// State slabs, changed in place.
    pub states: usize,
    pub constants: [f32; 4],
}

pub(super) fn launch(rule: &Rule, inputs: &[&Tensor]) -> Result<()> {
    let [values, gradients, segments, table, scalars, control, states @ ..] = inputs else { return Ok(()) };
    let mut launch = Launch::new(values.gpu(), &UPDATE, "update")
        .define("RULE", rule.name)
        .define("STATES", rule.states)
        .write(*values)
        .read(*gradients)
        .read(*segments)
        .read(*table)
        .read(*scalars)
        .read(*control);
    for (index, state) in states.iter().enumerate() {
        launch = if index < rule.states { launch.write(*state) } else { launch.read(*state) };
    }
    let [a, b, c, d] = rule.constants;
    let n4 = values.numel() / 4;
    launch.params(params![n4, table.shape().dim(0), a, b, c, d]).invocations(n4)
}

/// Checks an f32 tensor of a given shape.
pub(super) fn check(operator: &str, what: &str, spec: &Spec, shape: impl Into<Shape>) -> Result<()> {
    let shape = shape.into();
    require_f32(operator, what, spec)?;
    if spec.shape == shape {
        return Ok(());
    }
    Err(Error::shape(operator, format!("{what} must have shape {shape}, found {}", spec.shape)))
}

/// Checks a slab's length, segments and table; returns (elements, segments).
pub(super) fn check_layout(operator: &str, slab: &Spec, segments: &Spec, table: &Spec) -> Result<(usize, usize)> {
    require_f32(operator, "the slab", slab)?;
    let n = slab.shape.numel();
    if slab.shape.rank() != 1 || !n.is_multiple_of(BLOCK) {
        return Err(Error::shape(operator, format!("the slab must be [n] with n a multiple of {BLOCK}, found {}", slab.shape)));
    }
    let Some([count, 4]) = table.shape.array() else {
        return Err(Error::shape(operator, format!("table must be [segments, 4], found {}", table.shape)));
    };
    require_f32(operator, "table", table)?;
    segments.check_indices(operator, "segments", count, None)?;
    if segments.shape.array() != Some([n / BLOCK]) {
        return Err(Error::shape(
            operator,
            format!("segments must be [{}], one for each block of {BLOCK}, found {}", n / BLOCK, segments.shape),
        ));
    }
    Ok((n, count))
}

/// The shape rule of an update with `states` state slabs; returns (elements, segments).
pub(super) fn infer(operator: &str, inputs: &[Spec], states: usize, more: usize) -> Result<(usize, usize)> {
    let [values, gradients, segments, table, scalars, control, rest @ ..] = inputs else {
        return Err(Error::shape(operator, format!("it takes {} inputs, {} were given", 6 + states + more, inputs.len())));
    };
    if rest.len() != states + more {
        return Err(Error::shape(operator, format!("it takes {} inputs, {} were given", 6 + states + more, inputs.len())));
    }
    let (n, count) = check_layout(operator, values, segments, table)?;
    check(operator, "gradients", gradients, [n])?;
    check(operator, "scalars", scalars, [Scalars::LENGTH])?;
    check(operator, "control", control, [CONTROL])?;
    for (index, state) in rest.iter().take(states).enumerate() {
        check(operator, &format!("state {index}"), state, [n])?;
    }
    Ok((n, count))
}

/// The kernel's streaming cost: values and states read and written, gradients read.
pub(super) fn cost(inputs: &[Spec], states: usize, flops: f64) -> Cost {
    let n = inputs.first().map_or(0, |s| s.shape.numel()) as f64;
    Cost { flops: flops * n, bytes: 4.0 * n * (3 + 2 * states) as f64 }
}

/// One element as a reference's rule sees it.
pub(super) struct Element {
    pub value: f64,
    pub gradient: f64,
    pub lr: f64,
    pub decay: f64,
    pub segment: usize,
    pub without_trust: bool,
}

/// The plainest loop over a slab: `rule` gives the new value and changes the states of each element
/// that the step reaches.
pub(super) fn reference(inputs: &[Array], states: usize, rule: impl Fn(&Element, &mut [f64]) -> f64) -> Result<Vec<Array>> {
    let [values, gradients, segments, table, scalars, control, rest @ ..] = inputs else { return Ok(vec![]) };
    let mut out: Vec<Array> = std::iter::once(values).chain(rest.iter().take(states)).cloned().collect();
    for i in 0..values.data.len() {
        let segment = segments.flat(i / BLOCK) as usize;
        if control.flat(2) == 0.0 || table.at(&[segment, 2]) == 0.0 {
            continue;
        }
        let element = Element {
            value: values.flat(i),
            gradient: gradients.flat(i) * control.flat(1) * control.flat(4),
            lr: scalars.flat(0) * table.at(&[segment, 0]),
            decay: table.at(&[segment, 1]) * control.flat(3),
            segment,
            without_trust: table.at(&[segment, 3]) != 0.0,
        };
        let mut state: Vec<f64> = rest.iter().take(states).map(|s| s.flat(i)).collect();
        let value = rule(&element, &mut state);
        for (array, new) in out.iter_mut().zip(std::iter::once(value).chain(state)) {
            array.set(i, new);
        }
    }
    Ok(out)
}

/// A slab of `blocks` blocks in up to `count` segments, the second of them frozen with gradients
/// that are not numbers.
pub(super) fn sample_segments(blocks: usize, count: usize) -> (Array, Array) {
    let segment = |block: usize| block * count / blocks.max(1);
    let segments = Array::integers([blocks], (0..blocks).map(|b| segment(b) as f64).collect());
    let table = Array::from_fn([count, 4], |index| match *index {
        [s, 0] => 1.0 + 0.5 * (s % 3) as f64,
        [s, 1] => 0.03125 * (s % 2) as f64,
        [s, 2] => f64::from(u8::from(s != 1)),
        [s, _] => f64::from(u8::from(s == 2)),
        _ => 0.0,
    });
    (segments, table)
}

/// The first six inputs of an update on such a slab; `taken` is false for a step that is skipped.
pub(super) fn sample(blocks: usize, count: usize, taken: bool) -> Vec<Input> {
    let (segments, table) = sample_segments(blocks, count);
    let frozen = |i: usize| table.at(&[segments.flat(i / BLOCK) as usize, 2]) == 0.0;
    let gradient = |i: usize| if frozen(i) { f64::NAN } else { ((i * 37 % 101) as f64 - 50.0) / 64.0 };
    let gradients = Array::new([blocks * BLOCK], (0..blocks * BLOCK).map(gradient).collect());
    let scalars = Scalars { lr: 0.125.into(), ema_momentum: 0.75.into(), ..Scalars::default() };
    let control = [2.0, 0.5, f64::from(u8::from(taken)), 0.75, 0.25, 0.1875, 0.03125];
    vec![
        normal([blocks * BLOCK]),
        Input::Values(gradients),
        Input::Values(segments),
        Input::Values(table),
        Input::Values(Array::new([Scalars::LENGTH], scalars.to_array().map(|s| f64::from(s.get())).to_vec())),
        Input::Values(Array::new([CONTROL], control.to_vec())),
    ]
}

/// Positive values: averages of squares.
pub(super) fn squares(n: usize) -> Input {
    uniform([n], 0.0, 2.0)
}

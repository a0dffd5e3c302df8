//! Operators: the trait that each implements, its samples and checks, and the registry that lists
//! them all.
//!
//! One operator is one place: `<family>/<op>.rs` holds its shape rule, launches, float64 reference,
//! samples, bad inputs, tolerance and cost, and a line in its family's `mod.rs` makes it known to
//! the tests, the benchmark and the command line. A heavy operator is a folder: `mod` is what a
//! user and the tape see, `launch` how it is run (kernels, grids, tuning), `spec` what it must
//! give.

pub mod activation;
pub mod array;
pub mod attributes;
mod autocast;
pub mod entry;
pub mod gradcheck;
pub mod non_finite;
pub mod registry;
pub mod sample;
mod split;

pub mod augment;
pub mod contrastive;
pub mod convolution;
pub mod elementwise;
pub mod layout;
pub mod linear;
pub mod loss;
pub mod manifold;
pub mod normalization;
pub mod optimizer;
pub mod pooling;
pub mod reduction;
pub mod softmax;

use std::ops::Range;
use std::sync::Arc;

pub use crate::autograd::{Backward, Saves};
use crate::autograd::{Function, check_finite, record};
use crate::error::{Error, Result};
use crate::gpu::Bind;
use crate::tensor::{Spec, Tensor};
pub use activation::Activation;
pub use array::Array;
pub use attributes::Attributes;
pub use autocast::Autocast;
pub use non_finite::Edges;

/// How far a kernel's f32 result may be from the float64 reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Times the largest expected magnitude of the tensor.
    pub absolute: f64,
    /// Times the expected magnitude of the element itself.
    pub relative: f64,
    /// Why it is not smaller.
    pub reason: &'static str,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { absolute: 1e-5, relative: 1e-4, reason: "f32 storage and f32 accumulation" }
    }
}

/// What one forward call costs at least: the benchmark's yardstick.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: f64,
    /// Bytes that must be read and written once.
    pub bytes: f64,
}

impl Cost {
    /// Reading every input and writing every output once, at `flops_per_output` operations an
    /// output element.
    pub fn streaming(inputs: &[Spec], outputs: &[Spec], flops_per_output: f64) -> Self {
        let bytes: u64 = inputs.iter().chain(outputs).map(Spec::bytes).sum();
        let elements: usize = outputs.iter().map(|s| s.shape.numel()).sum();
        Self { flops: flops_per_output * elements as f64, bytes: bytes as f64 }
    }
}

/// A differentiable function of tensors whose forward and backward are kernels.
///
/// [`apply`] checks the inputs by [`Self::infer`], runs [`Self::forward`] and, where an input is
/// watched, puts [`Self::backward`] on the tape.
pub trait Operator: Send + Sync + 'static {
    /// PyTorch's name of it.
    fn name(&self) -> &str;

    /// The shape and dtype rule: what the outputs will be.
    ///
    /// # Errors
    /// Names the operator, the shapes and the rule that was broken.
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>>;

    /// Launches the kernels; `outputs` is what [`Self::infer`] said. Every element of every output
    /// must be written.
    ///
    /// # Errors
    /// Those of launching.
    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>>;

    /// Launches the kernels of the gradients, one entry an input (`None` where there is none).
    ///
    /// # Errors
    /// Those of launching.
    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; step.input_count()])
    }

    /// The tensors that [`Self::backward`] asks for; the others are not kept alive.
    fn saves(&self) -> Saves {
        Saves::default()
    }

    /// The inputs that a gradient is computed for; the others (targets, indices, masks, statistics)
    /// are constants.
    fn differentiable(&self) -> Vec<usize> {
        Vec::new()
    }

    /// How many of the outputs, the first ones, gradients flow back through. Those behind them are
    /// constants to whoever reads them: statistics, say, that the backward pass needs.
    fn results(&self) -> usize {
        usize::MAX
    }

    /// In which types it is given its inputs under
    /// [`Precision::Mixed`](crate::gpu::Precision::Mixed).
    fn autocast(&self) -> Autocast {
        Autocast::Keep
    }

    /// What an input is tried with, beside numbers, by [`non_finite::check`].
    fn edges(&self, _input: usize) -> Edges {
        Edges::All
    }

    /// The inputs that the kernels change in place.
    fn mutates(&self) -> Vec<usize> {
        Vec::new()
    }

    /// The inputs that lie in rows as the outputs do: where the first output has `n` indices along
    /// axis 0, each of these inputs and every output consist of `n` equal parts, and a part of the
    /// outputs depends on the same part of these inputs alone, and on the other inputs wholly.
    /// Where a tensor is larger than a binding, the operator then runs on pieces of it. Empty where
    /// there is no such axis.
    fn rows(&self, _inputs: &[Spec], _outputs: &[Spec]) -> Vec<usize> {
        Vec::new()
    }

    /// How many leading axes of the outputs are alike, so that [`Self::rows`] holds of several of
    /// them as one, too: where axis 0 alone is too short for pieces that can be bound, as it is for
    /// one large image, they are merged into it.
    fn leading(&self, _inputs: &[Spec], _outputs: &[Spec]) -> usize {
        1
    }

    /// The operator for these rows, where they need another than this one (it counts rows, or names
    /// their number).
    fn piece(&self, _rows: &Range<usize>) -> Option<Box<dyn Operator>> {
        None
    }

    /// The specification: plain loops in float64. Inputs that the operator mutates are appended to
    /// the outputs, in order.
    ///
    /// # Errors
    /// Where there is none.
    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>>;

    /// The gradients by the reference. By default central differences of [`Self::reference`], which
    /// float64 makes exact to about nine digits: so the derivative that is checked follows from the
    /// forward definition alone.
    ///
    /// # Errors
    /// As [`Self::reference`].
    fn reference_backward(&self, inputs: &[Array], cotangents: &[Array], input: usize, elements: &[usize]) -> Result<Vec<f64>> {
        gradcheck::central_differences(&|x| self.reference(x), inputs, cotangents, input, elements)
    }

    /// How exact the kernels are.
    fn tolerance(&self) -> Tolerance {
        Tolerance::default()
    }

    /// The largest magnitude of the terms that an element of the outputs is a sum of (`None`), or
    /// one of an input's gradient for each unit of the cotangent (`Some`), where these terms may
    /// cancel: the kernels' rounding errors are relative to it, however small the sum. 0 where
    /// results are not smaller than what they are made of. An error of a few roundings of it
    /// ([`gradcheck::ROUNDING`]) passes as none.
    fn summed(&self, _inputs: &[Array], _gradient_of: Option<usize>) -> f64 {
        0.0
    }

    /// What the forward call costs.
    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 1.0)
    }
}

struct Recorded(Arc<dyn Operator>);

impl Function for Recorded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        split::backward(&*self.0, step)
    }
}

/// Runs an operator and records it where an input is watched.
///
/// # Errors
/// The operator's shape rule; tensors of different devices; an input that is changed in place and
/// given twice; whatever its kernels report.
pub fn apply(operator: impl Operator, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    apply_shared(Arc::new(operator), inputs)
}

/// As [`apply`], for an operator that is already shared.
///
/// # Errors
/// As [`apply`].
pub fn apply_shared(operator: Arc<dyn Operator>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    autocast::apply(operator, inputs, run)
}

fn run(operator: Arc<dyn Operator>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let name = operator.name().to_string();
    if inputs.windows(2).any(|pair| matches!(pair, [a, b] if a.gpu() != b.gpu())) {
        return Err(Error::argument(name, "its inputs live on different devices; read one back and upload it to the other"));
    }
    let specs: Vec<Spec> = inputs.iter().map(|t| t.spec().clone()).collect();
    let expected = operator.infer(&specs)?;
    check_aliases(&*operator, inputs)?;
    expected.iter().try_for_each(|spec| spec.check_size(&name))?;
    let outputs = split::forward(&*operator, inputs, &specs, &expected)?;
    for index in operator.mutates() {
        if let Some(tensor) = inputs.get(index) {
            tensor.bump_version();
        }
    }
    for (index, output) in outputs.iter().enumerate() {
        check_finite(&name, &format!("output {index}"), output)?;
    }
    let differentiable = operator.differentiable();
    // A constant input must not put the step on the tape.
    let constants: Vec<Tensor> = inputs.iter().map(|t| t.detach()).collect();
    let watched: Vec<&Tensor> =
        inputs.iter().zip(&constants).enumerate().map(|(i, (t, c))| if differentiable.contains(&i) { *t } else { c }).collect();
    let (saves, results) = (operator.saves(), operator.results());
    let recorded = record(Box::new(Recorded(operator)), &saves, &watched, outputs);
    Ok(recorded.into_iter().enumerate().map(|(index, output)| if index < results { output } else { output.detach() }).collect())
}

/// Refuses an input that is changed in place and given as another input as well: what the other one
/// reads would depend on which kernel, or which invocation, comes first.
fn check_aliases(operator: &dyn Operator, inputs: &[&Tensor]) -> Result<()> {
    for changed in operator.mutates() {
        let Some(memory) = inputs.get(changed).map(|t| t.binding()) else { continue };
        let shares = |(index, other): (usize, &&Tensor)| index != changed && memory.overlaps(&other.binding());
        let Some(other) = inputs.iter().enumerate().position(shares) else { continue };
        let names = registry::find(operator.name()).map_or(&[][..], |entry| entry.inputs);
        let name = |index: usize| names.get(index).map_or_else(|| format!("input {index}"), ToString::to_string);
        let (changed, other) = (name(changed), name(other));
        let message = format!("{changed} is changed in place, so {other} cannot be the same memory; give it a copy (Tensor::copy)");
        return Err(Error::argument(operator.name(), message));
    }
    Ok(())
}

/// As [`apply`], for an operator whose first output is all that its caller wants.
///
/// # Errors
/// As [`apply`].
pub fn apply_one(operator: impl Operator, inputs: &[&Tensor]) -> Result<Tensor> {
    let name = operator.name().to_string();
    apply(operator, inputs)?.into_iter().next().ok_or_else(|| Error::argument(name, "it has no output"))
}

/// The inputs of an operator that takes exactly `N`.
///
/// # Errors
/// [`Error::Shape`] with the number found.
pub fn exactly<'a, const N: usize, T>(operator: &str, inputs: &'a [T]) -> Result<&'a [T; N]> {
    inputs.try_into().map_err(|_| Error::shape(operator, format!("it takes {N} inputs, {} were given", inputs.len())))
}

/// Checks that an input holds floats, of any storage type.
///
/// # Errors
/// [`Error::Dtype`] naming the input.
pub fn require_float(operator: &str, what: &str, spec: &Spec) -> Result<()> {
    if spec.dtype.is_float() {
        return Ok(());
    }
    Err(Error::dtype(operator, format!("{what} must hold floats, found {spec}; cast it first")))
}

/// The rows of an operator whose inputs broadcast: the inputs that have axis 0 of the output.
pub(crate) fn broadcast_rows(inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
    let Some(y) = outputs.first() else { return Vec::new() };
    let varies = |x: &Spec| x.shape.rank() == y.shape.rank() && x.shape.first() == y.shape.first();
    inputs.iter().enumerate().filter(|(_, x)| varies(x)).map(|(index, _)| index).collect()
}

/// The leading axes of an operator that works element by element: all.
pub(crate) fn every_axis(outputs: &[Spec]) -> usize {
    outputs.first().map_or(1, |y| y.shape.rank())
}

/// The leading axes of an operator that works along axis `dim` of its first input: those before it.
pub(crate) fn axes_before(inputs: &[Spec], dim: isize) -> usize {
    inputs.first().and_then(|x| x.shape.axis("rows", dim).ok()).unwrap_or(0)
}

/// The rows of an operator that works along `axes` of its inputs, which are all alike: all inputs,
/// unless axis 0 is one of them.
pub(crate) fn rows_beside(inputs: &[Spec], axes: impl IntoIterator<Item = usize>) -> Vec<usize> {
    if axes.into_iter().any(|axis| axis == 0) { Vec::new() } else { (0..inputs.len()).collect() }
}

/// The sizes of images `[N, H, W, C]`.
pub(crate) fn images(operator: &str, x: &Spec) -> Result<[usize; 4]> {
    x.shape.array().ok_or_else(|| Error::shape(operator, format!("x must be images [N, H, W, C], found shape {}", x.shape)))
}

/// Checks that an input is a float tensor of storage type f32 (losses, statistics and parameters
/// always are).
///
/// # Errors
/// [`Error::Dtype`] naming the input.
pub fn require_f32(operator: &str, what: &str, spec: &Spec) -> Result<()> {
    if spec.dtype == crate::tensor::DType::F32 {
        return Ok(());
    }
    Err(Error::dtype(operator, format!("{what} must be f32, found {}; cast it first", spec.dtype)))
}

//! What is measured: a workload makes its tensors on a device and records one iteration whenever it
//! is asked to.

use std::sync::Arc;

use super::run::Gate;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::gradcheck::gradcheck_sample;
use crate::ops::sample::Sample;
use crate::ops::{Cost, Operator, apply_shared};
use crate::tensor::{DType, Spec, Tensor};

/// Makes a workload ready on a device.
pub type Make = dyn Fn(&Gpu) -> Result<Prepared>;

/// Something to measure, not made yet.
pub struct Workload {
    /// The suite that it belongs to.
    pub suite: &'static str,
    /// Unique in the suite.
    pub name: String,
    /// What it belongs to: an operator, a network.
    pub group: String,
    /// Shapes and options, for people.
    pub shape: String,
    /// Makes its tensors.
    pub make: Box<Make>,
}

/// A workload whose tensors are on the device.
pub struct Prepared {
    /// Records one iteration, gradients anew; the results are waited for by one element of each.
    /// The first element of the last is the check value.
    pub step: Box<dyn FnMut() -> Result<Vec<Tensor>>>,
    /// Compares a result with what it must be.
    pub gate: Box<dyn Fn() -> Result<Gate>>,
    /// What one iteration costs at least.
    pub cost: Cost,
    /// Storage type.
    pub dtype: DType,
}

impl Workload {
    /// A workload without anything known of it but how it is made.
    pub fn new(
        suite: &'static str,
        name: impl Into<String>,
        group: impl Into<String>,
        shape: impl Into<String>,
        make: impl Fn(&Gpu) -> Result<Prepared> + 'static,
    ) -> Self {
        Self { suite, name: name.into(), group: group.into(), shape: shape.into(), make: Box::new(make) }
    }

    /// Whether one of `filters` names it: `=NAME` exactly, else by the beginning of its name. No
    /// filter wants everything.
    pub fn is_wanted(&self, filters: &[String]) -> bool {
        wanted(&self.name, filters)
    }
}

/// Whether one of `filters` names `name`.
pub fn wanted(name: &str, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|f| f.strip_prefix('=').map_or_else(|| name.starts_with(f.as_str()), |exact| name == exact))
}

/// What is wanted of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Its first output.
    Forward,
    /// Also the gradients of its inputs, from a given cotangent of the first output.
    Both,
}

/// An operator on given tensors. `wanted` are the inputs whose gradients are waited for, in order;
/// the last is the check value's.
pub fn operator(
    operator: Arc<dyn Operator>,
    inputs: Vec<Tensor>,
    cotangent: Option<Tensor>,
    wanted: &[usize],
    gate: impl Fn() -> Result<Gate> + 'static,
) -> Result<Prepared> {
    let specs: Vec<Spec> = inputs.iter().map(|t| t.spec().clone()).collect();
    let outputs = operator.infer(&specs)?;
    let forward = operator.cost(&specs, &outputs);
    let dtype = inputs.first().map_or(DType::F32, Tensor::dtype);
    let Some(cotangent) = cotangent else {
        let step = move || Ok(apply_shared(operator.clone(), &inputs.iter().collect::<Vec<_>>())?.into_iter().take(1).collect());
        return Ok(Prepared { step: Box::new(step), gate: Box::new(gate), cost: forward, dtype });
    };
    let cost = both(&*operator, &specs, &outputs, forward);
    let differentiable = operator.differentiable();
    let watched: Vec<Tensor> =
        inputs.iter().enumerate().map(|(i, t)| if differentiable.contains(&i) { t.watch() } else { t.clone() }).collect();
    let wanted: Vec<Tensor> = wanted.iter().filter_map(|i| watched.get(*i).cloned()).collect();
    let step = move || {
        let outputs = apply_shared(operator.clone(), &watched.iter().collect::<Vec<_>>())?;
        let name = || Error::argument(operator.name().to_string(), "no gradient reaches what was asked for");
        let y = outputs.iter().find(|t| t.is_watched()).ok_or_else(name)?;
        let gradients = y.backward_from(&cotangent)?;
        wanted.iter().map(|t| gradients.get(t).cloned().ok_or_else(name)).collect()
    };
    Ok(Prepared { step: Box::new(step), gate: Box::new(gate), cost, dtype })
}

/// Forward and gradients: three times the operations (a product has two gradients, each as costly
/// as itself), and the bytes of forward, of the cotangent and whatever is saved, and of the
/// gradients.
fn both(operator: &dyn Operator, inputs: &[Spec], outputs: &[Spec], forward: Cost) -> Cost {
    let (saves, differentiable) = (operator.saves(), operator.differentiable());
    let bytes = |specs: &[Spec], which: &[usize]| which.iter().filter_map(|i| specs.get(*i)).map(Spec::bytes).sum::<u64>() as f64;
    let backward = bytes(inputs, &saves.inputs) + bytes(outputs, &saves.outputs) + bytes(outputs, &[0]) + bytes(inputs, &differentiable);
    Cost { flops: 3.0 * forward.flops, bytes: forward.bytes + backward }
}

/// The gate of a smaller twin: the operator with the same attributes on inputs that its float64
/// reference can afford.
pub fn twin(gpu: &Gpu, what: &str, make: impl Fn() -> Sample + 'static) -> impl Fn() -> Result<Gate> + 'static {
    let (gpu, against) =
        (gpu.clone(), format!("float64 reference, forward and gradients, on a smaller twin {what}; as a fraction of the tolerance"));
    move || Ok(gate_of(gradcheck_sample(&gpu, make(), 1).map(|report| report.worst), against.clone()))
}

/// A gate from a check that says how much of the tolerance was used, or what was wrong.
pub fn gate_of(worst: Result<f64>, against: String) -> Gate {
    match worst {
        Ok(worst) => Gate { passed: Some(worst <= 1.0), max_error: Some(worst), against },
        Err(error) => Gate { passed: Some(false), max_error: None, against: format!("{against}: {error}") },
    }
}

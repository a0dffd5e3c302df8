//! The suite `registry`: every operator on the largest of its samples, forward and, where it has
//! any, with gradients. Samples are small, so the figures show what a launch costs.

use std::sync::Arc;

use super::workload::{Workload, gate_of, operator};
use crate::error::{Error, Result};
use crate::ops::gradcheck::gradcheck_sample;
use crate::ops::registry::{find, registry};
use crate::ops::sample::Sample;
use crate::ops::{Array, Operator};
use crate::tensor::{DType, Tensor};

/// The largest of the operator's samples.
fn largest(name: &str) -> Result<Sample> {
    let none = || Error::argument(name, "has no samples");
    let entry = find(name).ok_or_else(none)?;
    (entry.samples)().into_iter().max_by_key(|s| s.arrays(0).iter().map(|a| a.data.len()).sum::<usize>()).ok_or_else(none)
}

/// The inputs that a gradient reaches in this sample; none where the first output holds no floats.
fn watched(operator: &dyn Operator, arrays: &[Array]) -> Vec<usize> {
    let float = |index: &usize| arrays.get(*index).is_some_and(|a| a.dtype.is_float());
    operator.differentiable().into_iter().filter(float).collect()
}

/// All operators, in the order of the registry.
pub fn workloads() -> Vec<Workload> {
    let mut list = Vec::new();
    for entry in registry() {
        let name = entry.name;
        let Ok(sample) = largest(name) else { continue };
        let arrays = sample.arrays(0);
        let shapes: Vec<String> = arrays.iter().map(|a| a.shape.to_string()).collect();
        let gradients = !watched(&*sample.operator, &arrays).is_empty();
        for both in [false, true].into_iter().filter(|both| !both || gradients) {
            let own = if both { format!("{name}_fwdbwd") } else { name.to_string() };
            list.push(Workload::new("registry", own, entry.family(), shapes.join(", "), move |gpu| {
                let sample = largest(name)?;
                let arrays = sample.arrays(0);
                let inputs = arrays.iter().map(|a| a.upload(gpu)).collect::<Result<Vec<Tensor>>>()?;
                let (wanted, given) = (watched(&*sample.operator, &arrays), gpu.clone());
                let own: Arc<dyn Operator> = Arc::from(sample.operator);
                let outputs = own.infer(&inputs.iter().map(|t| t.spec().clone()).collect::<Vec<_>>())?;
                let cotangent = match outputs.first().filter(|s| both && s.dtype == DType::F32) {
                    Some(spec) => Some(Sample::cotangent(&spec.shape, 0).upload(gpu)?),
                    None => None,
                };
                let gate = move || {
                    let against = "float64 reference, forward and gradients, on this sample; as a fraction of the tolerance".to_string();
                    Ok(gate_of(gradcheck_sample(&given, largest(name)?, 1).map(|report| report.worst), against))
                };
                operator(own, inputs, cotangent, &wanted, gate)
            }));
        }
    }
    list
}

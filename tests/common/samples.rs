//! Samples of the registry, run without a look at what comes out.

use std::sync::Arc;

use wgrad::gpu::Gpu;
use wgrad::ops::sample::{Input, Sample};
use wgrad::ops::{Operator, apply_shared};
use wgrad::tensor::Tensor;

/// Every tensor that a sample makes or changes: outputs, changed inputs, gradients, each with its
/// name.
pub fn run(gpu: &Gpu, sample: Sample) -> Vec<(String, Tensor)> {
    let arrays = sample.arrays(1);
    let operator: Arc<dyn Operator> = Arc::from(sample.operator);
    let differentiable = operator.differentiable();
    let mut tensors: Vec<Tensor> = Vec::new();
    for (index, (array, input)) in arrays.iter().zip(&sample.inputs).enumerate() {
        tensors.push(match input {
            Input::Same(of) => tensors[*of].clone(),
            _ if differentiable.contains(&index) => array.upload(gpu).unwrap().watch(),
            _ => array.upload(gpu).unwrap(),
        });
    }
    let outputs = apply_shared(operator.clone(), &tensors.iter().collect::<Vec<_>>()).unwrap();
    let mut found: Vec<(String, Tensor)> = outputs.iter().enumerate().map(|(i, t)| (format!("output {i}"), t.detach())).collect();
    found.extend(tensors.iter().enumerate().map(|(i, t)| (format!("input {i}"), t.detach())));
    for (number, output) in outputs.iter().enumerate().filter(|(_, t)| t.is_watched()) {
        let cotangent = Sample::cotangent(output.shape(), number as u32).upload(gpu).unwrap();
        let gradients = output.backward_from_retain_graph(&cotangent).unwrap();
        let of = |(i, t): (usize, &Tensor)| gradients.get(t).map(|g| (format!("gradient {i} by output {number}"), g.clone()));
        found.extend(tensors.iter().enumerate().filter_map(of));
    }
    found
}

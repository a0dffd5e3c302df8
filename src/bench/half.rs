//! The suite `half`: products and convolutions of f16, forward and with gradients, for adapters
//! that store it; by cooperative matrices where there are any.

use std::sync::Arc;

use super::peers::tensor;
use super::workload::{Workload, gate_of, operator};
use crate::error::Result;
use crate::gpu::{Capabilities, Gpu};
use crate::io::layout::Layout;
use crate::ops::convolution::conv2d::{Conv2d, Conv2dFuncOptions};
use crate::ops::gradcheck::gradcheck_half;
use crate::ops::linear::{Form, Matmul};
use crate::ops::registry::find;
use crate::ops::{Array, Operator};
use crate::tensor::{DType, Tensor};

const SUITE: &str = "half";

fn half(gpu: &Gpu, seed: u32, shape: &[usize]) -> Result<Tensor> {
    tensor(gpu, seed, shape.to_vec(), Layout::Plain)?.cast(DType::F16)
}

/// Forward and gradients of an operator whose inputs `halves` are f16, the others f32.
fn workload(name: String, group: &'static str, own: Arc<dyn Operator>, shapes: [Vec<usize>; 2], halves: &'static [usize]) -> Workload {
    let shape = shapes.iter().map(|shape| format!("{shape:?}")).collect::<Vec<_>>().join(", ");
    Workload::new(SUITE, name, group, shape, move |gpu| {
        let input = |(at, shape): (usize, &Vec<usize>)| match halves.contains(&at) {
            true => half(gpu, 7 + at as u32, shape),
            false => tensor(gpu, 7 + at as u32, shape.clone(), Layout::Plain),
        };
        let inputs = shapes.iter().enumerate().map(input).collect::<Result<Vec<_>>>()?;
        let outputs = own.infer(&inputs.iter().map(|t| t.spec().clone()).collect::<Vec<_>>())?;
        let cotangent = outputs.first().map(|y| half(gpu, 11, &y.shape)).transpose()?;
        let given = gpu.clone();
        let gate = move || {
            let sample = find(group).and_then(|entry| (entry.samples)().into_iter().next_back());
            let worst = sample.map(|sample| {
                let arrays: Vec<Array> = sample.arrays(0);
                gradcheck_half(&given, &Arc::from(sample.operator), &arrays, halves)
            });
            let worst = worst.transpose()?.map_or(0.0, |report| report.worst);
            Ok(gate_of(Ok(worst), "float64 reference, on the operator's last sample; as a fraction of the tolerance".into()))
        };
        operator(own.clone(), inputs, cotangent, &[0, 1], gate)
    })
}

/// All of them; none where the adapter stores no f16.
pub fn workloads(capabilities: &Capabilities) -> Vec<Workload> {
    if !capabilities.f16 {
        return Vec::new();
    }
    let mut list = Vec::new();
    for size in [512, 2048, 509] {
        for (name, form) in [("nn", Form::Nn), ("nt", Form::Nt), ("tn", Form::Tn)] {
            let shapes = [vec![size, size], vec![size, size]];
            list.push(workload(format!("half_matmul_{name}_{size}"), "matmul", Arc::new(Matmul { form }), shapes, &[0, 1]));
        }
    }
    let padded = |stride: usize| Conv2dFuncOptions { stride: [stride; 2], padding: 1.into(), ..Default::default() };
    for (name, x, weight, options) in [
        ("3x3_64", [16, 28, 28, 64], [64, 3, 3, 64], padded(1)),
        ("3x3_128", [64, 56, 56, 128], [128, 3, 3, 128], padded(1)),
        ("3x3_stride_2", [16, 28, 28, 64], [128, 3, 3, 64], padded(2)),
        ("stem", [16, 64, 64, 3], [32, 3, 3, 3], padded(2)),
        ("1x1", [16, 28, 28, 64], [256, 1, 1, 64], Conv2dFuncOptions::default()),
    ] {
        let shapes = [x.to_vec(), weight.to_vec()];
        list.push(workload(format!("half_conv2d_{name}"), "conv2d", Arc::new(Conv2d::new(options)), shapes, &[0]));
    }
    list
}

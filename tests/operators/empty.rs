//! Batches of no rows: results and gradients of the inputs are empty, and the gradients of weights
//! are zeros. Kernels are built with bounds checks here and report an index that lies outside of its
//! binding, because drivers hide it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{options, wanted};
use wgrad::gpu::{Gpu, GpuOptions, Schedule};
use wgrad::ops::gradcheck::gradcheck;
use wgrad::ops::sample::Input;
use wgrad::ops::{Array, Operator, registry::registry};
use wgrad::tensor::{DType, Shape, Spec};

/// `array` without any row along axis 0.
fn emptied(array: &Array) -> Array {
    let mut sizes = array.shape.to_vec();
    sizes[0] = 0;
    Array { shape: Shape::from(sizes), data: Vec::new(), dtype: array.dtype }
}

/// What an operator's sample may be emptied to, where the operator accepts that: no rows where it
/// has rows, in its first input, and in all inputs that are as long as that.
fn empties(operator: &dyn Operator, arrays: &[Array]) -> Vec<Vec<Array>> {
    let bound = |data: &[f64], pick: fn(f64, f64) -> f64| data.iter().copied().reduce(pick).map(|v| v as i32);
    let spec = |a: &Array| {
        let range = if a.dtype == DType::I32 { bound(&a.data, f64::min).zip(bound(&a.data, f64::max)) } else { None };
        Spec { shape: a.shape.clone(), dtype: a.dtype, range }
    };
    let specs = |arrays: &[Array]| -> Vec<Spec> { arrays.iter().map(spec).collect() };
    let Ok(outputs) = operator.infer(&specs(arrays)) else { return Vec::new() };
    let length = |at: usize| arrays[at].shape.first().copied();
    let alike = (0..arrays.len()).filter(|at| length(*at) == length(0)).collect();
    let mut choices = vec![operator.rows(&specs(arrays), &outputs), vec![0], alike];
    choices.retain(|choice| !choice.is_empty() && choice.iter().all(|at| length(*at).is_some()));
    choices.dedup();
    let empty = |choice: Vec<usize>| -> Vec<Array> {
        arrays.iter().enumerate().map(|(at, array)| if choice.contains(&at) { emptied(array) } else { array.clone() }).collect()
    };
    choices.into_iter().map(empty).filter(|inputs| operator.infer(&specs(inputs)).is_ok()).collect()
}

#[test]
fn a_batch_of_no_rows_has_empty_results_and_gradients_of_zeros() {
    let (mut cases, mut names, mut failures) = (0, BTreeSet::new(), Vec::new());
    for schedule in Schedule::ALL {
        let device = || Gpu::with(GpuOptions { checked: true, schedule: Some(schedule), ..options() }).unwrap();
        let mut gpu = device();
        for entry in registry().iter().filter(|entry| wanted(entry.name)) {
            for (number, sample) in (entry.samples)().into_iter().enumerate() {
                if sample.inputs.iter().any(|input| matches!(input, Input::Same(_))) {
                    continue;
                }
                let arrays = sample.arrays(1);
                let operator: Arc<dyn Operator> = Arc::from(sample.operator);
                for inputs in empties(&*operator, &arrays) {
                    cases += 1;
                    names.insert(entry.name);
                    if let Err(error) = gradcheck(&gpu, &operator, &inputs).and_then(|_| gpu.synchronize()) {
                        let shapes: Vec<String> = inputs.iter().map(|a| a.shape.to_string()).collect();
                        failures.push(format!("{} sample {number} on {}, {schedule}: {error}", entry.name, shapes.join(", ")));
                        // An index outside of its binding is an error of the device from then on.
                        gpu = device();
                    }
                }
            }
        }
    }
    println!("{cases} empty batches of {} operators", names.len());
    assert!(failures.is_empty(), "{} are wrong:\n{}", failures.len(), failures.join("\n"));
}

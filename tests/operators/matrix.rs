//! The schedule of cooperative matrices, by operators: samples with f16 activations against
//! float64. An adapter without such matrices says so. Mesa's lavapipe has them from release 26 on.

use std::sync::Arc;

use crate::common::{options, wanted};
use wgrad::gpu::{Gpu, GpuOptions, Schedule, Tuning};
use wgrad::ops::gradcheck::gradcheck_half;
use wgrad::ops::registry::registry;
use wgrad::ops::{Array, Operator};
use wgrad::tensor::DType;

/// Devices that take matrices: by order, and by the chance of a tuning table. None where the
/// adapter has none, which is said.
fn gpus() -> Vec<(String, Gpu)> {
    match Gpu::with(GpuOptions { schedule: Some(Schedule::Matrix), ..options() }) {
        Ok(gpu) => {
            let tuned = [1].map(|seed| {
                let options = GpuOptions { tuning: Some(Arc::new(Tuning::random(seed))), schedule: None, ..options() };
                (format!("random table {seed}"), Gpu::with(options).unwrap())
            });
            [("matrix".to_string(), gpu)].into_iter().chain(tuned).collect()
        }
        Err(error) => {
            println!("NOT RUN: {error}");
            Vec::new()
        }
    }
}

/// What f16 holds of an array that stays f32, as the kernels read it.
fn exact(array: Array) -> Array {
    if array.dtype == DType::F32 { array.map(|v| half::f16::from_f64(v).to_f64()) } else { array }
}

/// Every sample of the operators that are products, its activations f16 and its weights f32 where
/// that may be: outputs and gradients.
#[test]
fn products_of_f16_by_matrices_are_right() {
    let mut failures = Vec::new();
    for (which, gpu) in gpus() {
        let mut count = 0;
        for (name, halves) in [
            ("conv2d", &[0][..]),
            ("conv_transpose2d", &[0]),
            ("matmul", &[0, 1]),
            ("matmul_nt", &[0, 1]),
            ("matmul_tn", &[0, 1]),
            ("linear", &[0]),
            ("scaled_dot_product_attention", &[0, 1, 2]),
        ] {
            let Some(entry) = registry().into_iter().find(|entry| entry.name == name && wanted(name)) else { continue };
            for (number, sample) in (entry.samples)().into_iter().enumerate() {
                let arrays: Vec<Array> = sample.arrays(1).into_iter().map(exact).collect();
                let operator: Arc<dyn Operator> = Arc::from(sample.operator);
                match gradcheck_half(&gpu, &operator, &arrays, halves) {
                    Ok(_) => count += 1,
                    Err(error) => failures.push(format!("{name} sample {number}, {which}: {error}")),
                }
            }
        }
        let kernels: std::collections::BTreeSet<String> =
            gpu.built_shaders().into_iter().map(|shader| shader.kernel).filter(|kernel| kernel.ends_with("_matrix")).collect();
        println!("{which}: {count} samples on {}, by {kernels:?}", gpu.capabilities().name);
        assert!(which != "matrix" || kernels.len() == 3 || std::env::var("WGRAD_ONLY").is_ok(), "only {kernels:?} were built");
    }
    assert!(failures.is_empty(), "{} are wrong:\n{}", failures.len(), failures.join("\n"));
}

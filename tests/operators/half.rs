//! f16 storage: kernels read and write halves, and compute in f32. So results differ from f32
//! storage by rounding alone.
//!
//! Each test runs an operator twice on the same values (exact in f16): stored as f16 and stored as
//! f32. What is stored as f16 is rounded once, by at most 2^-11 of its value; a gradient may pass
//! two rounded tensors on its way (the output that a mask or a product is recomputed from, and
//! itself). 2^-10 of the largest value covers both; what is accumulated in f32 and stored as f32
//! gets no more.

use std::sync::Arc;

use crate::common::{gpus, wanted};
use half::f16;
use wgrad::error::{Error, Result};
use wgrad::gpu::Gpu;
use wgrad::ops::gradcheck::gradcheck_half;
use wgrad::ops::normalization::batch_norm::BatchNormFuncOptions;
use wgrad::ops::registry::registry;
use wgrad::ops::{Activation, Operator};
use wgrad::tensor::{DType, Shape, Tensor};

const ROUNDING: f64 = 1.0 / 1024.0;

/// Values that f16 holds exactly, without order, in -2..2.
fn values(elements: usize, step: usize) -> Vec<f16> {
    (0..elements).map(|i| f16::from_f32(((i * step + 11) % 129) as f32 / 32.0 - 2.0)).collect()
}

fn stored(gpu: &Gpu, shape: impl Into<Shape>, step: usize, dtype: DType) -> Result<Tensor> {
    let shape = shape.into();
    let halves = values(shape.numel(), step);
    match dtype {
        DType::F16 => Tensor::from_slice(gpu, &halves, shape),
        _ => Tensor::from_slice(gpu, &halves.iter().map(|h| h.to_f32()).collect::<Vec<_>>(), shape),
    }
}

/// A tensor that is f32 in both runs.
fn vector(gpu: &Gpu, elements: usize, from: f32) -> Result<Tensor> {
    Tensor::from_slice(gpu, &(0..elements).map(|i| from + i as f32 / 64.0).collect::<Vec<_>>(), [elements])
}

/// Compares what `run` gives in both storages, on every schedule; without f16 the error that must
/// appear instead.
fn rounds_only(operator: &str, run: impl Fn(&Gpu, DType) -> Result<Vec<(&'static str, Tensor)>>) {
    for (schedule, gpu) in gpus() {
        if !gpu.capabilities().f16 {
            println!("{operator}: {} stores no f16 here, so its error is what is tested", gpu.capabilities().name);
            refused(&gpu, run(&gpu, DType::F16).map(drop));
            continue;
        }
        let (half, full) = (run(&gpu, DType::F16).unwrap(), run(&gpu, DType::F32).unwrap());
        assert_eq!(half[0].1.dtype(), DType::F16, "{operator} did not store its result as f16");
        for ((what, half), (_, full)) in half.iter().zip(&full) {
            assert_eq!(half.shape(), full.shape());
            let (half, full) = (half.to_f64().unwrap(), full.to_f64().unwrap());
            let largest = full.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(largest > 1e-2, "{operator}: {what} is nothing to compare");
            let off = half.iter().zip(&full).map(|(h, f)| (h - f).abs()).fold(0.0, f64::max);
            assert!(off <= ROUNDING * largest, "{operator}, schedule {schedule}: {what} is off by {off:.2e} of {largest:.2e}");
        }
    }
}

fn refused(gpu: &Gpu, result: Result<()>) {
    let error = result.expect_err("f16 was accepted by an adapter without it");
    let message = error.to_string();
    assert!(matches!(error, Error::Limit { .. }), "{error:?}");
    assert!(message.contains("f16") && message.contains("f32") && message.contains(&gpu.capabilities().name), "{message}");
}

#[test]
fn relu() {
    rounds_only("relu", |gpu, dtype| {
        let x = stored(gpu, [33, 65], 37, dtype)?.watch();
        let y = x.relu()?;
        let gradients = y.backward_from(&stored(gpu, [33, 65], 53, dtype)?)?;
        Ok(vec![("y", y), ("dx", gradients.get(&x).unwrap().clone())])
    });
}

#[test]
fn matmul() {
    // Sizes with and without vec4 rows, and a long sum, which must be accumulated in f32.
    for [m, k, n] in [[33, 65, 7], [36, 40, 68], [5, 1500, 8]] {
        rounds_only("matmul", |gpu, dtype| {
            let (a, b) = (stored(gpu, [m, k], 37, dtype)?.watch(), stored(gpu, [k, n], 53, dtype)?.watch());
            let y = a.matmul(&b)?;
            let gradients = y.backward_from(&stored(gpu, [m, n], 29, dtype)?)?;
            Ok(vec![("y", y), ("da", gradients.get(&a).unwrap().clone()), ("db", gradients.get(&b).unwrap().clone())])
        });
    }
}

#[test]
fn batch_norm() {
    for training in [true, false] {
        for (activation, shape) in [(Activation::None, [33, 7]), (Activation::Relu, [33, 72]), (Activation::Silu, [130, 5])] {
            rounds_only(if training { "batch_norm_train" } else { "batch_norm_eval" }, |gpu, dtype| {
                let c = shape[1];
                let (x, residual) = (stored(gpu, shape, 37, dtype)?.watch(), stored(gpu, shape, 53, dtype)?.watch());
                let (weight, bias) = (vector(gpu, c, 0.5)?.watch(), vector(gpu, c, -0.3)?.watch());
                let (mean, var) = (vector(gpu, c, 0.1)?, vector(gpu, c, 1.0)?);
                let options = BatchNormFuncOptions { activation, training, ..Default::default() };
                let y = x.batch_norm(&weight, &bias, &mean, &var, &options, Some(&residual))?;
                let gradients = y.backward_from(&stored(gpu, shape, 29, dtype)?)?;
                let of = |t: &Tensor| gradients.get(t).unwrap().clone();
                let all = [("dx", of(&x)), ("dresidual", of(&residual)), ("dweight", of(&weight)), ("dbias", of(&bias))];
                Ok([("y", y)].into_iter().chain(all).chain([("running_mean", mean), ("running_var", var)]).collect())
            });
        }
    }
}

/// Parameters and statistics are f32 whatever x is stored as, and so are their gradients.
#[test]
fn parameters_and_their_gradients_stay_f32() {
    for (_, gpu) in gpus() {
        if !gpu.capabilities().f16 {
            println!("{} stores no f16 here, so its error is what is tested", gpu.capabilities().name);
            refused(&gpu, stored(&gpu, [9, 5], 37, DType::F16).map(drop));
            continue;
        }
        let x = stored(&gpu, [9, 5], 37, DType::F16).unwrap().watch();
        let (weight, bias) = (vector(&gpu, 5, 0.5).unwrap().watch(), vector(&gpu, 5, 0.0).unwrap().watch());
        let options = BatchNormFuncOptions::default();
        let y = x.batch_norm(&weight, &bias, &vector(&gpu, 5, 0.0).unwrap(), &vector(&gpu, 5, 1.0).unwrap(), &options, None).unwrap();
        let gradients = y.backward_from(&stored(&gpu, [9, 5], 29, DType::F16).unwrap()).unwrap();
        assert_eq!(gradients.get(&x).unwrap().dtype(), DType::F16);
        assert_eq!(gradients.get(&weight).unwrap().dtype(), DType::F32);
        let error = x.batch_norm(&weight.cast(DType::F16).unwrap(), &bias, &bias, &bias, &options, None).unwrap_err();
        assert!(error.to_string().contains("weight must be f32, found f16"), "{error}");
    }
}

/// An adapter without f16 (WebGPU's default limits are one) says so wherever such a tensor is made.
#[test]
fn without_f16_a_typed_error_says_so() {
    let gpu = Gpu::with(wgrad::gpu::GpuOptions { webgpu_limits: true, ..crate::common::options() }).unwrap();
    assert!(!gpu.capabilities().f16);
    refused(&gpu, Tensor::from_slice(&gpu, &values(4, 3), [4]).map(drop));
    refused(&gpu, Tensor::zeros(&gpu, [4], DType::F16).map(drop));
    refused(&gpu, Tensor::empty(&gpu, [4], DType::F16).map(drop));
    refused(&gpu, Tensor::full(&gpu, [4], 1.0, DType::F32).unwrap().cast(DType::F16).map(drop));
}

/// A loss that is stored as f16 has a gradient that is.
#[test]
fn the_gradient_of_a_half_loss_begins_as_half() {
    rounds_only("backward of a loss", |gpu, dtype| {
        let x = stored(gpu, [5], 7, dtype)?.watch();
        let loss = x.square()?.sum(&[0], false)?;
        assert_eq!(loss.dtype(), dtype);
        let gradients = loss.backward()?;
        Ok(vec![("dx", gradients.get(&x).cloned().unwrap()), ("loss", loss)])
    });
}

/// Every operator, with one of its float inputs stored as f16 and the others as f32: it is right,
/// backward too, or refuses the types in words.
#[test]
fn mixed_types_are_right_or_refused() {
    let (mut refusals, mut right, mut failures) = (0, 0, Vec::new());
    for (schedule, gpu) in gpus().into_iter().filter(|(_, gpu)| gpu.capabilities().f16) {
        for entry in registry().iter().filter(|entry| wanted(entry.name)) {
            for (number, sample) in (entry.samples)().into_iter().enumerate().take(3) {
                let arrays = sample.arrays(1);
                let operator: Arc<dyn Operator> = Arc::from(sample.operator);
                let floats: Vec<usize> = (0..arrays.len()).filter(|at| arrays[*at].dtype != DType::I32).collect();
                for at in floats.iter().copied().filter(|_| floats.len() > 1) {
                    let what = format!("{} sample {number}, {schedule}, input {at} as f16", entry.name);
                    match gradcheck_half(&gpu, &operator, &arrays, &[at]) {
                        Ok(_) => right += 1,
                        Err(Error::Dtype { .. }) => refusals += 1,
                        Err(error) => failures.push(format!("{what}: {error}")),
                    }
                }
            }
        }
    }
    println!("{refusals} refused, {right} right");
    assert!(failures.is_empty(), "{} are wrong:\n{}", failures.len(), failures.join("\n"));
}

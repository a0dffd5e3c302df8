//! The registry's own promises: samples against the float64 reference (forward and gradients), bad
//! inputs, repeated bits.

use std::sync::Arc;

use crate::common::{gpu, on_each_schedule, wanted};
use wgrad::gpu::{Gpu, GpuOptions, Schedule, Tuning};
use wgrad::nn::{Mode, Module, Parameters, layers};
use wgrad::ops::convolution::conv2d::{Conv2d, Conv2dFuncOptions};
use wgrad::ops::normalization::batch_norm::{BatchNorm, BatchNormFuncOptions};
use wgrad::ops::{Operator, apply, apply_shared, gradcheck::gradcheck_sample, registry::registry};
use wgrad::tensor::Tensor;

#[test]
fn samples_match_the_reference_on_every_schedule() {
    let failures = on_each_schedule(|schedule, gpu| {
        let (mut count, mut failures) = (0, Vec::new());
        for entry in registry().iter().filter(|e| wanted(e.name)) {
            let samples = (entry.samples)();
            assert!(!samples.is_empty(), "{} has no samples", entry.name);
            for (index, sample) in samples.into_iter().enumerate() {
                count += 1;
                if let Err(error) = gradcheck_sample(gpu, sample, 1) {
                    failures.push(format!("{} sample {index} ({schedule}): {error}", entry.name));
                }
            }
        }
        println!("{count} samples on schedule {schedule}");
        failures
    });
    assert!(failures.is_empty(), "{} samples failed:\n{}", failures.len(), failures.join("\n"));
}

/// The kernels that are there to be read are right, too.
#[test]
fn steps_of_the_ladder_match_the_reference() {
    let failures = on_each_schedule(|_, gpu| {
        let samples = wgrad::bench::ladder::samples();
        samples.into_iter().filter_map(|sample| gradcheck_sample(gpu, sample, 1).err().map(|e| e.to_string())).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn bad_inputs_are_refused_with_the_right_words() {
    let gpu = gpu();
    let mut failures = Vec::new();
    for entry in registry().iter().filter(|e| wanted(e.name)) {
        for (index, bad) in (entry.bad)().into_iter().enumerate() {
            let sample = wgrad::ops::sample::Sample { operator: bad.operator, inputs: bad.inputs };
            let tensors: Vec<_> = sample.arrays(1).iter().map(|a| a.upload(&gpu).unwrap()).collect();
            let operator: Arc<dyn Operator> = Arc::from(sample.operator);
            match apply_shared(operator, &tensors.iter().collect::<Vec<_>>()) {
                Ok(_) => failures.push(format!("{} bad input {index}: was accepted", entry.name)),
                Err(error) if !error.to_string().contains(bad.expect) => {
                    failures.push(format!("{} bad input {index}: \"{error}\" lacks \"{}\"", entry.name, bad.expect))
                }
                Err(_) => {}
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A convolution that brings statistics along and a batch norm that takes them do what the two do
/// by themselves, on large tiles, too.
#[test]
fn statistics_of_a_convolution_are_those_of_its_result() {
    // 1794 pixels and 132 channels: tiles have edges, and the last slab has two pixels.
    let images = [6, 23, 13];
    let mut tiles = Tuning::default();
    (0..=32).for_each(|bucket| ["convolution/dense.tile", "linear/gemm.side"].iter().for_each(|knob| tiles.set(knob, bucket, 128)));
    for (schedule, tuning) in [(Schedule::Software, None), (Schedule::Gpu, None), (Schedule::Gpu, Some(Arc::new(tiles)))] {
        // Large tiles take long to compile: an edge of each kind is enough of them.
        let shapes = [(1, 7, 131), (3, 4, 132), (1, 20, 132), (3, 5, 130)];
        let shapes = if tuning.is_some() { &shapes[..2] } else { &shapes };
        let gpu = Gpu::with(GpuOptions { schedule: Some(schedule), tuning, ..crate::common::options() }).unwrap();
        let fill = |shape: &[usize], seed: usize, shift: f32| {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = (0..n).map(|i| ((i * 7919 + seed * 31) % 1013) as f32 / 500.0 - 1.0 + shift).collect();
            Tensor::from_slice(&gpu, &values, shape).unwrap()
        };
        for &(kernel, inputs, outputs) in shapes {
            let run = |together: bool| -> Vec<Vec<f64>> {
                let [n, h, w] = images;
                let x = fill(&[n, h, w, inputs], 1, 3.0).watch();
                let weight = fill(&[outputs, kernel, kernel, inputs], 2, 0.5).watch();
                let (scale, shift) = (fill(&[outputs], 3, 1.5).watch(), fill(&[outputs], 4, 0.0).watch());
                let (mean, var) = (fill(&[outputs], 5, 0.0), fill(&[outputs], 6, 2.0));
                let (conv, norm) = (Conv2d::new(Conv2dFuncOptions::default()), BatchNorm::new(BatchNormFuncOptions::default()));
                let (conv, norm) = if together { (conv.with_statistics(), norm.with_statistics()) } else { (conv, norm) };
                let made = apply(conv, &[&x, &weight]).unwrap();
                let constants = [&made[0], &scale, &shift, &mean, &var];
                let y = apply(norm, &constants.into_iter().chain(&made[1..]).collect::<Vec<_>>()).unwrap().remove(0);
                let gradients = y.backward_from(&fill(y.shape(), 7, 0.0)).unwrap();
                let gradients = [&x, &weight, &scale, &shift].map(|t| gradients.get(t).unwrap().to_f64().unwrap());
                [&y, &mean, &var].map(|t| t.to_f64().unwrap()).into_iter().chain(gradients).collect()
            };
            for (what, (found, expected)) in run(true).iter().zip(&run(false)).enumerate() {
                let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let off = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max);
                assert!(off <= 2e-6 * largest, "{schedule}, kernel {kernel}, {outputs} channels, result {what}: off by {off} of {largest}");
            }
        }
    }
}

/// The layers ask for such statistics where maps are large, on GPUs, and in training alone.
#[test]
fn layers_take_statistics_from_the_convolution_on_gpus() {
    for (schedule, side, mode, expected) in [
        (Schedule::Gpu, 64, Mode::Train, true),
        (Schedule::Gpu, 64, Mode::Eval, false),
        (Schedule::Gpu, 8, Mode::Train, false),
        (Schedule::Software, 64, Mode::Train, false),
    ] {
        let gpu = Gpu::with(GpuOptions { schedule: Some(schedule), ..crate::common::options() }).unwrap();
        let params = Parameters::new(&gpu, 1);
        let conv = layers::Conv2d::new(&params, "conv", 3, 16, layers::Conv2dOptions::default()).unwrap();
        let norm = layers::BatchNorm::new(&params, "norm", 16, layers::BatchNormOptions::default()).unwrap();
        let values: Vec<f32> = (0..side * side * 3).map(|i| ((i * 7919) % 1013) as f32 / 500.0 - 1.0).collect();
        let x = Tensor::from_slice(&gpu, &values, [1, side, side, 3]).unwrap();
        let y = norm.forward_behind(&conv, &x, None, mode).unwrap().to_vec::<f32>().unwrap();
        let found =
            gpu.built_shaders().iter().any(|shader| shader.native.contains("store4_partials") && shader.kernel.contains("conv2d_gpu"));
        assert_eq!(found, expected, "{schedule}, side {side}, {mode:?}");
        let twin = norm.forward(&conv.forward(&x, mode).unwrap(), mode).unwrap().to_vec::<f32>().unwrap();
        let off = y.iter().zip(&twin).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 1e-5, "{schedule}, side {side}, {mode:?}: off by {off}");
    }
}

//! Memory that is given twice, or belongs to another device: refused where it is given, by name, so
//! that nothing reaches the driver.

use std::sync::Arc;

use crate::common::{gpu, options};
use wgrad::error::{Error, Result};
use wgrad::gpu::{Gpu, Kernel, Launch};
use wgrad::nn::{Init, Kind, Parameters};
use wgrad::ops::normalization::batch_norm::BatchNormFuncOptions;
use wgrad::ops::{Operator, apply_shared, registry::registry};
use wgrad::tensor::{DType, Tensor};

/// Refused with all of these words, and the device works on.
fn refused<T>(gpu: &Gpu, result: Result<T>, words: &[&str]) {
    let Err(error) = result else { panic!("{words:?} was not refused") };
    let message = error.to_string();
    assert!(matches!(error, Error::Argument { .. }) && words.iter().all(|w| message.contains(w)), "{words:?}: {message}");
    gpu.synchronize().unwrap();
}

fn kernel(text: &str) -> Kernel {
    Kernel::new(
        "twice",
        format!("{text}\n@compute @workgroup_size(4) fn run(@builtin(local_invocation_index) i: u32) {{ store_y(i, 2.0); }}"),
    )
}

#[test]
fn a_launch_names_the_bindings_that_share_memory() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [64], 1.0, DType::F32).unwrap();
    let rows = x.reshape(&[8, 8]).unwrap();
    let one = kernel("{{ input(0, \"x\") }} {{ output(1, \"y\") }}");
    let two = kernel("{{ input(0, \"a\") }} {{ input(1, \"b\") }} {{ output(2, \"y\") }} {{ inout(3, \"z\") }}");
    let y = x.neg().unwrap();
    refused(&gpu, Launch::new(&gpu, &one, "run").read(&x).write(&x).groups(1), &["twice", "x (only read)", "y (written)", "Tensor::copy"]);
    refused(&gpu, Launch::new(&gpu, &one, "run").read(&rows).write(&x).grid([1, 1, 1]), &["x (only read) and y (written)"]);
    refused(&gpu, Launch::new(&gpu, &two, "run").read(&x).read(&x).write(&y).write(&y).invocations(4), &["y (written) and z (written)"]);
    refused(&gpu, Launch::new(&gpu, &two, "run").read(&y).read(&x).write(&x.copy().unwrap()).write(&x).groups(1), &["b (only read) and z"]);
    // A captured program and a dry device refuse it, too.
    refused(&gpu, gpu.capture(|| Launch::new(&gpu, &one, "run").read(&x).write(&x).groups(1)), &["x (only read)"]);
    let dry = gpu.dry().unwrap();
    let d = Tensor::full(&dry, [64], 1.0, DType::F32).unwrap();
    assert!(Launch::new(&dry, &one, "run").read(&d).write(&d).groups(1).unwrap_err().to_string().contains("the same memory"));
    // Reading twice and writing in place are fine.
    Launch::new(&gpu, &two, "run").read(&x).read(&x).write(&y).write(&x.copy().unwrap()).groups(1).unwrap();
    Launch::new(&gpu, &kernel("{{ inout(0, \"y\") }}"), "run").write(&x).groups(1).unwrap();
    assert_eq!(x.to_vec::<f32>().unwrap()[..5], [2.0, 2.0, 2.0, 2.0, 1.0]);
}

#[test]
fn tensors_of_another_device_are_refused_by_name() {
    let (gpu, other) = (gpu(), gpu());
    let (x, y) = (Tensor::full(&gpu, [4], 1.0, DType::F32).unwrap(), Tensor::full(&other, [4], 1.0, DType::F32).unwrap());
    let one = kernel("{{ input(0, \"x\") }} {{ output(1, \"y\") }}");
    refused(&gpu, Launch::new(&gpu, &one, "run").read(&x).write(&y).groups(1), &["twice", "y lives on another device"]);
    refused(&gpu, Launch::new(&gpu, &one, "run").read(&y).write(&x).groups(1), &["x lives on another device"]);
    refused(&gpu, x.add(&y), &["different devices"]);
    refused(&gpu, x.copy_from(&y), &["different devices"]);
    let dry = Tensor::full(&gpu.dry().unwrap(), [4], 1.0, DType::F32).unwrap();
    refused(&gpu, Launch::new(&gpu, &one, "run").read(&dry).write(&x).groups(1), &["x lives on another device"]);
    refused(&gpu, gpu.read_later(&wgrad::gpu::Bind::binding(&y)), &["another device"]);
}

#[test]
fn a_buffer_smaller_than_its_declaration_is_refused_by_name() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [4], 1.0, DType::F32).unwrap();
    for (ty, bytes) in [("array<vec4<f32>, 2>", "32 bytes"), ("array<f32, 1000>", "4000 bytes"), ("array<mat4x4f>", "64 bytes")] {
        let text = format!(
            "@group(0) @binding(0) var<storage, read_write> much: {ty};
             @compute @workgroup_size(1) fn run() {{ let a = &much[1]; }}"
        );
        let error = Launch::new(&gpu, &Kernel::new("large", text), "run").write(&x).groups(1).unwrap_err().to_string();
        assert!(error.contains("large") && error.contains("much") && error.contains(bytes), "{error}");
    }
    assert_eq!(x.to_vec::<f32>().unwrap(), [1.0; 4]);
}

#[test]
fn public_calls_that_change_an_input_refuse_it_a_second_time() {
    let gpu = gpu();
    let q = Tensor::full(&gpu, [4, 3], 1.0, DType::F32).unwrap();
    let cursor = Tensor::from_slice(&gpu, &[0], [1]).unwrap();
    refused(&gpu, q.queue_write(&q, 0), &["queue_write", "queue is changed in place", "rows"]);
    refused(&gpu, q.queue_write(&q, 1), &["queue_write", "queue is changed in place"]);
    refused(&gpu, q.queue_write(&q.reshape(&[4, 3]).unwrap(), 1), &["queue_write", "queue is changed in place"]);
    refused(&gpu, q.queue_write_next(&q, &cursor), &["queue_write", "queue is changed in place"]);
    let c = Tensor::full(&gpu, [3], 1.0, DType::F32).unwrap();
    refused(&gpu, c.center_update(&c.reshape(&[1, 3]).unwrap(), 0.9), &["center_update", "center is changed in place", "teacher"]);
    let x = Tensor::full(&gpu, [2, 2, 2, 3], 1.0, DType::F32).unwrap();
    let (w, m, v) = (c, Tensor::zeros(&gpu, [3], DType::F32).unwrap(), Tensor::full(&gpu, [3], 1.0, DType::F32).unwrap());
    let norm = |mean: &Tensor, var: &Tensor, training: bool| {
        x.batch_norm(&w, &w, mean, var, &BatchNormFuncOptions { training, ..Default::default() }, None)
    };
    refused(&gpu, norm(&m, &m, true), &["batch_norm", "running_mean is changed in place", "running_var"]);
    refused(&gpu, norm(&w, &v, true), &["batch_norm", "running_mean is changed in place", "weight"]);
    refused(&gpu, norm(&m, &w, true), &["batch_norm", "running_var is changed in place", "weight"]);
    // What only reads may read twice.
    norm(&m, &m, false).unwrap();
    norm(&m, &v, true).unwrap();
    assert_eq!(q.to_vec::<f32>().unwrap(), [1.0; 12]);
}

/// Each input that an operator changes, given as each other input of its kind.
#[test]
fn every_operator_that_changes_an_input_refuses_it_a_second_time() {
    let gpu = gpu();
    let mut pairs = Vec::new();
    for entry in registry() {
        for sample in (entry.samples)() {
            let arrays = sample.arrays(0);
            let operator: Arc<dyn Operator> = Arc::from(sample.operator);
            let changed = operator.mutates();
            if changed.is_empty() {
                continue;
            }
            let inputs: Vec<Tensor> = arrays.iter().map(|a| a.upload(&gpu).unwrap()).collect();
            for (changed, other) in changed.iter().flat_map(|c| (0..inputs.len()).map(|i| (*c, i))).filter(|(c, i)| c != i) {
                if inputs[other].spec() != inputs[changed].spec() || inputs[other].numel() == 0 {
                    continue;
                }
                let mut given: Vec<&Tensor> = inputs.iter().collect();
                given[other] = given[changed];
                refused(&gpu, apply_shared(operator.clone(), &given), &[entry.name, "changed in place"]);
                pairs.push((entry.name, changed, other));
            }
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    for name in ["batch_norm_train", "sgd_update", "adam_update", "lars_update", "rmsprop_update", "ema_update"] {
        assert!(pairs.iter().any(|(n, ..)| *n == name), "{name} is not among {pairs:?}");
    }
}

#[test]
fn a_copy_of_a_tensor_into_itself_changes_nothing() {
    let gpu = gpu();
    let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0], [2]).unwrap();
    let version = x.version();
    x.copy_from(&x).unwrap();
    x.copy_from(&x.reshape(&[2]).unwrap()).unwrap();
    assert_eq!((x.to_vec::<f32>().unwrap(), x.version()), (vec![1.0, 2.0], version));
    // Two parameters lie in one buffer, which no device copies within.
    let params = Parameters::new(&gpu, 0);
    let parameter = |name: &str, value: f32| params.parameter(name, [3], Kind::Other, Init::Constant(value)).unwrap().detach().unwrap();
    let (a, b) = (parameter("a", 1.0), parameter("b", 2.0));
    a.copy_from(&b).unwrap();
    assert_eq!((a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap()), (vec![2.0; 3], vec![2.0; 3]));
}

/// One thread launches what is wrong, again and again, while others compute.
#[test]
fn a_bad_launch_of_one_thread_harms_no_other() {
    let gpu = Gpu::with(options()).unwrap();
    let one = kernel("{{ input(0, \"x\") }} {{ output(1, \"y\") }}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let x = Tensor::full(&gpu, [64], 1.0, DType::F32).unwrap();
            (0..200).for_each(|_| assert!(Launch::new(&gpu, &one, "run").read(&x).write(&x).groups(1).is_err()));
        });
        scope.spawn(|| {
            for round in 0..100 {
                let y = Tensor::from_slice(&gpu, &[round as f32; 16], [16]).unwrap().add_scalar(1.0).unwrap();
                assert_eq!(y.to_vec::<f32>().unwrap(), [round as f32 + 1.0; 16]);
            }
        });
    });
}

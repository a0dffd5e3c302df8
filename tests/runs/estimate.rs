//! Memory known beforehand: what a dry device counts is what the same work needs on a device that
//! does it.

use crate::common::options;
use wgrad::capture::Capture;
use wgrad::error::{Error, Result};
use wgrad::gpu::{Gpu, GpuOptions, MemoryUse, Schedule};
use wgrad::models::{ModelOptions, model, model_names};
use wgrad::nn::{Init, Kind, Mode, Module, Parameters};
use wgrad::optim::{OptimizerOptions, Rule};
use wgrad::tensor::{DType, Spec, Tensor};
use wgrad::train::estimate::{inference_memory, training_memory};

const IMAGES: [usize; 4] = [4, 64, 64, 3];
const CLASSES: usize = 10;

fn device(schedule: Schedule) -> Gpu {
    Gpu::with(GpuOptions { schedule: Some(schedule), ..options() }).unwrap()
}

fn mobilenet(params: &Parameters) -> Result<impl Module + use<>> {
    model("mobilenetv1_025", ModelOptions::default())?.classifier(params, CLASSES)
}

/// Training steps as a user writes them, as they are and then captured, and what the memory was
/// after each.
fn train(gpu: &Gpu, optimizer: &str) -> Vec<MemoryUse> {
    let params = Parameters::new(gpu, 0);
    let model = mobilenet(&params).unwrap();
    let mut optimizer = Rule::named(optimizer).unwrap().build(&params, OptimizerOptions::default()).unwrap();
    let labels = Tensor::from_slice(gpu, &[0i32, 1, 2, 9], [4]).unwrap();
    let batch = vec![Tensor::full(gpu, IMAGES, 0.5, DType::F32).unwrap(), labels];
    let mut step = Capture::new(gpu);
    let run = |_| {
        let one = |batch: &Vec<Tensor>| {
            let loss = model.forward(&batch[0], Mode::Train)?.cross_entropy(&batch[1], 0.0)?;
            optimizer.step_with(&loss.backward()?, 0.1.into())?;
            Ok(loss)
        };
        let loss = step.run(&batch, one).unwrap();
        if !gpu.is_dry() {
            assert!(loss.item().unwrap().is_finite());
        }
        gpu.memory()
    };
    (0..3).map(run).collect()
}

#[test]
fn the_prediction_is_what_training_needs() {
    for schedule in Schedule::ALL {
        let gpu = device(schedule);
        for optimizer in ["sgd", "adamw"] {
            let predicted = training_memory(&gpu, mobilenet, Spec::f32(IMAGES), optimizer).unwrap();
            let real = device(schedule);
            let found = train(&real, optimizer);
            let last = found[2];
            assert_eq!((predicted.live, predicted.held), (last.peak, last.held), "{schedule}, {optimizer}: {predicted:?}, {found:?}");
            assert_eq!(found, train(&gpu.dry().unwrap(), optimizer), "{schedule}, {optimizer}");
            assert!(predicted.parameters < predicted.live && predicted.optimizer < predicted.live && predicted.live <= predicted.held);
        }
        assert_eq!(gpu.counters().dispatches, 0, "predicting ran something");
    }
}

#[test]
fn inference_needs_what_was_predicted() {
    let gpu = device(Schedule::Software);
    let predicted = inference_memory(&gpu, mobilenet, Spec::f32(IMAGES)).unwrap();
    let params = Parameters::new(&gpu, 0);
    let model = mobilenet(&params).unwrap();
    params.compact().unwrap();
    let images = Tensor::full(&gpu, IMAGES, 0.5, DType::F32).unwrap();
    for _ in 0..2 {
        model.forward(&images, Mode::Eval).unwrap().to_vec::<f32>().unwrap();
    }
    assert_eq!((predicted.live, predicted.held), (gpu.memory().peak, gpu.memory().held));
}

/// Hundreds of gigabytes, on whatever this runs on.
#[test]
fn a_dry_device_only_counts() {
    let gpu = device(Schedule::Gpu).dry().unwrap();
    let a = Tensor::empty(&gpu, [4096, 4096], DType::F32).unwrap().watch();
    let mut y = a.clone();
    for _ in 0..1000 {
        y = y.matmul(&a).unwrap().relu().unwrap();
    }
    y.sum(&[], false).unwrap().backward().unwrap();
    assert!(gpu.memory().peak > 1000 * (64 << 20), "{:?}", gpu.memory());
    gpu.synchronize().unwrap();
    let counters = gpu.counters();
    assert_eq!((counters.dispatches, counters.submits, counters.uploaded_bytes, gpu.built_shaders().len()), (0, 0, 0, 0));
    let error = y.to_vec::<f32>().unwrap_err();
    assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains("this device is dry"), "{error}");
    assert!(pollster::block_on(y.read_later().unwrap()).is_err(), "a value came from nowhere");
    let (_, program) = gpu.capture(|| y.relu()).unwrap();
    program.replay().unwrap();
    assert!(program.time(1).is_err() && program.profile().is_err(), "nothing was run, so it took no time");
    assert_eq!(program.liveness().outside, 64 << 20);
}

/// What an adapter refuses is refused beforehand.
#[test]
fn a_dry_device_has_the_limits_of_its_adapter() {
    let gpu = Gpu::with(GpuOptions { webgpu_limits: true, ..options() }).unwrap().dry().unwrap();
    assert!(Tensor::empty(&gpu, [60 << 20], DType::F32).is_ok());
    let error = Tensor::empty(&gpu, [64 << 20, 2], DType::F32).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
}

/// An optimizer gives back what is kept for parameters to come, and has its state before the first
/// step; values stay, also those of an optimizer that was made before more parameters were.
#[test]
fn parameters_are_compact_once_there_is_an_optimizer() {
    let gpu = Gpu::with(GpuOptions { poison: false, ..options() }).unwrap();
    let params = Parameters::new(&gpu, 0);
    let make = |name: &str, n: usize| params.parameter(name, [n], Kind::Other, Init::Normal { std: 1.0 }).unwrap();
    let values = || params.all().iter().flat_map(|p| p.detach().unwrap().to_vec::<f32>().unwrap()).collect::<Vec<_>>();
    make("a", 40_000);
    make("b", 30_000);
    let (before, loose) = (values(), gpu.memory());
    let mut sgd = Rule::named("sgd").unwrap().build(&params, OptimizerOptions::default()).unwrap();
    let states = sgd.state().unwrap();
    states[0].1.write(&vec![2.0f32; states[0].1.numel()]).unwrap();
    assert_eq!(before, values());
    // 70,000 values, gradients and momenta where there was room for 131,072 values; tables, and
    // class sizes, are less than a tenth.
    assert!(gpu.memory().in_use < 3 * 4 * 77_000 && loose.held > 4 * (131_072 + 40_000), "{loose:?}, {:?}", gpu.memory());
    make("c", 70_000);
    assert_eq!(sgd.state().unwrap()[0].1.numel(), 262_144);
    let more = values();
    params.compact().unwrap();
    assert_eq!(more, values());
    let state = sgd.state().unwrap()[0].1.to_vec::<f32>().unwrap();
    assert!(state.len() < 140_300 && state.iter().enumerate().all(|(i, v)| *v == if i < states[0].1.numel() { 2.0 } else { 0.0 }));
}

fn wgrad(arguments: &[&str]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_wgrad")).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = wgrad(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn models_are_listed_with_what_they_cost() {
    let list = json(&["models", "--json"]);
    let names: Vec<_> = list.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, model_names().collect::<Vec<_>>());
    let b0 = &list[names.iter().position(|n| *n == "efficientnet_b0").unwrap()];
    // Table 2 of Tan and Le 2019: 5.3 M and 0.39 B.
    assert_eq!((b0["parameters"].as_u64(), b0["resolution"].as_u64()), (Some(5_288_548), Some(224)));
    assert_eq!(b0["multiply_adds"].as_u64().unwrap() / 1_000_000, 385);
    let table = String::from_utf8(wgrad(&["models"]).stdout).unwrap();
    assert!(table.lines().any(|l| l.starts_with("efficientnet_b0 ") && l.contains("5.29 M") && l.contains("0.39 G")), "{table}");
}

#[test]
fn a_model_is_shown_layer_by_layer() {
    let options = ["models", "mobilenetv1_025", "--resolution", "64", "--batch", "4", "--classes", "10", "--optimizer", "adamw"];
    let shown = json(&[&options[..], &["--json"]].concat());
    let layers = shown["layers"].as_array().unwrap();
    for key in ["parameters", "multiply_adds", "activation_bytes"] {
        let sum: u64 = layers.iter().map(|l| l[key].as_u64().unwrap()).sum();
        assert_eq!(shown[key].as_u64(), Some(sum), "{key}");
    }
    let gpu = Gpu::new().unwrap();
    let predicted = training_memory(&gpu, mobilenet, Spec::f32(IMAGES), "adamw").unwrap();
    assert_eq!(shown["training"]["device_memory_bytes"].as_u64(), Some(predicted.held));
    let text = String::from_utf8(wgrad(&options).stdout).unwrap();
    assert!(text.contains("blocks.0.0.conv_dw") && text.contains("batches of 4"), "{text}");
    let wrong = wgrad(&["models", "efficientnet_b9"]);
    assert!(wrong.status.code() == Some(1) && String::from_utf8_lossy(&wrong.stderr).contains("efficientnet_b7"));
}

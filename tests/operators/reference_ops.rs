//! Every case of `tests/reference/ops` (or of the folder that `WGRAD_REFERENCE` names) on both
//! schedules and with tuning tables of random choices: forward and gradients against PyTorch's
//! float64 values.

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::{Case, gpus, is_float, reference_files, relative_error, to_nhwc, tuned_gpus};
use wgrad::gpu::Gpu;
use wgrad::io::layout::Layout;
use wgrad::nn::{Init, Kind, Mode, Parameters};
use wgrad::ops::gradcheck::{ROUNDING, compare};
use wgrad::ops::{Array, Operator, Tolerance, apply_shared, registry};
use wgrad::optim::{Adam, AdamOptions, AdamW, Lars, LarsOptions, Optimizer, OptimizerOptions, RmsProp, RmsPropOptions, Sgd, SgdOptions};
use wgrad::tensor::Tensor;

/// Operators whose 4-D tensors called `x` and `y` are images.
const IMAGES: [&str; 10] = [
    "conv2d",
    "depthwise_conv2d",
    "conv_transpose2d",
    "max_pool2d",
    "avg_pool2d",
    "global_avg_pool2d",
    "upsample2d",
    "batch_norm_train",
    "batch_norm_eval",
    "group_norm",
];

/// From the layout of the files to the engine's, for one tensor of one operator.
fn engine_layout(operator: &str, tensor: &str, array: &Array) -> Array {
    let layout = match operator {
        "conv2d" | "conv_transpose2d" if tensor == "weight" => Layout::Convolution,
        "depthwise_conv2d" if tensor == "weight" => Layout::Depthwise,
        _ if IMAGES.contains(&operator) && matches!(tensor, "x" | "y") && array.shape.rank() == 4 => return to_nhwc(array),
        _ => Layout::Plain,
    };
    let data = layout.to_engine(&array.data, &array.shape).unwrap();
    Array { shape: layout.engine_shape(&array.shape).unwrap(), data, dtype: array.dtype }
}

/// PyTorch's error in float32 times this is the most that ours may be, in a case about precision.
const TIMES_FLOAT32: f64 = 3.0;
/// An ulp of 1: errors below it are none.
const ULP: f64 = 1.2e-7;

/// Compares an output or a gradient with the one expected and, in a case about precision, its error
/// with PyTorch's in float32.
fn judge(case: &Case, name: &str, found: &Array, expected: &Array, floor: f64, tolerance: Tolerance) -> Result<(), String> {
    compare(name, found, expected, floor, tolerance).map_err(|e| e.to_string())?;
    let Some(theirs) = case.float32.get(name) else { return Ok(()) };
    let ours = relative_error(found, expected);
    if ours <= TIMES_FLOAT32 * theirs.max(ULP) {
        return Ok(());
    }
    Err(format!("{name} is off by {ours:.2e} of its size, PyTorch's float32 by {theirs:.2e}"))
}

/// What rounding may leave of terms that cancel: in the outputs, or in the gradient of an input.
fn rounding(case: &Case, operator: &dyn Operator, names: &[&str], gradient_of: Option<&str>) -> f64 {
    let given = case.group("in.");
    let inputs: Vec<Array> = names.iter().filter_map(|n| given.get(n).map(|array| engine_layout(&case.operator, n, array))).collect();
    let cotangent = || case.group("cot.").values().map(|c| c.max_abs()).fold(0.0, f64::max);
    match gradient_of {
        None => ROUNDING * operator.summed(&inputs, None),
        Some(name) => ROUNDING * operator.summed(&inputs, names.iter().position(|n| *n == name)) * cotangent(),
    }
}

/// An optimizer's case: gradients are given, so they come from the loss sum(p * g).
fn check_optimizer(gpu: &Gpu, case: &Case, name: &str) -> Result<(), String> {
    let a = &case.attributes;
    let number = |key: &str, default: f64| a.number_or(key, default).map(|v| v as f32).map_err(|e| e.to_string());
    let common = OptimizerOptions { weight_decay: number("weight_decay", 0.0)?, ..Default::default() };
    let momentum = number("momentum", 0.0)?;
    let params = Parameters::new(gpu, 0);
    let given = case.group("in.");
    let start = given["p"];
    let p = params.parameter("p", start.shape.clone(), Kind::Other, Init::ZEROS).map_err(|e| e.to_string())?;
    p.detach().unwrap().write(&start.data.iter().map(|v| *v as f32).collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    let betas = a.numbers_or("betas", &[0.9, 0.999]).map_err(|e| e.to_string())?;
    let adam = || -> Result<AdamOptions, String> {
        Ok(AdamOptions { betas: [betas[0] as f32, betas[1] as f32], eps: number("eps", 1e-8)?, common })
    };
    let mut optimizer: Box<dyn Optimizer> = match name {
        "sgd" => Box::new(Sgd::new(&params, SgdOptions { momentum, nesterov: a.flag("nesterov").unwrap(), common }).unwrap()),
        "adam" => Box::new(Adam::new(&params, adam()?).unwrap()),
        "adamw" => Box::new(AdamW::new(&params, adam()?).unwrap()),
        "lars" => {
            Box::new(Lars::new(&params, LarsOptions { momentum, trust_coefficient: number("eta", 1e-3)?, clip_lr: false, common }).unwrap())
        }
        "rmsprop" => {
            let config = RmsPropOptions { alpha: number("alpha", 0.99)?, eps: number("eps", 1e-8)?, momentum, common };
            Box::new(RmsProp::new(&params, config).unwrap())
        }
        _ => return Err(format!("no operator is called \"optimizer_{name}\"")),
    };
    for step in 0..a.size("steps").unwrap() {
        let gradient = given[format!("g.{step}").as_str()].upload(gpu).map_err(|e| e.to_string())?;
        let dims: Vec<isize> = (0..start.shape.rank() as isize).collect();
        let loss = p.tensor(Mode::Train).unwrap().mul(&gradient).and_then(|t| t.sum(&dims, false)).map_err(|e| e.to_string())?;
        optimizer.step(&loss.backward().unwrap(), number("lr", 0.0)?).map_err(|e| e.to_string())?;
    }
    let found = Array::download(&p.detach().unwrap()).map_err(|e| e.to_string())?;
    compare("output p", &found, case.group("out.")["p"], 0.0, Tolerance::default()).map(drop).map_err(|e| e.to_string())
}

fn check(gpu: &Gpu, case: &Case) -> Result<(), String> {
    let op = case.operator.as_str();
    if let Some(name) = op.strip_prefix("optimizer_") {
        return check_optimizer(gpu, case, name);
    }
    let entry = registry::find(op).ok_or(format!("no operator is called \"{op}\""))?;
    let operator: Arc<dyn Operator> = Arc::from((entry.build)(&case.attributes).map_err(|e| e.to_string())?);
    let given = case.group("in.");
    let gradients = case.group("grad.");
    let mut tensors: Vec<(&str, Tensor)> = Vec::new();
    for name in entry.inputs {
        let Some(array) = given.get(name) else { continue };
        let tensor = engine_layout(op, name, array).upload(gpu).map_err(|e| e.to_string())?;
        let watched = if is_float(array) && gradients.contains_key(name) { tensor.watch_as(name) } else { tensor };
        tensors.push((name, watched));
    }
    if tensors.len() != given.len() {
        return Err(format!("inputs {:?} are not all known: {:?}", given.keys(), entry.inputs));
    }
    let refs: Vec<&Tensor> = tensors.iter().map(|(_, t)| t).collect();
    let outputs = apply_shared(operator.clone(), &refs).map_err(|e| e.to_string())?;
    let named = |name: &str| {
        let position = entry.outputs.iter().position(|o| *o == name);
        position.and_then(|i| outputs.get(i)).or_else(|| tensors.iter().find(|(n, _)| *n == name).map(|(_, t)| t))
    };
    for (name, expected) in case.group("out.") {
        let found = named(name).ok_or(format!("no output is called \"{name}\""))?;
        let found = Array::download(found).map_err(|e| e.to_string())?;
        let floor = rounding(case, &*operator, entry.inputs, None);
        judge(case, &format!("out.{name}"), &found, &engine_layout(op, name, expected), floor, operator.tolerance())?;
    }
    let mut found = wgrad::autograd::Gradients::default();
    for (name, cotangent) in case.group("cot.") {
        let output = named(name).ok_or(format!("no output is called \"{name}\""))?;
        let cotangent = engine_layout(op, name, cotangent).upload(gpu).map_err(|e| e.to_string())?;
        found.accumulate(&output.backward_from(&cotangent).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    for (name, expected) in gradients {
        let (_, tensor) = tensors.iter().find(|(n, _)| *n == name).ok_or(format!("no input is called \"{name}\""))?;
        let gradient = found.get(tensor).ok_or(format!("input {name} got no gradient"))?;
        let gradient = Array::download(gradient).map_err(|e| e.to_string())?;
        let floor = rounding(case, &*operator, entry.inputs, Some(name));
        judge(case, &format!("grad.{name}"), &gradient, &engine_layout(op, name, expected), floor, operator.tolerance())?;
    }
    Ok(())
}

/// The comparison has teeth: zeros pass for no tensor but zeros.
#[test]
fn an_answer_of_zeros_fails() {
    let mut count = 0;
    for path in reference_files("WGRAD_REFERENCE", "ops", "safetensors") {
        let case = Case::read(&path);
        let entry = registry::find(&case.operator);
        let operator = entry.as_ref().map(|entry| (entry.build)(&case.attributes).unwrap());
        for (name, expected) in &case.tensors {
            let gradient_of = name.strip_prefix("grad.");
            if !(name.starts_with("out.") || gradient_of.is_some()) || expected.data.iter().all(|v| *v == 0.0) {
                continue;
            }
            let zeros = Array { data: vec![0.0; expected.data.len()], ..expected.clone() };
            let floor = operator.as_ref().zip(entry.as_ref()).map_or(0.0, |(o, entry)| rounding(&case, &**o, entry.inputs, gradient_of));
            let tolerance = operator.as_ref().map_or(Tolerance::default(), |o| o.tolerance());
            assert!(compare(name, &zeros, expected, floor, tolerance).is_err(), "{} {name}: zeros would pass", case.name);
            count += 1;
        }
    }
    println!("{count} tensors");
}

/// Checks every case in a folder on each device.
fn check_folder(paths: &[PathBuf], gpus: Vec<(String, Gpu)>) {
    let mut failures = Vec::new();
    for (schedule, gpu) in gpus {
        let mut passed = 0;
        for path in paths {
            let case = Case::read(path);
            match check(&gpu, &case) {
                Ok(()) => passed += 1,
                Err(error) => failures.push(format!("{} ({schedule}): {error}", case.name)),
            }
        }
        println!("{passed} of {} cases passed on schedule {schedule}, {}", paths.len(), gpu.capabilities().name);
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_case_on_every_schedule_and_with_random_choices() {
    check_folder(&reference_files("WGRAD_REFERENCE", "ops", "safetensors"), tuned_gpus());
}

/// Augmentation is torchvision's and timm's on the same draws.
#[test]
fn augmentation_is_torchvisions_and_timms() {
    let gpus = gpus().into_iter().map(|(schedule, gpu)| (schedule.to_string(), gpu)).collect();
    check_folder(&reference_files("WGRAD_AUGMENT", "augment", "safetensors"), gpus);
}

/// What PyTorch makes of NaN and infinities, forward and backward.
#[test]
fn nan_and_infinities_are_what_pytorch_makes_of_them() {
    let gpus = gpus().into_iter().map(|(schedule, gpu)| (schedule.to_string(), gpu)).collect();
    check_folder(&reference_files("WGRAD_NON_FINITE", "non_finite", "safetensors"), gpus);
}

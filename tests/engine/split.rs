//! Tensors larger than a binding: operators run in pieces of rows, with the results of the whole.

use std::collections::BTreeMap;

use crate::common::{options, wanted};
use wgrad::capture::Capture;
use wgrad::error::Error;
use wgrad::gpu::{Gpu, GpuOptions, Schedule};
use wgrad::models::{MobileNetConfig, Model, ModelOptions, model};
use wgrad::nn::{Mode, Module, Parameter, Parameters};
use wgrad::ops::Activation;
use wgrad::ops::convolution::conv_transpose2d::{ConvTranspose2d, ConvTranspose2dFuncOptions};
use wgrad::ops::convolution::conv2d::{Conv2d, Conv2dFuncOptions};
use wgrad::ops::convolution::depthwise_conv2d::{DepthwiseConv2d, DepthwiseConv2dFuncOptions};
use wgrad::ops::gradcheck::gradcheck_sample;
use wgrad::ops::layout::expand::Expand;
use wgrad::ops::registry::registry;
use wgrad::ops::sample::{Sample, normal};
use wgrad::optim::{Optimizer, Sgd, SgdOptions};
use wgrad::tensor::{DType, Spec, Tensor};

fn device(schedule: Schedule, largest_binding_bytes: Option<u64>) -> Gpu {
    Gpu::with(GpuOptions { schedule: Some(schedule), largest_binding_bytes, ..options() }).unwrap()
}

/// Samples of more and smaller images than the registry's.
fn of_many_images() -> Vec<(&'static str, Sample)> {
    let dense = |stride| Conv2d::new(Conv2dFuncOptions { stride, padding: 1.into(), ..Default::default() });
    let depthwise = |stride| DepthwiseConv2d::new(DepthwiseConv2dFuncOptions { stride, padding: 1.into(), ..Default::default() });
    let transposed = ConvTranspose2dFuncOptions { stride: [2, 2], ..Default::default() };
    let three = |x: [usize; 4], weight: &[usize], bias: usize| [normal(x), normal(weight), normal([bias])];
    vec![
        ("conv2d", Sample::new(dense([1, 1]), three([7, 4, 4, 4], &[4, 3, 3, 4], 4))),
        ("conv2d", Sample::new(dense([2, 2]), three([9, 5, 3, 3], &[5, 3, 3, 3], 5))),
        ("conv2d", Sample::new(Conv2d::new(Conv2dFuncOptions::default()), three([8, 4, 4, 8], &[12, 1, 1, 8], 12))),
        ("depthwise_conv2d", Sample::new(depthwise([1, 1]), three([9, 4, 4, 8], &[3, 3, 8], 8))),
        ("depthwise_conv2d", Sample::new(depthwise([2, 2]), three([7, 5, 5, 3], &[3, 3, 3], 3))),
        ("conv_transpose2d", Sample::new(ConvTranspose2d::new(transposed), three([7, 3, 3, 4], &[4, 2, 2, 4], 4))),
        ("expand", Sample::new(Expand { shape: vec![7, 5, 9] }, [normal([7, 1, 9])])),
    ]
}

/// Bytes of the largest tensor that a sample would have to bind whole, where it says that it may
/// run in pieces.
fn largest(sample: &Sample) -> Option<u64> {
    let inputs: Vec<Spec> = sample.arrays(1).iter().map(|a| Spec::new(a.shape.clone(), a.dtype)).collect();
    let outputs = sample.operator.infer(&inputs).ok()?;
    let rows = sample.operator.rows(&inputs, &outputs);
    // Batch norm walks pieces of x by itself.
    let own = sample.operator.name().starts_with("batch_norm") && sample.operator.infer(&inputs[..5]).is_ok();
    let carried: Vec<&Spec> = if own { vec![&inputs[0]] } else { rows.iter().map(|i| &inputs[*i]).chain(&outputs).collect() };
    let several = own || (!rows.is_empty() && outputs[0].shape.dim(0) > 1);
    carried.iter().map(|s| s.bytes()).max().filter(|_| several)
}

/// Every operator that may run in pieces does so on some of its samples, and agrees with its
/// reference there, forward and backward.
fn every_operator(schedule: Schedule) {
    let all = std::env::var("WGRAD_ONLY").is_err();
    let devices: Vec<(u64, Gpu)> =
        [1 << 8, 1 << 9, 1 << 10, 1 << 13, 1 << 16].into_iter().map(|bytes| (bytes, device(schedule, Some(bytes)))).collect();
    let (mut split, mut failures) = (BTreeMap::new(), Vec::new());
    let samples = |name: &str, of: &dyn Fn() -> Vec<Sample>| -> Vec<Sample> {
        of().into_iter().chain(of_many_images().into_iter().filter(|(of, _)| *of == name).map(|(_, sample)| sample)).collect()
    };
    for entry in registry().iter().filter(|e| wanted(e.name)) {
        for index in 0..samples(entry.name, &entry.samples).len() {
            let sample = || samples(entry.name, &entry.samples).swap_remove(index);
            let Some(bytes) = largest(&sample()) else { continue };
            let count: &mut usize = split.entry(entry.name).or_default();
            // The least limit may not hold a row, a weight or partial sums, which is then said.
            for (_, gpu) in devices.iter().filter(|(limit, _)| *limit < bytes && bytes < *limit * 64) {
                match gradcheck_sample(gpu, sample(), 1) {
                    Ok(_) => *count += 1,
                    Err(Error::Limit { .. }) => continue,
                    Err(error) => failures.push(format!(
                        "{} sample {index} ({bytes} bytes on {:?}): {error}",
                        entry.name,
                        gpu.options().largest_binding_bytes
                    )),
                }
                break;
            }
        }
    }
    println!("schedule {schedule}, samples in pieces: {split:?}");
    let never: Vec<&str> = split.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    assert!(failures.is_empty(), "{} samples failed:\n{}", failures.len(), failures.join("\n"));
    assert!(never.is_empty(), "no sample of these ran in pieces: {never:?}");
    assert!(!all || split.len() > 60, "only {} operators may run in pieces", split.len());
}

#[test]
fn operators_in_pieces_match_their_reference_on_schedule_software() {
    every_operator(Schedule::Software);
}

#[test]
fn operators_in_pieces_match_their_reference_on_schedule_gpu() {
    every_operator(Schedule::Gpu);
}

/// What some training steps leave: their losses, the gradients of the last, weights and running
/// statistics.
#[derive(PartialEq)]
struct Outcome {
    losses: Vec<f32>,
    tensors: Vec<(String, Vec<f32>)>,
}

/// Training steps of a network from bytes: unpacked, normalised, forward, backward, update;
/// recorded and replayed, or run anew.
fn train(gpu: &Gpu, network: &Model, [n, side]: [usize; 2], steps: usize, captured: bool) -> Outcome {
    let params = Parameters::new(gpu, 1);
    let network = network.classifier(&params, 10).unwrap();
    let mut optimizer = Sgd::new(&params, SgdOptions { momentum: 0.9, ..Default::default() }).unwrap();
    let mut capture = if captured { Capture::new(gpu) } else { Capture::eager(gpu) };
    let word = |i: u32| (i.wrapping_mul(0x9E37_79B9) ^ (i >> 7).wrapping_mul(0x85EB_CA6B)) as i32;
    let words: Vec<i32> = (0..(n * side * side * 3 / 4) as u32).map(word).collect();
    let labels: Vec<i32> = (0..n as i32).map(|i| i * 7 % 10).collect();
    let words = Tensor::from_slice(gpu, &words, [words.len()]).unwrap().with_range(None).unwrap();
    let batch = vec![words, Tensor::from_slice(gpu, &labels, [n]).unwrap()];
    let mut outcome = Outcome { losses: Vec::new(), tensors: Vec::new() };
    for step in 0..steps {
        let begun = std::time::Instant::now();
        let run = capture.run(&batch, |batch| {
            let [words, labels] = batch.as_slice() else { unreachable!() };
            let images = words.unpack([n, side, side, 3], 3)?.normalize_images([0.5; 3], [0.25; 3])?;
            let loss = network.forward(&images, Mode::Train)?.cross_entropy(labels, 0.1)?;
            let gradients = loss.backward()?;
            let each = |p: &Parameter| Ok(gradients.get(&p.tensor(Mode::Train)?).map(|g| (p.slot().unwrap().name, g.clone())));
            let all = params.all().iter().map(each).collect::<Result<Vec<_>, Error>>()?;
            optimizer.step(&gradients, 0.05)?;
            Ok((loss, all))
        });
        let (loss, gradients) = run.unwrap();
        outcome.losses.push(loss.item().unwrap());
        println!("step {step}: loss {}, {:.2} s", outcome.losses[step], begun.elapsed().as_secs_f64());
        outcome.tensors = gradients.iter().flatten().map(|(name, t)| (format!("the gradient of {name}"), t.to_vec().unwrap())).collect();
    }
    let value = |p: &Parameter| (p.slot().unwrap().name, p.detach().unwrap().to_vec().unwrap());
    outcome.tensors.extend(params.all().iter().map(value));
    outcome
}

/// The network with smooth activations, where rounding alone does not choose between derivatives.
fn smooth(name: &str, options: ModelOptions) -> Model {
    let found = model(name, ModelOptions { stem_stride: Some(1), ..options }).unwrap();
    let config: &MobileNetConfig = found.config().unwrap();
    Model::new(found.resolution, config.clone().with_activation(Activation::Silu))
}

/// A training step in pieces is the step itself, batch norm's statistics and all gradients
/// included; its bits repeat, and are those of a replay.
fn training(network: &Model) {
    let sizes = [24, 32];
    for schedule in Schedule::ALL {
        let limited = || device(schedule, Some(512 << 10));
        let (whole, pieces) = (train(&device(schedule, None), network, sizes, 1, false), train(&limited(), network, sizes, 1, false));
        assert!(
            (whole.losses[0] - pieces.losses[0]).abs() <= 1e-5 * whole.losses[0],
            "{schedule}: {:?}, {:?}",
            pieces.losses,
            whole.losses
        );
        for ((name, a), (_, b)) in whole.tensors.iter().zip(&pieces.tensors) {
            let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let off = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(off <= 5e-4 * largest + 2e-6, "{schedule}, {name}: off by {off} of {largest}");
        }
        let (anew, replayed) = (train(&limited(), network, sizes, 4, false), train(&limited(), network, sizes, 4, true));
        assert_eq!(anew.losses[0].to_bits(), pieces.losses[0].to_bits(), "{schedule}");
        assert!(anew == replayed, "{schedule}: other bits when replayed");
    }
}

#[test]
fn a_step_of_mobilenet_in_pieces_is_the_step() {
    training(&smooth("mobilenetv1_025", ModelOptions::default()));
}

#[test]
fn a_step_of_efficientnet_in_pieces_is_the_step() {
    training(&smooth("efficientnet_b0", ModelOptions { width: 0.25, drop_path: 0.5, drop_rate: 0.2, ..Default::default() }));
}

/// Rows can be cut off and laid together, wherever they begin.
#[test]
fn rows_of_large_tensors_are_copied() {
    let gpu = device(Schedule::Software, Some(1 << 10));
    let values: Vec<f32> = (0..35 * 9).map(|i| i as f32).collect();
    let x = Tensor::from_slice(&gpu, &values, [35, 9]).unwrap().watch();
    let parts = [(0, 7), (7, 34), (34, 35)].map(|(start, end)| x.slice(0, start, end).unwrap());
    let y = Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), values);
    let gradient = y.backward_from(&x.detach()).unwrap().get(&x).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(gradient, values);
}

/// What cannot be cut is a typed error that says how large it is, what may be bound and what helps.
#[test]
fn what_has_no_rows_is_refused() {
    let gpu = device(Schedule::Software, Some(1 << 10));
    let x = Tensor::full(&gpu, [20, 20], 1.0, DType::F32).unwrap();
    let row = Tensor::full(&gpu, [1, 400], 1.0, DType::F32).unwrap();
    for refused in [x.sum(&[0], false), x.flip(&[0]), x.matmul(&x)] {
        let error = refused.unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Limit { .. }), "{error:?}");
        for words in ["1600 bytes", "1024 bytes", "use a smaller batch", &gpu.capabilities().name] {
            assert!(message.contains(words), "\"{message}\" lacks \"{words}\"");
        }
    }
    x.sum(&[1], false).unwrap();
    // Of one row there is no smaller batch.
    for refused in [row.sum(&[], false), row.flip(&[1]), row.softmax(-1)] {
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("1600 bytes") && message.contains("a smaller batch does not help"), "{message}");
    }
}

/// One image that is larger than a binding is worked on in bands, as are several.
#[test]
fn large_images_are_worked_on_in_bands() {
    use wgrad::ops::augment::Normalize;
    use wgrad::ops::elementwise::binary::Binary;
    use wgrad::ops::elementwise::cast::Cast;
    use wgrad::ops::elementwise::compare::Compare;
    use wgrad::ops::elementwise::dropout::Dropout;
    use wgrad::ops::elementwise::map::Map;
    use wgrad::ops::elementwise::where_::Where;
    use wgrad::ops::layout::concat::Concat;
    use wgrad::ops::layout::pad::{Pad, PadMode};
    use wgrad::ops::layout::slice::Slice;
    use wgrad::ops::linear::Linear;
    use wgrad::ops::normalization::layer_norm::LayerNorm;
    use wgrad::ops::reduction::l2_normalize::L2Normalize;
    use wgrad::ops::sample::{distinct, indices};
    use wgrad::ops::softmax::Softmax;

    // 33 x 7 x 3 floats are 2772 bytes; a row of them 84.
    let samples = |images: usize| {
        let x = || normal([images, 33, 7, 3]);
        let smooth = |name: &str| Map::named(name).unwrap();
        let pair = |name: &str| Binary::named(name).unwrap();
        let mut samples = vec![
            Sample::new(smooth("tanh"), [x()]),
            Sample::new(smooth("relu"), [distinct([images, 33, 7, 3])]),
            Sample::new(pair("mul"), [x(), x()]),
            Sample::new(pair("add"), [x(), normal([3])]),
            Sample::new(pair("mul"), [x(), normal([])]),
            Sample::new(Where, [indices([images, 33, 7, 3], 2), x(), x()]),
            Sample::new(Compare::named("lt").unwrap(), [x(), x()]),
            Sample::new(Cast::new(DType::F32), [indices([images, 33, 7, 3], 9)]),
            Sample::new(Dropout::elements(0.3, 1, 2, 3), [normal([images, 33, 7, 4])]),
            Sample::new(Normalize { mean: [0.1, 0.2, 0.3], std: [0.5, 0.6, 0.7] }, [x()]),
            Sample::new(Softmax::new(-1, 1.0), [x()]),
            Sample::new(L2Normalize::new(3, 1e-12), [x()]),
            Sample::new(LayerNorm { eps: 1e-5 }, [x(), normal([3]), normal([3])]),
            Sample::new(Linear, [x(), normal([5, 3]), normal([5])]),
            Sample::new(Slice { dim: -1, start: 1, end: 3 }, [x()]),
            Sample::new(Concat { dim: 3 }, [x(), x()]),
            Sample::new(Pad { pad: vec![1, 0, 2, 1], mode: PadMode::Constant(0.5) }, [x()]),
        ];
        if images == 1 {
            samples.push(Sample::new(pair("add"), [x(), normal([33, 1, 3])]));
            samples.push(Sample::new(pair("sub"), [x(), normal([1, 33, 7, 1])]));
        }
        samples
    };
    for (schedule, images) in Schedule::ALL.into_iter().flat_map(|schedule| [1, 2].map(|images| (schedule, images))) {
        let gpu = device(schedule, Some(1 << 10));
        for sample in samples(images) {
            let name = sample.operator.name().to_string();
            gradcheck_sample(&gpu, sample, 1).unwrap_or_else(|e| panic!("{schedule}, {images} images, {name}: {e}"));
        }
    }
}

/// The real thing: activations of 205 MB. `cargo test --test engine large_batches -- --ignored
/// --nocapture`; WGRAD_MODEL and WGRAD_BATCH for others.
#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_batches() {
    let gpu = Gpu::with(GpuOptions::from_env().unwrap()).unwrap();
    println!("{}", gpu.capabilities());
    let name = std::env::var("WGRAD_MODEL").unwrap_or("mobilenetv1_100".into());
    let batch = std::env::var("WGRAD_BATCH").map_or(64, |n| n.parse().unwrap());
    let outcome = train(&gpu, &model(&name, ModelOptions::default()).unwrap(), [batch, 224], 3, false);
    assert!(outcome.losses.iter().all(|loss| loss.is_finite()));
    println!("{name}: {:?}, {:?}", outcome.losses, gpu.memory());
}

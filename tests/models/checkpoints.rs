//! Blocks that keep their input alone: the same bits, running statistics, too, in less memory.

use wgrad::capture::Capture;
use wgrad::gpu::{Gpu, GpuOptions, Precision};
use wgrad::models::{ModelOptions, model};
use wgrad::nn::{Mode, Module, Parameters};
use wgrad::optim::{Optimizer, Sgd, SgdOptions};
use wgrad::tensor::{DType, Tensor};
use wgrad::train::estimate::training_memory;

/// Networks of each family with drop path and dropout, and the side of their images.
const NETWORKS: [(&str, usize, f64); 4] =
    [("mobilenetv3_small_025", 32, 1.0), ("efficientnet_b0", 32, 0.25), ("resnet18", 32, 0.25), ("vit_mini_patch4_28", 28, 1.0)];

fn options((side, width): (usize, f64), checkpoint_blocks: bool) -> ModelOptions {
    let size = Some([side; 2]);
    ModelOptions { width, size, drop_rate: 0.2, drop_path: 0.2, checkpoint_blocks, ..Default::default() }
}

/// Values and running statistics after three steps, and the losses.
fn trained(gpu: &Gpu, (name, side, width): (&str, usize, f64), checkpoints: bool, captured: bool) -> Vec<Vec<u32>> {
    let params = Parameters::new(gpu, 5);
    let network = model(name, options((side, width), checkpoints)).unwrap().classifier(&params, 7).unwrap();
    let mut optimizer = Sgd::new(&params, SgdOptions { momentum: 0.9, ..Default::default() }).unwrap();
    let values: Vec<f32> = (0..3 * side * side * 3).map(|i| (i * 7919 % 1013) as f32 / 506.5 - 1.0).collect();
    let images = Tensor::from_slice(gpu, &values, [3, side, side, 3]).unwrap();
    let labels = Tensor::from_slice(gpu, &[1i32, 4, 2], [3]).unwrap();
    let mut capture = Capture::new(gpu);
    let mut step = |x: &Tensor| {
        let loss = network.forward(x, Mode::Train)?.cross_entropy(&labels, 0.1)?;
        optimizer.step(&loss.backward()?, 0.05)?;
        Ok(loss)
    };
    let bits = |t: &Tensor| t.cast(DType::F32).unwrap().to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let mut found = Vec::new();
    for _ in 0..3 {
        let loss = if captured { capture.run(&images, &mut step) } else { step(&images) };
        found.push(bits(&loss.unwrap()));
    }
    found.extend(params.all().into_iter().map(|p| bits(&p.detach().unwrap())));
    let counted = params.counters().into_iter().map(|(_, _, batches)| batches as u32);
    found.push(counted.collect());
    found
}

#[test]
fn checkpointed_blocks_give_the_same_bits() {
    let gpu = crate::common::gpu();
    let mut precisions = vec![Precision::F32];
    precisions.extend(gpu.capabilities().f16.then_some(Precision::Mixed));
    for (precision, network) in precisions.into_iter().flat_map(|p| NETWORKS.map(|network| (p, network))) {
        let gpu = gpu.with_precision(precision).unwrap();
        let plain = trained(&gpu, network, false, false);
        for captured in [false, true] {
            assert!(trained(&gpu, network, true, captured) == plain, "{network:?}, {precision}, captured: {captured}");
        }
    }
}

#[test]
fn checkpointed_blocks_take_less_memory() {
    // Poisoned memory has more behind every buffer.
    let gpu = Gpu::with(GpuOptions { poison: false, ..crate::common::options() }).unwrap();
    let memory = |name: &str, checkpoint_blocks: bool, precision: Precision| {
        let network = model(name, ModelOptions { checkpoint_blocks, ..Default::default() }).unwrap();
        let batch = network.input(224, 3).batch(64);
        let gpu = gpu.with_precision(precision).unwrap();
        training_memory(&gpu, |params| network.classifier(params, 1000), batch, "sgd").unwrap().held as f64
    };
    for name in ["mobilenetv1_100", "efficientnet_b0", "resnet50"] {
        let all = memory(name, false, Precision::F32);
        let share = |checkpoints, precision| memory(name, checkpoints, precision) / all;
        println!("{name}: checkpoints {:.3}", share(true, Precision::F32));
        if gpu.capabilities().f16 {
            let (mixed, both) = (share(false, Precision::Mixed), share(true, Precision::Mixed));
            println!("{name}: mixed {mixed:.3}, with checkpoints {both:.3}");
            assert!(mixed <= 0.6 && both <= 0.4, "{name}: {mixed:.3}, {both:.3}");
        }
    }
}

#[test]
fn a_network_without_blocks_says_so() {
    let params = Parameters::new(&crate::common::gpu(), 0);
    let network = model("cnn_16_32_64", ModelOptions { checkpoint_blocks: true, ..Default::default() }).unwrap();
    let error = network.classifier(&params, 10).err().unwrap().to_string();
    assert!(error.contains("checkpoint_blocks") && error.contains("no blocks"), "{error}");
}

#[test]
fn weights_that_change_before_the_way_back_are_named() {
    let gpu = crate::common::gpu();
    let params = Parameters::new(&gpu, 5);
    let network = model("resnet18", options((32, 0.25), true)).unwrap().classifier(&params, 7).unwrap();
    let images = Tensor::ones(&gpu, [2, 32, 32, 3], DType::F32).unwrap();
    let loss = network.forward(&images, Mode::Train).unwrap().sum(&[], false).unwrap();
    let weight = params.get("layer2.0.conv1.weight").unwrap().detach().unwrap();
    weight.write(&vec![0.0f32; weight.numel()]).unwrap();
    let error = loss.backward().unwrap_err().to_string();
    assert!(error.contains("checkpoint") && error.contains("layer2.0.conv1.weight") && error.contains("changed in place"), "{error}");
}

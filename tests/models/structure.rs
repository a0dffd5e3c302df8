//! Networks by name, and what may be changed about them. `reference_models` has their values.

use crate::common::gpu;
use wgrad::models::{MobileNetConfig, ModelOptions, model, model_names};
use wgrad::nn::{Mode, Module, Parameters};
use wgrad::ops::Activation;
use wgrad::tensor::Tensor;

fn mobile(name: &str, options: ModelOptions) -> MobileNetConfig {
    model(name, options).unwrap().config().cloned().unwrap()
}

#[test]
fn every_listed_name_is_known_and_others_are_refused_with_the_list() {
    for name in model_names() {
        assert!(model(name, ModelOptions::default()).unwrap().resolution >= 28, "{name}");
    }
    for bad in
        ["", "mobilenetv1", "mobilenetv1_1", "mobilenetv3_100", "efficientnet_b8", "efficientnet_lite5", "efficientnetv2_x", "resnet9000"]
    {
        let error = model(bad, ModelOptions::default()).unwrap_err().to_string();
        assert!(error.contains("efficientnet_b0") || error.contains("there are s, m, l"), "{bad}: {error}");
    }
    let error = model("efficientnet_b0", ModelOptions { width: f64::NAN, ..Default::default() }).unwrap_err().to_string();
    assert!(error.contains("width"), "{error}");
}

#[test]
fn one_coefficient_scales_efficientnet() {
    let blocks = |config: &MobileNetConfig| config.stages.iter().map(Vec::len).collect::<Vec<_>>();
    let [phi, b0] = ["efficientnet_phi0", "efficientnet_b0"].map(|name| model(name, ModelOptions::default()).unwrap());
    assert_eq!((phi.resolution, phi.config::<MobileNetConfig>()), (b0.resolution, b0.config()));
    let scaled = model("efficientnet_phi2.5", ModelOptions::default()).unwrap();
    // 224 * 1.15^2.5 = 317.6; repeats times 1.2^2.5 = 1.577, rounded up; channels times 1.1^2.5 =
    // 1.269.
    assert_eq!(scaled.resolution, 318);
    let config = mobile("efficientnet_phi2.5", ModelOptions::default());
    assert_eq!(blocks(&config), [2, 4, 4, 5, 5, 7, 2]);
    assert_eq!((config.stem, config.stages[6][0].outputs), (40, 408));
}

#[test]
fn blocks_are_dropped_the_more_the_deeper_they_are() {
    let config = mobile("efficientnet_b7", ModelOptions { drop_path: 0.2, ..Default::default() });
    let rates: Vec<f32> = config.stages.iter().flatten().map(|block| block.drop_path).collect();
    assert_eq!(rates.len(), 55);
    assert_eq!(rates[0], 0.0);
    approx::assert_abs_diff_eq!(rates[54], 0.2 * 54.0 / 55.0, epsilon = 1e-7);
}

/// Random images that are the same for the same arguments.
fn images(gpu: &wgrad::gpu::Gpu, n: usize, size: usize) -> Tensor {
    let data: Vec<f32> = (0..n * size * size * 3).map(|i| ((i * 7919 % 1013) as f32 / 506.5) - 1.0).collect();
    Tensor::from_slice(gpu, &data, [n, size, size, 3]).unwrap()
}

#[test]
fn folded_networks_give_the_same_answers_in_fewer_kernels() {
    let gpu = gpu();
    // One of each kind of block, head and padding.
    for name in ["mobilenetv1_025", "mobilenetv2_035", "mobilenetv3_small_050", "tf_efficientnet_lite0", "efficientnetv2_s"] {
        let params = Parameters::new(&gpu, 1);
        let options = ModelOptions { width: if name == "efficientnetv2_s" { 0.25 } else { 1.0 }, ..Default::default() };
        let mut network = model(name, options).unwrap().classifier(&params, 10).unwrap();
        let x = images(&gpu, 4, 32);
        // Running statistics that say something.
        for _ in 0..3 {
            network.forward(&x, Mode::Train).unwrap();
        }
        let run = |network: &dyn Module| {
            let before = gpu.counters().dispatches;
            let logits = network.forward(&x, Mode::Eval).unwrap().to_vec::<f32>().unwrap();
            (logits, gpu.counters().dispatches - before)
        };
        let (expected, kernels) = run(&network);
        network.fold().unwrap();
        let (folded, fewer) = run(&network);
        let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let worst = expected.iter().zip(&folded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(scale > 1e-3 && worst <= 1e-5 * scale.max(1.0), "{name}: {worst} of {scale}");
        println!("{name}: {kernels} kernels, {fewer} folded; largest difference {worst:e} of {scale}");
        assert!(fewer <= kernels, "{name}: {fewer} kernels instead of {kernels}");
        // Training does not see the folded weights.
        network.forward(&x, Mode::Train).unwrap();
    }
}

#[test]
fn dropped_blocks_and_features_only_concern_training() {
    let gpu = gpu();
    let build = |options| {
        let params = Parameters::new(&gpu, 3);
        model("mobilenetv2_035", options).unwrap().classifier(&params, 10).unwrap()
    };
    let (plain, dropping) = (build(ModelOptions::default()), build(ModelOptions { drop_path: 0.9, drop_rate: 0.5, ..Default::default() }));
    let x = images(&gpu, 4, 32);
    let run = |network: &dyn Module, mode| network.forward(&x, mode).unwrap().to_vec::<f32>().unwrap();
    let (a, b) = (run(&plain, Mode::Eval), run(&dropping, Mode::Eval));
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // The skip is added in a kernel of its own, so the last bits may differ.
    assert!(worst <= 1e-5, "{worst}");
    assert_ne!(run(&plain, Mode::Train), run(&dropping, Mode::Train));
}

#[test]
fn options_change_what_they_name() {
    let config = mobile("mobilenetv1_100", ModelOptions { channels: 1, stem_stride: Some(3), width: 0.5, ..Default::default() });
    assert_eq!((config.channels, config.stem_stride, config.stem), (1, 3, 16));
    let relu = config.with_activation(Activation::Relu);
    assert!(relu.stages.iter().flatten().all(|block| block.activation == Activation::Relu));
    assert!(mobile("tf_efficientnet_b0", ModelOptions::default()).style.same_padding);
}

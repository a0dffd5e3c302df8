//! The suite `gpu`: workloads sized for a data-centre card, by the names that the PyTorch program
//! has them under.

use super::peers::{Convolution, TrainingStep, batch_norm, labels, matmul, nt_xent, softmax, tensor};
use super::run::Gate;
use super::workload::{Prepared, Workload};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::io::layout::Layout;
use crate::models::{Classifier, MobileNet, MobileNetConfig, ModelOptions, model};
use crate::nn::{Init, Kind, Mode, Module, Parameters};
use crate::ops::{Activation, Cost};
use crate::optim::{AdamOptions, AdamW, Optimizer};
use crate::tensor::{DType, Tensor};

const SUITE: &str = "gpu";

fn step(
    name: &str,
    shape: &str,
    [batch, side, classes]: [usize; 3],
    make: fn(&Parameters, usize) -> Result<Box<dyn Module>>,
    last: &'static str,
) -> Workload {
    Workload::new(SUITE, name, "steps", format!("{shape}, [{batch}, {side}, {side}, 3], SGD with momentum"), move |gpu| {
        let params = Parameters::new(gpu, 0);
        let model = make(&params, classes)?;
        let x = tensor(gpu, 11, [batch, 3, side, side], Layout::Convolution)?;
        let step = TrainingStep { params, model, x, labels: labels(gpu, batch, classes)?, last };
        // The other library starts from other weights, so only this is known: a loss of untrained
        // weights is about that of guessing.
        step.prepare(move |step| {
            let loss = f64::from(step.loss()?.item()?);
            let guess = (classes as f64).ln();
            let passed = Some(loss > 0.0 && loss < 3.0 * guess);
            let against = format!(
                "the loss of guessing, {guess:.3}: a trained batch's lies between 0 and three times that; its kernels have gates of their own"
            );
            Ok(Gate { passed, max_error: None, against })
        })
    })
}

fn mobilenet(params: &Parameters, stem_stride: usize, classes: usize) -> Result<Box<dyn Module>> {
    let config = MobileNetConfig { stem_stride, ..MobileNetConfig::v1(1.0)?.with_activation(Activation::Relu) };
    Ok(Box::new(Classifier::new(params, MobileNet::new(params, &config)?, classes)?))
}

fn named(params: &Parameters, name: &str, stem_stride: Option<usize>, classes: usize) -> Result<Box<dyn Module>> {
    Ok(Box::new(model(name, ModelOptions { stem_stride, ..Default::default() })?.classifier(params, classes)?))
}

/// AdamW over `n` parameters: value, gradient and two states are read, all but the gradient
/// written.
fn adamw(name: &str, n: usize) -> Workload {
    Workload::new(SUITE, name, "optimizers", format!("{n} parameters"), move |gpu| {
        let params = Parameters::new(gpu, 0);
        let p = params.parameter("p", [n], Kind::Other, Init::ZEROS)?;
        let gradients = p.tensor(Mode::Train)?.backward_from(&Tensor::full(gpu, [n], 0.5, DType::F32)?)?;
        let mut optimizer = AdamW::new(&params, AdamOptions::default())?;
        let rate = 1e-3;
        let own = p.clone();
        let step = move || {
            optimizer.step(&gradients, rate)?;
            Ok(vec![own.detach()?])
        };
        let given = gpu.clone();
        Ok(Prepared {
            step: Box::new(step),
            gate: Box::new(move || first_step(&given, rate)),
            cost: Cost { flops: 0.0, bytes: 28.0 * n as f64 },
            dtype: DType::F32,
        })
    })
}

/// Whatever the gradient is, Adam's first step is the rate (Kingma and Ba 2014, section 2.1).
fn first_step(gpu: &Gpu, rate: f32) -> Result<Gate> {
    let params = Parameters::new(gpu, 0);
    let p = params.parameter("p", [1000], Kind::Other, Init::ZEROS)?;
    let gradients = p.tensor(Mode::Train)?.backward_from(&Tensor::full(gpu, [1000], 0.5, DType::F32)?)?;
    AdamW::new(&params, AdamOptions::default())?.step(&gradients, rate)?;
    let errors = p.detach()?.to_vec::<f32>()?.into_iter().map(|v| f64::from((v + rate).abs() / rate));
    let worst = errors.fold(0.0, f64::max);
    Ok(Gate {
        passed: Some(worst < 1e-4),
        max_error: Some(worst),
        against: "a first step of the learning rate, on 1000 parameters; relative".into(),
    })
}

/// All of them, in the order of the other program.
pub fn workloads() -> Vec<Workload> {
    let mut list: Vec<Workload> = [1024, 2048, 4096, 8192].map(|n| matmul(SUITE, format!("gpu_matmul_{n}"), [n; 3])).into();
    for (name, [n, c, size], k, kernel, depthwise) in [
        ("gpu_conv3x3_256", [32, 256, 56], 256, 3, false),
        ("gpu_conv3x3_64", [64, 64, 112], 64, 3, false),
        ("gpu_conv1x1_512", [64, 512, 28], 512, 1, false),
        ("gpu_dwconv3x3_256", [64, 256, 112], 256, 3, true),
        ("gpu_dwconv5x5_240", [64, 240, 28], 240, 5, true),
    ] {
        list.extend(Convolution { n, size, c, k, kernel, stride: 1, depthwise }.workloads(SUITE, name, "convolutions"));
    }
    list.extend(softmax(SUITE, "gpu_softmax_t4", [65536, 1024]));
    list.push(nt_xent(SUITE, "gpu_ntxent_16384x128", [16384, 128]));
    list.push(batch_norm(SUITE, "gpu_batchnorm_fwdbwd".into(), [64, 256, 56, 56], Activation::None, true));
    list.push(adamw("gpu_adamw_100m", 100_000_000));
    let (mobilenet_32, mobilenet_224) =
        (|p: &Parameters, classes| mobilenet(p, 1, classes), |p: &Parameters, classes| mobilenet(p, 2, classes));
    list.push(step("gpu_mobilenet_v1_32_b128", "MobileNetV1", [128, 32, 10], mobilenet_32, "classifier.weight"));
    list.push(step("gpu_mobilenet_v1_224_b64", "MobileNetV1", [64, 224, 1000], mobilenet_224, "classifier.weight"));
    list.push(step("gpu_resnet18_32_b128", "ResNet-18", [128, 32, 10], |p, n| named(p, "resnet18", Some(1), n), "fc.weight"));
    list.push(step("gpu_resnet18_224_b64", "ResNet-18", [64, 224, 1000], |p, n| named(p, "resnet18", None, n), "fc.weight"));
    let efficientnet: fn(&Parameters, usize) -> Result<Box<dyn Module>> = |p, n| named(p, "efficientnet_b0", None, n);
    list.push(step("gpu_efficientnet_b0_224_b32", "EfficientNet-B0, no dropout", [32, 224, 1000], efficientnet, "classifier.weight"));
    list
}

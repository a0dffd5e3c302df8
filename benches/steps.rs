//! Training steps: forward, backward and update. `cargo bench --bench steps`, each once by `cargo bench --bench steps -- --test`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod clock;

use std::cell::RefCell;
use std::time::Duration;

use clock::measure;
use criterion::{Criterion, criterion_group, criterion_main};
use wgrad::gpu::Gpu;
use wgrad::methods::{Batch, Method, SimClr, SimClrConfig};
use wgrad::models::{Classifier, MobileNetV1, MobileNetV1Config, SmallCnn, SmallCnnConfig};
use wgrad::nn::{Mode, Module, Parameters};
use wgrad::ops::Activation;
use wgrad::optim::{Optimizer, Sgd, SgdConfig};
use wgrad::tensor::Tensor;
use wgrad::tensor::random::{Purpose, Stream};

fn images(gpu: &Gpu, shape: [usize; 4], seed: u32) -> Tensor {
    let mut stream = Stream::new(seed, Purpose::Test);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| stream.uniform() * 2.0 - 1.0).collect();
    Tensor::from_slice(gpu, &data, shape).unwrap()
}

fn steps(c: &mut Criterion) {
    let gpu = &Gpu::new().unwrap();
    let mut group = c.benchmark_group("steps");
    group.sample_size(20).warm_up_time(Duration::from_secs(3)).measurement_time(Duration::from_secs(5));
    let momentum = SgdConfig { momentum: 0.9, ..Default::default() };

    // As the other libraries were measured: MobileNetV1 of width 0.25 with ReLU and a stem of stride 1, 32 images of 32 x 32.
    let params = Parameters::new(gpu, 0);
    let config = MobileNetV1Config { width: 0.25, stem_stride: 1, activation: Activation::Relu, ..Default::default() };
    let model = Classifier::new(&params, MobileNetV1::new(&params, config).unwrap(), 10).unwrap();
    let optimizer = RefCell::new(Sgd::new(&params, momentum).unwrap());
    let x = images(gpu, [32, 32, 32, 3], 11);
    let labels = Tensor::from_slice(gpu, &(0..32).map(|i| i % 10).collect::<Vec<i32>>(), [32]).unwrap();
    let step = || {
        let loss = model.forward(&x, Mode::Train).unwrap().cross_entropy(&labels, 0.0).unwrap();
        optimizer.borrow_mut().step(&loss.backward().unwrap(), 0.01).unwrap();
        loss.item().unwrap()
    };
    group.bench_function("mobilenet_step", |b| b.iter_custom(|times| measure(times, step)));

    // The demo's pre-training step without its augmentation: two views of 256 grey images.
    let params = Parameters::new(gpu, 0);
    let encoder = SmallCnn::new(&params, SmallCnnConfig { channels: 1, widths: [16, 32, 64] }).unwrap();
    let method = SimClr::new(&params, encoder, SimClrConfig::default()).unwrap();
    let optimizer = RefCell::new(Sgd::new(&params, momentum).unwrap());
    let labels = Tensor::from_slice(gpu, &[0i32; 256], [256]).unwrap();
    let batch = Batch { views: vec![images(gpu, [256, 28, 28, 1], 1), images(gpu, [256, 28, 28, 1], 2)], labels };
    let step = || {
        let loss = method.loss(&batch).unwrap();
        optimizer.borrow_mut().step(&loss.backward().unwrap(), 0.01).unwrap();
        loss.item().unwrap()
    };
    group.bench_function("simclr_step", |b| b.iter_custom(|times| measure(times, step)));
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);

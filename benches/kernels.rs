//! Kernels: `cargo bench --bench kernels [FILTER]`, each once by `cargo bench --bench kernels -- --test`.
//!
//! `peers/*` are the workloads that other libraries were measured on (benches/results); `operators/*` run every operator of the
//! registry, forward and with gradients, on its largest sample: small, so they show what a launch costs. A time includes recording,
//! submitting and waiting for the device; compiling falls into the warm-up.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod clock;

use std::sync::Arc;
use std::time::Duration;

use clock::measure;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use wgrad::gpu::Gpu;
use wgrad::ops::apply_shared;
use wgrad::ops::convolution::conv2d::Conv2dOptions;
use wgrad::ops::convolution::depthwise_conv2d::DepthwiseConv2dOptions;
use wgrad::ops::convolution::geometry::Padding;
use wgrad::ops::normalization::batch_norm::BatchNormOptions;
use wgrad::ops::registry::registry;
use wgrad::tensor::Tensor;
use wgrad::tensor::random::{Purpose, Stream};

fn random(gpu: &Gpu, shape: &[usize]) -> Tensor {
    let mut stream = Stream::new(shape.len() as u32, Purpose::Test);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| stream.uniform() * 2.0 - 1.0).collect();
    Tensor::from_slice(gpu, &data, shape).unwrap()
}

/// Times `work` with all that it makes the device do.
fn bench<T>(group: &mut BenchmarkGroup<WallTime>, gpu: &Gpu, name: impl Into<String>, work: impl Fn() -> T) {
    let finished = || {
        let result = work();
        gpu.synchronize().unwrap();
        result
    };
    group.bench_function(name.into(), |b| b.iter_custom(|times| measure(times, finished)));
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group
}

/// Times `f` as it is, and, from a cotangent of the shape that it gives, with the gradients of its watched inputs.
fn both(group: &mut BenchmarkGroup<WallTime>, gpu: &Gpu, name: &str, plain: &dyn Fn() -> Tensor, watched: &dyn Fn() -> Tensor) {
    bench(group, gpu, format!("{name}_fwd"), plain);
    let y = plain();
    let dy = random(gpu, y.shape()).cast(y.dtype()).unwrap();
    bench(group, gpu, format!("{name}_fwdbwd"), || watched().backward_from(&dy).unwrap());
}

fn peers(c: &mut Criterion) {
    let gpu = &Gpu::new().unwrap();
    let mut group = group(c, "peers");
    for (name, [m, k, n]) in [("512", [512; 3]), ("1024", [1024; 3]), ("4096x256x256", [4096, 256, 256])] {
        let (a, b) = (random(gpu, &[m, k]), random(gpu, &[k, n]));
        bench(&mut group, gpu, format!("matmul_{name}"), || a.matmul(&b).unwrap());
    }
    for (name, image, weight, padding) in
        [("conv3x3", [16, 32, 32, 64], [64, 3, 3, 64], 1), ("conv1x1", [16, 16, 16, 128], [256, 1, 1, 128], 0)]
    {
        let options = Conv2dOptions { padding: Padding::Explicit([padding; 4]), ..Default::default() };
        let (x, w) = (random(gpu, &image), random(gpu, &weight));
        let (watched_x, watched_w) = (x.watch(), w.watch());
        both(&mut group, gpu, name, &|| x.conv2d(&w, None, &options).unwrap(), &|| watched_x.conv2d(&watched_w, None, &options).unwrap());
    }
    {
        let options = DepthwiseConv2dOptions { padding: Padding::Explicit([1; 4]), ..Default::default() };
        let (x, w) = (random(gpu, &[16, 32, 32, 128]), random(gpu, &[3, 3, 128]));
        let (watched_x, watched_w) = (x.watch(), w.watch());
        let plain = || x.depthwise_conv2d(&w, None, &options).unwrap();
        both(&mut group, gpu, "dwconv3x3", &plain, &|| watched_x.depthwise_conv2d(&watched_w, None, &options).unwrap());
    }
    {
        let x = random(gpu, &[4096, 1000]);
        let watched = x.watch();
        both(&mut group, gpu, "softmax_t4", &|| x.softmax(-1, 4.0).unwrap(), &|| watched.softmax(-1, 4.0).unwrap());
    }
    {
        // 512 rows: two views of 256 images.
        let (a, b) = (random(gpu, &[256, 128]).watch(), random(gpu, &[256, 128]).watch());
        bench(&mut group, gpu, "ntxent_fwdbwd", || a.nt_xent(&b, 0.5).unwrap().backward().unwrap());
    }
    {
        let x = random(gpu, &[16, 32, 32, 128]).watch();
        let full = |value| Tensor::full(gpu, [128], value).unwrap();
        let (weight, bias, mean, var) = (full(1.0).watch(), full(0.0).watch(), full(0.0), full(1.0));
        let dy = random(gpu, &[16, 32, 32, 128]);
        let options = BatchNormOptions { training: true, ..Default::default() };
        let forward = || x.batch_norm(&weight, &bias, &mean, &var, &options, None).unwrap();
        bench(&mut group, gpu, "batchnorm_fwdbwd", || forward().backward_from(&dy).unwrap());
    }
}

fn operators(c: &mut Criterion) {
    let gpu = &Gpu::new().unwrap();
    let mut group = group(c, "operators");
    for entry in registry() {
        let work = |arrays: &[wgrad::ops::Array]| arrays.iter().map(|a| a.data.len()).sum::<usize>();
        let Some(sample) = (entry.samples)().into_iter().max_by_key(|s| work(&s.arrays(0))) else { continue };
        let constants: Vec<Tensor> = sample.arrays(0).iter().map(|a| a.upload(gpu).unwrap()).collect();
        let differentiable = sample.operator.differentiable();
        let watched: Vec<Tensor> =
            constants.iter().enumerate().map(|(i, t)| if differentiable.contains(&i) { t.watch() } else { t.clone() }).collect();
        let operator: Arc<dyn wgrad::ops::Operator> = Arc::from(sample.operator);
        let run = |inputs: &[Tensor]| apply_shared(operator.clone(), &inputs.iter().collect::<Vec<_>>()).unwrap();
        // Some have inputs without gradients alone, or integers in this sample.
        let Some(output) = run(&watched).iter().position(Tensor::is_watched) else {
            bench(&mut group, gpu, entry.name, || run(&constants));
            continue;
        };
        both(&mut group, gpu, entry.name, &|| run(&constants).remove(output), &|| run(&watched).remove(output));
    }
}

criterion_group!(benches, peers, operators);
criterion_main!(benches);

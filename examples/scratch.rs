#![allow(unsafe_code)]
use wgrad::gpu::Gpu;
use wgrad::models::{Classifier, MobileNetV1, MobileNetV1Config};
use wgrad::nn::{Mode, Module, Parameters};
use wgrad::ops::Activation;
use wgrad::optim::{Optimizer, Sgd, SgdConfig};
use wgrad::tensor::Tensor;
use wgrad::train::Capture;
unsafe extern "C" {
    fn clock_gettime(c: i32, t: *mut [i64; 2]) -> i32;
}
#[allow(unsafe_code)]
fn cpu() -> f64 {
    let mut t = [0i64; 2];
    unsafe { clock_gettime(3, &mut t) };
    t[0] as f64 + t[1] as f64 * 1e-9
}
fn all() -> f64 {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|t| {
            std::fs::read_to_string(t.unwrap().path().join("schedstat")).unwrap().split(' ').next().unwrap().parse::<f64>().unwrap() * 1e-9
        })
        .sum()
}
fn main() {
    let begun = std::time::Instant::now();
    let gpu = Gpu::new().unwrap();
    let n: usize = std::env::args().nth(1).map_or(32, |a| a.parse().unwrap());
    let params = Parameters::new(&gpu, 0);
    let config = MobileNetV1Config { width: 0.25, stem_stride: 1, activation: Activation::Relu, ..Default::default() };
    let model = Classifier::new(&params, MobileNetV1::new(&params, config).unwrap(), 10).unwrap();
    let mut optimizer = Sgd::new(&params, SgdConfig { momentum: 0.9, ..Default::default() }).unwrap();
    let data: Vec<f32> = (0..n * 32 * 32 * 3).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let x = Tensor::from_slice(&gpu, &data, [n, 32, 32, 3]).unwrap();
    let labels = Tensor::from_slice(&gpu, &(0..n as i32).map(|i| i % 10).collect::<Vec<i32>>(), [n]).unwrap();
    let mut capture = Capture::new(&gpu);
    let inputs = vec![x, labels];
    let mut step = || {
        let loss = capture
            .run(&inputs, |b: &Vec<Tensor>| {
                let loss = model.forward(&b[0], Mode::Train)?.cross_entropy(&b[1], 0.0)?;
                optimizer.step(&loss.backward()?, 0.01)?;
                Ok(loss)
            })
            .unwrap();
        loss
    };
    println!("loss {}", step().item().unwrap());
    println!("first step at {:.2} s, compile {:.2} s", begun.elapsed().as_secs_f64(), gpu.compile_seconds());
    step().item().unwrap();
    println!("memory {:?}", gpu.memory());
    let mut times: Vec<(f64, f64, f64)> = (0..15)
        .map(|_| {
            let (w, c, a) = (std::time::Instant::now(), cpu(), all());
            let loss = step();
            let host = cpu() - c;
            loss.item().unwrap();
            (w.elapsed().as_secs_f64() * 1e3, host * 1e6, (all() - a) * 500.0)
        })
        .collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let program = capture.program().unwrap();
    println!("wall {:.1} ms, host {:.0} us, cpu/2 {:.1} ms; least {:?}", times[7].0, times[7].1, times[7].2, times[0]);
    println!("{} dispatches, {:?}", program.dispatches(), program.liveness());
    gpu.synchronize().unwrap();
    let c = cpu();
    let wall = std::time::Instant::now();
    for _ in 0..60 {
        program.replay().unwrap();
    }
    println!(
        "replay: {:.3} us a dispatch, wall {:.2}",
        (cpu() - c) * 1e6 / (60 * program.dispatches()) as f64,
        wall.elapsed().as_secs_f64()
    );
    gpu.synchronize().unwrap();
    let mut t: Vec<f64> = (0..60)
        .map(|_| {
            gpu.synchronize().unwrap();
            let c = cpu();
            program.replay().unwrap();
            (cpu() - c) * 1e6 / program.dispatches() as f64
        })
        .collect();
    t.sort_by(f64::total_cmp);
    println!("replay on an idle device: median {:.3}, least {:.3} us", t[30], t[0]);
    println!("time(5): {:?}", program.time(5).unwrap());
    let mut by: std::collections::BTreeMap<String, (usize, f64)> = Default::default();
    for i in program.profile().unwrap() {
        let e = by.entry(i.kernel.to_string()).or_default();
        e.0 += 1;
        e.1 += i.end_seconds - i.begin_seconds;
    }
    let mut list: Vec<_> = by.into_iter().collect();
    list.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let total: f64 = list.iter().map(|e| e.1.1).sum();
    println!("profile total {:.1} ms", total * 1e3);
    for (k, (c, s)) in list.iter().take(24) {
        println!("{k:50} {c:4} {:7.2} ms {:5.1} %", s * 1e3, s / total * 100.0);
    }
    println!("{} shaders", gpu.built_shaders().len());
}

//! Kernels: `cargo bench --bench kernels [FILTER]`, each once by
//! `cargo bench --bench kernels -- --test`.
//!
//! The workloads of `wgrad bench`: those that other libraries were measured on, and every operator
//! on its largest sample. A time includes submitting and waiting for the device; compiling falls
//! into the warm-up. `WGRAD_BENCH=cpu` takes the processor's time of all threads, which says more
//! on a software driver and a shared machine.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use wgrad::bench::clock::processor_seconds;
use wgrad::bench::workloads;
use wgrad::gpu::Gpu;

fn now(start: &Instant) -> Duration {
    if std::env::var("WGRAD_BENCH").is_ok_and(|what| what == "cpu") {
        return Duration::from_secs_f64(processor_seconds().expect("WGRAD_BENCH=cpu needs a system that tells"));
    }
    start.elapsed()
}

fn suite(c: &mut Criterion, name: &str) {
    let gpu = Gpu::new().unwrap();
    let start = Instant::now();
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for workload in workloads(name, gpu.capabilities()) {
        group.bench_function(&workload.name, |b| {
            let mut step = (workload.make)(&gpu).unwrap().step;
            step().unwrap();
            let (_, program) = gpu.capture(&mut step).unwrap();
            b.iter_custom(|times| {
                let begun = now(&start);
                for _ in 0..times {
                    program.replay().unwrap();
                    gpu.synchronize().unwrap();
                }
                now(&start) - begun
            });
        });
    }
}

fn peers(c: &mut Criterion) {
    suite(c, "peers");
}

fn registry(c: &mut Criterion) {
    suite(c, "registry");
}

criterion_group!(benches, peers, registry);
criterion_main!(benches);

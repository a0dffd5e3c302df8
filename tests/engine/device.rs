//! The device layer: recording order, pool, limits, reading back, errors.

use std::sync::Arc;

use crate::common::{gpu, options};
use wgrad::error::Error;
use wgrad::gpu::{Gpu, GpuOptions, Kernel, Launch};
use wgrad::params;
use wgrad::tensor::{DType, Tensor};

fn double() -> Kernel {
    Kernel::new(
        "double",
        r#"
        {% include "grid.wgsl" %}
        {{ input(0, "x") }}
        {{ output(1, "y") }}
        {{ params("n: u32") }}
        @compute @workgroup_size(1)
        fn run(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
            let i = group_index(wid, nwg);
            if (i < p.n) { store_y(i, 2.0 * load_x(i)); }
        }"#,
    )
}

fn launch_double(x: &Tensor, y: &Tensor) -> wgrad::error::Result<()> {
    Launch::new(x.gpu(), &double(), "run").read(x).write(y).params(params![x.numel()]).groups(x.numel())
}

/// Upload, launch, drop, upload into the recycled buffer, launch, one submission: both results are
/// right.
#[test]
fn recycled_buffers_keep_recording_order() {
    let gpu = Gpu::with(GpuOptions { poison: false, ..options() }).unwrap();
    let before = gpu.counters().submits;
    let first = Tensor::empty(&gpu, [1000], DType::F32).unwrap();
    let second = Tensor::empty(&gpu, [1000], DType::F32).unwrap();
    let x = Tensor::from_slice(&gpu, &[1.0f32; 1000], [1000]).unwrap();
    launch_double(&x, &first).unwrap();
    let allocations = gpu.memory().allocations;
    drop(x);
    let x = Tensor::from_slice(&gpu, &[10.0f32; 1000], [1000]).unwrap();
    assert_eq!(gpu.memory().allocations, allocations, "the buffer was not recycled, so the test proves nothing");
    launch_double(&x, &second).unwrap();
    assert_eq!(gpu.counters().submits, before, "the commands were not in one submission");
    assert_eq!(first.to_vec::<f32>().unwrap(), vec![2.0; 1000]);
    assert_eq!(second.to_vec::<f32>().unwrap(), vec![20.0; 1000]);
    assert_eq!(gpu.counters().submits, before + 2);
}

#[test]
fn more_workgroups_than_fit_along_one_axis_are_folded() {
    let gpu = gpu();
    let n = 70_001;
    let data: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let x = Tensor::from_slice(&gpu, &data, [n]).unwrap();
    let y = Tensor::empty(&gpu, [n], DType::F32).unwrap();
    launch_double(&x, &y).unwrap();
    assert!(y.to_vec::<f32>().unwrap().iter().zip(&data).all(|(y, x)| *y == 2.0 * x));
}

#[test]
fn many_dispatches_are_few_submissions() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [64], 1.0, DType::F32).unwrap();
    gpu.synchronize().unwrap();
    let before = gpu.counters();
    let mut y = x;
    for _ in 0..300 {
        y = y.neg().unwrap();
    }
    assert_eq!(y.to_vec::<f32>().unwrap(), vec![1.0; 64]);
    let after = gpu.counters();
    assert!(after.dispatches - before.dispatches >= 300);
    assert!(after.submits - before.submits <= 4, "{} submissions", after.submits - before.submits);
}

#[test]
fn reading_later_reads_the_value_of_its_place_in_the_order() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [3], 1.0, DType::F32).unwrap();
    let early = x.read_later().unwrap();
    x.write(&[5.0f32; 3]).unwrap();
    let late = pollster::block_on(x.read_later().unwrap()).unwrap();
    assert_eq!(late, bytemuck::cast_slice::<f32, u8>(&[5.0; 3]));
    assert_eq!(early.wait().unwrap(), bytemuck::cast_slice::<f32, u8>(&[1.0; 3]));
}

#[test]
fn handles_work_from_several_threads() {
    let gpu = gpu();
    // Often enough that one thread's poll collects the answer to another's read.
    let threads: Vec<_> = (0..8)
        .map(|t| {
            let gpu = gpu.clone();
            std::thread::spawn(move || {
                for i in 0..200 {
                    let value = (t * 100 + i) as f32;
                    let y = Tensor::full(&gpu, [257], value, DType::F32).unwrap().neg().unwrap();
                    assert_eq!(y.to_vec::<f32>().unwrap(), vec![-value; 257]);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn a_small_budget_is_a_typed_error_and_frees_what_it_kept() {
    let gpu = Gpu::with(GpuOptions { memory_budget_bytes: Some(1 << 20), poison: false, ..options() }).unwrap();
    let keep = Tensor::full(&gpu, [1000], 3.0, DType::F32).unwrap();
    match Tensor::empty(&gpu, [1 << 20], DType::F32) {
        Err(Error::OutOfMemory(message)) => assert!(message.contains("budget of 1048576 bytes"), "{message}"),
        other => panic!("{other:?}"),
    }
    // Different sizes one after the other: what is kept for reuse must give way.
    for elements in [50_000usize, 100_000, 150_000, 200_000] {
        Tensor::full(&gpu, [elements], 1.0, DType::F32).unwrap();
    }
    assert_eq!(keep.to_vec::<f32>().unwrap(), vec![3.0; 1000]);
    assert!(gpu.memory().held <= 1 << 20);
}

#[test]
fn a_destroyed_device_is_a_typed_error_and_a_new_one_works() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [8], 1.0, DType::F32).unwrap();
    let y = x.neg().unwrap();
    gpu.destroy();
    assert!(matches!(y.to_vec::<f32>(), Err(Error::DeviceLost(_))));
    assert!(matches!(x.neg(), Err(Error::DeviceLost(_))));
    assert!(matches!(Tensor::zeros(&gpu, [1], DType::F32), Err(Error::DeviceLost(_))));
    assert_eq!(Tensor::full(&crate::common::gpu(), [2], 4.0, DType::F32).unwrap().to_vec::<f32>().unwrap(), [4.0, 4.0]);
}

#[test]
fn unknown_adapters_are_named_with_the_known_ones() {
    let error = Gpu::with(GpuOptions { adapter: Some("no such adapter".into()), ..Default::default() }).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Adapter(_)) && message.contains("no such adapter") && message.contains("0: "), "{message}");
}

fn refused(gpu: &Gpu, kernel: &Kernel, bind: impl Fn(Launch) -> Launch) -> Error {
    bind(Launch::new(gpu, kernel, "run")).groups(1).unwrap_err()
}

#[test]
fn kernels_from_outside_are_checked_before_they_are_launched() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [4], 1.0, DType::F32).unwrap();
    let labels = Tensor::from_slice(&gpu, &[1i32, 2], [2]).unwrap();
    let words = |error: Error, expected: &str| {
        assert!(matches!(error, Error::Shader { .. } | Error::Dtype { .. }) && error.to_string().contains(expected), "{error}");
    };
    words(refused(&gpu, &Kernel::new("broken", "fn run( {"), |l| l), "shader broken");
    words(refused(&gpu, &Kernel::new("typed", "@compute @workgroup_size(1) fn run() { let x: f32 = 1u; }"), |l| l), "shader typed");
    words(refused(&gpu, &Kernel::new("other", "@compute @workgroup_size(1) fn walk() {}"), |l| l), "no entry point \"run\"; it has: walk");
    words(refused(&gpu, &Kernel::new("template", "{{ input(0, \"x\", width=3) }}"), |l| l), "width 3");
    words(refused(&gpu, &double(), |l| l.read(&x)), "1 buffers were bound, the text declares 2 (x, y)");
    words(refused(&gpu, &double(), |l| l.read(&x).read(&x).params(params![4u32])), "y is bound to be only read");
    words(refused(&gpu, &double(), |l| l.read(&labels).write(&x).params(params![4u32])), "x is declared as F32");
    words(refused(&gpu, &double(), |l| l.read(&x).write(&x.neg().unwrap())), "0 parameters were given, the text declares 1");
    words(refused(&gpu, &double(), |l| l.read(&x).write(&x.neg().unwrap()).params(params![1.5f32])), "parameter n is declared as U32");
}

#[test]
fn reads_out_of_bounds_by_outside_text_stay_inside_the_buffer() {
    let gpu = gpu();
    let kernel = Kernel::new(
        "outside",
        r#"{{ input(0, "x") }} {{ output(1, "y") }} {{ params("n: u32") }}
        @compute @workgroup_size(1) fn run() { store_y(0u, load_x(p.n)); store_y(p.n, 1.0); }"#,
    );
    let x = Tensor::full(&gpu, [4], 1.0, DType::F32).unwrap();
    let y = Tensor::empty(&gpu, [4], DType::F32).unwrap();
    Launch::new(&gpu, &kernel, "run").read(&x).write(&y).params(params![1_000_000_000u32]).groups(1).unwrap();
    gpu.synchronize().unwrap();
    assert_eq!(x.to_vec::<f32>().unwrap(), vec![1.0; 4]);
}

#[test]
fn plain_wgsl_without_any_template_can_be_launched() {
    let gpu = gpu();
    let kernel = Kernel::new(
        "plain",
        "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(4) fn run(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = f32(id.x); }",
    );
    let y = Tensor::empty(&gpu, [4], DType::F32).unwrap();
    Launch::new(&gpu, &kernel, "run").write(&y).invocations(4).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn default_limits_of_a_browser_are_enough() {
    let gpu = Gpu::with(GpuOptions { webgpu_limits: true, ..options() }).unwrap();
    let caps = gpu.capabilities();
    assert!(!caps.immediates && !caps.subgroups && !caps.f16 && caps.max_storage_buffers == 8 && caps.max_binding_bytes == 128 << 20);
    let x = Arc::new(Tensor::full(&gpu, [300], 2.0, DType::F32).unwrap());
    let mut y = (*x).clone();
    for _ in 0..600 {
        y = y.neg().unwrap();
    }
    assert_eq!(y.to_vec::<f32>().unwrap(), vec![2.0; 300]);
}

/// The kernel runs in a process of its own: nothing can stop a loop on a software driver. That
/// process goes on after the timeout, drops everything, and ends by itself.
#[test]
fn a_kernel_that_does_not_end_is_a_typed_error_and_blocks_nothing() {
    const CHILD: &str = "WGRAD_TEST_ENDLESS";
    let name = "device::a_kernel_that_does_not_end_is_a_typed_error_and_blocks_nothing";
    let Ok(way) = std::env::var(CHILD) else {
        for way in ["read", "await", "synchronize", "submit", "replay"] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let output = child.args([name, "--exact", "--nocapture"]).env(CHILD, way).env("WGRAD_TIMEOUT_SECONDS", "1").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            // A GPU's own watchdog may be faster, and takes the device.
            assert!(text.contains("did not end within 1 s") || text.contains("the GPU device was lost"), "{way}: {text}");
            assert!(output.status.success() && text.contains("all later calls failed"), "{way}: {text}");
        }
        return;
    };
    let kernel = Kernel::new(
        "endless",
        r#"{{ inout(0, "y") }}
        @compute @workgroup_size(1) fn run() { loop { store_y(0u, load_y(0u) + 1.0); if (load_y(0u) < 0.0) { break; } } }"#,
    );
    let gpu = gpu();
    let (y, other) = (Tensor::full(&gpu, [1], 1.0, DType::F32).unwrap(), Tensor::full(&gpu, [1], 1.0, DType::F32).unwrap());
    gpu.synchronize().unwrap();
    // llvmpipe leaves a loop after 65,535 rounds, so it takes many of them.
    let endless = || Launch::new(&gpu, &kernel, "run").write(&y).groups(1_000_000);
    let first = match way.as_str() {
        "read" => endless().and_then(|()| y.to_vec::<f32>().map(drop)),
        "await" => endless().and_then(|()| pollster::block_on(y.read_later()?).map(drop)),
        "synchronize" => endless().and_then(|()| pollster::block_on(gpu.synchronize_async())),
        // More submissions than may be in flight.
        "submit" => endless().and_then(|()| (0..40).try_for_each(|_| other.neg().and_then(|_| gpu.flush()))),
        _ => gpu.capture(endless).and_then(|(_, program)| program.time(1).map(drop)),
    };
    let first = first.unwrap_err();
    println!("{first}");
    let later = [
        other.to_vec::<f32>().map(drop),
        gpu.synchronize(),
        other.neg().map(drop),
        pollster::block_on(async { other.read_later()?.await.map(drop) }),
    ];
    assert!(later.iter().all(|result| result == &Err(first.clone())), "{later:?}");
    gpu.destroy();
    println!("all later calls failed");
}

#[test]
#[allow(unsafe_code)]
fn kernels_of_one_name_are_told_apart_by_text_and_constants() {
    let gpu = gpu();
    let y = Tensor::full(&gpu, [1], 0.0, DType::F32).unwrap();
    let run = |kernel: &Kernel, defines: &[(&str, &str)]| {
        let launch = Launch::new(&gpu, kernel, "run").write(&y);
        defines.iter().fold(launch, |launch, (name, value)| launch.define(name, *value)).groups(1).unwrap();
        y.item().unwrap()
    };
    const FIRST: &str = r#"{{ output(0, "y") }} @compute @workgroup_size(1) fn run() { store_y(0u, 1.0); }"#;
    const SECOND: &str = r#"{{ output(0, "y") }} @compute @workgroup_size(1) fn run() { store_y(0u, 2.0); }"#;
    // SAFETY: index 0 lies in every binding.
    let trusted = |text| unsafe { Kernel::trusted("one", text) };
    assert_eq!([FIRST, SECOND, FIRST].map(|text| run(&trusted(text), &[])), [1.0, 2.0, 1.0]);
    assert_eq!([SECOND, FIRST].map(|text| run(&Kernel::new("one", text), &[])), [2.0, 1.0]);
    // Trusted and not are two builds of one text.
    assert_eq!(gpu.built_shaders().iter().filter(|s| s.kernel == "one").count(), 4);
    let joined =
        r#"{{ output(0, "y") }} @compute @workgroup_size(1) fn run() { store_y(0u, {% if a == "1" %}3.0{% else %}4.0{% endif %}); }"#;
    let joined = Kernel::new("joined", joined);
    assert_eq!(run(&joined, &[("a", "1"), ("b", "2")]), 3.0);
    assert_eq!(run(&joined, &[("a", "1 b=2")]), 4.0);
}

/// Rounds as many as it is told, by two loops in each other; `n` invocations.
fn rounds_of(gpu: &Gpu, name: &str, times: u32, inner: u32) -> Result<Vec<f32>, Error> {
    let kernel = Kernel::new(
        name,
        r#"{{ inout(0, "y") }} {{ params("times: u32, inner: u32") }}
        fn once(v: f32) -> f32 { var sum = v; for (var j = 0u; j < p.inner; j++) { sum += 1.0; } return sum; }
        @compute @workgroup_size(4) fn run(@builtin(local_invocation_index) i: u32) {
            if (p.times == 0u) { return; }
            for (var k = 0u; k < p.times; k++) { store_y(i, once(load_y(i))); }
        }"#,
    );
    let y = Tensor::zeros(gpu, [4], DType::F32)?;
    Launch::new(gpu, &kernel, "run").write(&y).params(params![times, inner]).groups(1)?;
    y.to_vec()
}

#[test]
fn a_kernel_from_outside_whose_loops_the_driver_leaves_is_an_error_by_name() {
    let software = gpu().capabilities().kind == wgrad::gpu::AdapterKind::Software;
    for webgpu_limits in [false, true] {
        // As users run it, without poisoned memory.
        let gpu = Gpu::with(GpuOptions { webgpu_limits, poison: false, ..options() }).unwrap();
        assert_eq!(rounds_of(&gpu, "none", 0, 0).unwrap(), [0.0; 4]);
        assert_eq!(rounds_of(&gpu, "empty_inside", 32_000, 0).unwrap(), [0.0; 4]);
        assert_eq!(rounds_of(&gpu, "nested", 100, 600).unwrap(), [60_000.0; 4]);
        let long = rounds_of(&gpu, "too_long", 300, 300);
        if !software {
            assert_eq!(long.unwrap(), [90_000.0; 4]);
            continue;
        }
        let error = long.unwrap_err();
        assert!(error.to_string().contains("too_long") && error.to_string().contains("65535 rounds"), "{error}");
        // Numbers are missing, so the device is not to be trusted.
        assert_eq!(Tensor::zeros(&gpu, [1], DType::F32).and_then(|y| y.to_vec::<f32>()).unwrap_err(), error);
    }
}

#[test]
fn a_declared_walk_beyond_the_driver_is_refused_before_it_runs() {
    let gpu = gpu();
    let kernel = Kernel::new("declared", r#"{{ inout(0, "y") }} @compute @workgroup_size(1) fn run() { store_y(0u, 1.0); }"#);
    let y = Tensor::zeros(&gpu, [1], DType::F32).unwrap();
    let launch = |rounds: usize| Launch::new(&gpu, &kernel, "run").write(&y).walk(rounds).groups(1);
    launch(65_534).unwrap();
    if gpu.capabilities().kind == wgrad::gpu::AdapterKind::Software {
        let error = launch(65_535).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }) && error.to_string().contains("65535 rounds of loops"), "{error}");
    }
    assert_eq!(y.to_vec::<f32>().unwrap(), [1.0]);
}

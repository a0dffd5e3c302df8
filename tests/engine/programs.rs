//! Captured programs: every operator's sample gives the same bits when it is run again on other
//! numbers as when it is called; what a program holds, what it refuses, what it measures.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{gpu, gpus, options};
use wgrad::error::Error;
use wgrad::gpu::{Gpu, GpuOptions, Kernel, Launch, Scalar, ScalarCell, TimedBy};
use wgrad::ops::{Array, Operator, apply_shared, registry::registry, sample::Sample};
use wgrad::params;
use wgrad::tensor::{DType, Tensor};

/// The bits of the outputs of `operator` and of the gradients of everything that has one.
fn results(operator: &Arc<dyn Operator>, inputs: &[Tensor]) -> wgrad::error::Result<Vec<Tensor>> {
    let differentiable = operator.differentiable();
    let watched: Vec<Tensor> =
        inputs.iter().enumerate().map(|(i, t)| if differentiable.contains(&i) { t.watch() } else { t.clone() }).collect();
    let outputs = apply_shared(operator.clone(), &watched.iter().collect::<Vec<_>>())?;
    let mut all: Vec<Tensor> = outputs.iter().map(Tensor::detach).collect();
    if let Some(output) = outputs.iter().find(|o| o.is_watched()) {
        // A cotangent without an upload: the output itself.
        let gradients = output.backward_from(&output.detach())?;
        all.extend(watched.iter().filter_map(|t| gradients.get(t).cloned()));
    }
    // Operators that write in place change their inputs.
    all.extend(operator.mutates().into_iter().filter_map(|i| inputs.get(i).cloned()));
    Ok(all)
}

fn bits(tensors: &[Tensor]) -> Vec<Vec<u64>> {
    tensors.iter().map(|t| t.to_f64().unwrap().iter().map(|v| v.to_bits()).collect()).collect()
}

fn upload(gpu: &Gpu, arrays: &[Array]) -> Vec<Tensor> {
    arrays.iter().map(|a| a.upload(gpu).unwrap()).collect()
}

fn rewrite(tensors: &[Tensor], arrays: &[Array]) {
    for (tensor, array) in tensors.iter().zip(arrays) {
        match tensor.dtype() {
            DType::I32 => tensor.write(&array.data.iter().map(|v| *v as i32).collect::<Vec<_>>()).unwrap(),
            DType::F32 => tensor.write(&array.data.iter().map(|v| *v as f32).collect::<Vec<_>>()).unwrap(),
            DType::F16 => unreachable!("samples hold f32"),
        }
    }
}

#[test]
fn every_operator_replays_as_it_runs() {
    let mut unlisted = BTreeSet::new();
    for (schedule, gpu) in gpus() {
        let mut count = 0;
        for entry in registry() {
            for (number, sample) in (entry.samples)().into_iter().enumerate() {
                // Integers of other seeds may lie outside the range that the shape rule was told,
                // so floats alone change.
                let (first, other) = (sample.arrays(0), sample.arrays(1));
                let second: Vec<Array> = first.iter().zip(other).map(|(a, b)| if a.dtype == DType::I32 { a.clone() } else { b }).collect();
                let Sample { operator, .. } = sample;
                let operator: Arc<dyn Operator> = Arc::from(operator);
                let expected = bits(&results(&operator, &upload(&gpu, &second)).unwrap());
                let inputs = upload(&gpu, &first);
                let what = format!("{} sample {number} on {schedule}", entry.name);
                let (outputs, program) = gpu.capture(|| results(&operator, &inputs)).unwrap_or_else(|e| panic!("{what}: {e}"));
                // The list of the registry is whole, but for what the tape and the device do.
                let listed = entry.shaders();
                for (kernel, _) in program.kernels() {
                    let file = kernel.split(':').next().unwrap();
                    let below = file.starts_with("autograd/") || file.starts_with("gpu/");
                    if !below && !listed.contains(&file) {
                        unlisted.insert(format!("{} launches {file}", entry.name));
                    }
                }
                rewrite(&inputs, &second);
                program.replay().unwrap();
                assert_eq!(bits(&outputs), expected, "{what}");
                count += 1;
            }
        }
        println!("{count} samples replayed on {schedule}");
        assert!(count > 200);
    }
    assert!(unlisted.is_empty(), "entries do not name all kernels: {unlisted:?}");
}

#[test]
fn scalars_are_looked_up_before_each_run() {
    let gpu = gpu();
    let kernel = Kernel::new(
        "fill_with",
        r#"{% include "grid.wgsl" %}
        {{ output(0, "y") }} {{ params("a: f32, b: u32") }}
        @compute @workgroup_size(4)
        fn main(@builtin(local_invocation_index) lane: u32) { store_y(lane, p.a + f32(p.b)); }"#,
    );
    let y = Tensor::empty(&gpu, [4], DType::F32).unwrap();
    let (a, b) = (ScalarCell::new(0.5f32), ScalarCell::new(3u32));
    let twice: Scalar<f32> = a.scalar().map(|a| 2.0 * a);
    let run = || Launch::new(&gpu, &kernel, "main").write(&y).params(params![&twice, b.scalar()]).groups(1);
    let ((), program) = gpu.capture(run).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [4.0; 4]);
    a.set(10.0);
    b.set(1);
    program.replay().unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [21.0; 4]);
    // The types are still those that the text declares.
    assert!(Launch::new(&gpu, &kernel, "main").write(&y).params(params![b.scalar(), &twice]).groups(1).is_err());
}

#[test]
fn temperatures_may_vary_from_run_to_run() {
    let gpu = gpu();
    let array = |seed| Sample::cotangent(&[6, 9].into(), seed).upload(&gpu).unwrap();
    let (x, z, center) = (array(1), array(2), Tensor::full(&gpu, [9], 0.1, DType::F32).unwrap());
    let cell = ScalarCell::new(0.5f32);
    let work = |t: &dyn Fn() -> Scalar| {
        let x = x.watch();
        let loss = x.softmax_with_temperature(-1, t())?.mul(&z)?.sum(&[0, 1], false)?.add(&x.nt_xent(&z, t())?)?.add(&x.dino_loss(
            &z,
            &center,
            0.1,
            t(),
        )?)?;
        let gradient = loss.backward()?.get(&x).cloned();
        Ok(vec![loss.detach(), gradient.unwrap()])
    };
    let (outputs, program) = gpu.capture(|| work(&|| cell.scalar())).unwrap();
    for temperature in [0.5, 0.04, 2.0] {
        cell.set(temperature);
        program.replay().unwrap();
        assert_eq!(bits(&outputs), bits(&work(&|| temperature.into()).unwrap()), "temperature {temperature}");
    }
}

#[test]
fn effects_happen_at_their_place_in_every_run() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [1], 1.0, DType::F32).unwrap();
    let count = ScalarCell::new(0u32);
    let before = count.scalar().map(|n| n as f32);
    let (sum, program) = gpu
        .capture(|| {
            let (kernel, y) = (ADD.clone(), Tensor::empty(&gpu, [1], DType::F32)?);
            let add = |s: &Scalar<f32>| Launch::new(&gpu, &kernel, "main").read(&x).write(&y).params(params![s]).groups(1);
            add(&before)?;
            let counted = count.clone();
            gpu.each_run(move || counted.set(counted.get() + 1));
            add(&before.map(|n| n * 100.0))?;
            Ok(y)
        })
        .unwrap();
    // The second launch overwrites: it saw the count after the effect.
    assert_eq!(sum.to_vec::<f32>().unwrap(), [101.0]);
    program.replay().unwrap();
    assert_eq!(sum.to_vec::<f32>().unwrap(), [201.0]);
    assert_eq!(count.get(), 2);
}

static ADD: std::sync::LazyLock<Kernel> = std::sync::LazyLock::new(|| {
    Kernel::new(
        "add_scalar",
        r#"{{ input(0, "x") }} {{ output(1, "y") }} {{ params("s: f32") }}
        @compute @workgroup_size(1) fn main() { store_y(0u, load_x(0u) + p.s); }"#,
    )
});

#[test]
fn what_cannot_be_part_of_a_program_is_refused() {
    let gpu = gpu();
    let x = Tensor::full(&gpu, [3], 2.0, DType::F32).unwrap();
    let refused = |work: &dyn Fn() -> wgrad::error::Result<()>, words: &str| {
        let error = gpu.capture(work).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&|| x.to_vec::<f32>().map(|_| ()), "a host read cannot be part of a captured program");
    refused(&|| x.write(&[1.0f32; 3]), "an upload cannot be part of a captured program");
    refused(&|| gpu.capture(|| Ok(())).map(|_| ()), "another capture is under way");
    let ((), program) = gpu.capture(|| Ok(())).unwrap();
    refused(&|| program.replay(), "running a program cannot be part");
    let panicking = std::panic::AssertUnwindSafe(|| gpu.capture(|| -> wgrad::error::Result<()> { panic!("a user's mistake") }));
    assert!(std::panic::catch_unwind(panicking).is_err());
    // An error or a panic ends the capture, and the device goes on.
    assert!(!gpu.is_capturing() && gpu.capture(|| x.square()).is_ok());
    assert_eq!(x.square().unwrap().to_vec::<f32>().unwrap(), [4.0; 3]);
}

#[test]
fn a_program_has_memory_of_its_own_and_gives_it_back() {
    let gpu = Gpu::with(GpuOptions { poison: false, ..crate::common::options() }).unwrap();
    let x = Tensor::full(&gpu, [100_000], 2.0, DType::F32).unwrap();
    // Each step's input ends with it, so two of the three live at once.
    let work = || {
        let square = x.square()?;
        let sum = square.add_scalar(1.0)?;
        drop(square);
        sum.mul_scalar(3.0)
    };
    assert_eq!(work().unwrap().to_vec::<f32>().unwrap()[0], 15.0);
    let (y, program) = gpu.capture(work).unwrap();
    let held = gpu.memory().held;
    // Tensors made between runs never lie in the program's memory.
    let others: Vec<Tensor> = (0..5).map(|i| Tensor::full(&gpu, [100_000], i as f32, DType::F32).unwrap()).collect();
    program.replay().unwrap();
    for (i, other) in others.iter().enumerate() {
        assert!(other.to_vec::<f32>().unwrap().iter().all(|v| *v == i as f32));
    }
    assert_eq!(y.to_vec::<f32>().unwrap(), vec![15.0; 100_000]);
    let liveness = program.liveness();
    assert_eq!(liveness.bound, 2 * 400_000, "two of the three live at once");
    assert_eq!(liveness.outside, 400_000);
    assert!(liveness.held >= liveness.bound && liveness.held <= liveness.bound * 9 / 8 + 512, "{liveness:?}");
    drop((y, program, others));
    // What it held serves others now.
    let made = gpu.memory().allocations;
    let _again: Vec<Tensor> = (0..7).map(|_| Tensor::full(&gpu, [100_000], 0.0, DType::F32).unwrap()).collect();
    assert_eq!((gpu.memory().allocations, gpu.memory().held >= held), (made, true));
    // What a program uses from outside stays its own, even when nobody else holds it.
    let (y, program) = {
        let inner = Tensor::full(&gpu, [1000], 7.0, DType::F32).unwrap();
        gpu.capture(|| inner.square()).unwrap()
    };
    let _other = Tensor::full(&gpu, [1000], 1.0, DType::F32).unwrap();
    program.replay().unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap()[0], 49.0);
}

#[test]
fn programs_are_timed_and_profiled() {
    let gpu = gpu();
    let (a, b) = (Tensor::full(&gpu, [128, 128], 0.5, DType::F32).unwrap(), Tensor::full(&gpu, [128, 128], 0.25, DType::F32).unwrap());
    let (_y, program) = gpu.capture(|| a.matmul(&b)?.softmax(-1)).unwrap();
    let timing = program.time(3).unwrap();
    assert!(timing.host_seconds > 0.0 && timing.host_seconds <= timing.wall_seconds);
    let stamps = gpu.capabilities().timestamps;
    assert!(!stamps || timing.device_seconds.is_some_and(|s| s > 0.0 && s <= timing.wall_seconds), "{timing:?}");
    let by_hand = TimedBy::WallClock { reason: "asked for".into() };
    let (profile, clock) = program.profile().unwrap();
    assert!(!stamps || clock == TimedBy::TimeStamps, "{clock:?}");
    for profile in [profile, program.profile_by(&by_hand).unwrap()] {
        assert_eq!(profile.len(), program.dispatches());
        assert!(profile.iter().any(|i| i.kernel.starts_with("softmax/")), "{profile:?}");
        assert!(profile.windows(2).all(|w| w[0].end_seconds <= w[1].begin_seconds + 1e-9));
        assert!(profile.iter().all(|i| i.end_seconds >= i.begin_seconds && i.bytes > 0));
        assert!(profile.iter().any(|i| i.end_seconds > i.begin_seconds));
    }
}

#[test]
fn a_profile_without_time_stamps_is_by_the_wall_clock() {
    let gpu = Gpu::with(GpuOptions { webgpu_limits: true, ..options() }).unwrap();
    let x = Tensor::full(&gpu, [4], 1.0, DType::F32).unwrap();
    let (y, program) = gpu.capture(|| x.add_scalar(1.0)?.square()).unwrap();
    let (profile, clock) = program.profile().unwrap();
    assert!(matches!(clock, TimedBy::WallClock { reason } if reason.contains("no time stamps")));
    assert!(profile.len() == program.dispatches() && profile.iter().all(|i| i.end_seconds > i.begin_seconds), "{profile:?}");
    assert!(matches!(program.profile_by(&TimedBy::TimeStamps), Err(Error::Limit { .. })));
    assert_eq!(y.to_vec::<f32>().unwrap(), [4.0; 4]);
}

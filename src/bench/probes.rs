//! What this adapter can do at best: kernels that do one thing only (`shaders/bench`). Each is
//! checked before it is timed, by what it must have computed if no step was skipped.

use std::time::Instant;

use super::run::{Gate, Row};
use crate::error::Result;
use crate::gpu::{AdapterKind, Gpu, Kernel, Launch, TimedBy, kernel, rounds};
use crate::ops::Cost;
use crate::params;
use crate::report::{Bound, Peaks, TimeSummary};
use crate::tensor::{DType, Tensor};

const FMA: Kernel = kernel!("bench/fma");
const LOADS: Kernel = kernel!("bench/fma_loads");
const COPY: Kernel = kernel!("bench/copy");
const COUNT: Kernel = kernel!("bench/count");

/// A launch of a probe is made so long that launching it does not count.
const LAUNCH_SECONDS: f64 = 0.01;
/// Far more than a processor's or a GPU's last cache holds.
const FAR_BYTES: usize = 256 << 20;
/// So much lies in every last cache together with its copy.
const NEAR_BYTES: usize = 2 << 20;
/// Dispatches behind one another whose time is compared with that of one.
const DISPATCHES: usize = 200;

/// A kernel that can be made to take as long as is needed.
struct Probe<'a> {
    name: &'static str,
    shape: String,
    tile: String,
    gate: Gate,
    /// Of one round.
    cost: Cost,
    most_rounds: u32,
    launch: Box<dyn Fn(u32) -> Result<()> + 'a>,
}

/// Everything that the probes say, and a row for each. `seconds` is the time for one of them.
///
/// # Errors
/// Those of launching; out of memory.
pub fn measure(gpu: &Gpu, seconds: f64) -> Result<(Peaks, Vec<Row>)> {
    let mut rows = Vec::new();
    let makers: [fn(&Gpu) -> Result<Probe>; 4] = [registers, loads, far_copy, near_copy];
    for make in makers {
        let row = row(gpu, &make(gpu)?, seconds)?;
        rows.push(row);
    }
    let best = |name: &str, per_second: fn(&Row) -> Option<f64>| {
        let row = rows.iter().find(|r| r.name == name && !r.is_wrong());
        row.and_then(|r| Some(per_second(r)? * r.wall_ms.median / r.wall_ms.minimum))
    };
    let mut peaks = Peaks {
        fma_gflops: best("fma_registers", |r| r.gflops),
        loads_gflops: best("fma_loads", |r| r.gflops),
        copy_gbs: best("copy", |r| r.gbs),
        cached_copy_gbs: best("copy_cached", |r| r.gbs),
        matrix_absent: Some("no kernel of wgrad uses cooperative matrices, so its devices do not ask for them".into()),
        ..Default::default()
    };
    rows.extend(launching(gpu, seconds, &mut peaks)?);
    Ok((peaks, rows))
}

fn tensor(gpu: &Gpu, shape: [usize; 2], value: impl Fn(usize) -> f32) -> Result<Tensor> {
    Tensor::from_slice(gpu, &(0..shape.iter().product()).map(value).collect::<Vec<f32>>(), shape)
}

fn gate(what: String, found: &[f32], expected: impl Fn(usize) -> f64, allowed: f64) -> Gate {
    let error = found.iter().enumerate().map(|(i, v)| (f64::from(*v) - expected(i)).abs() / expected(i).abs().max(1.0));
    let worst = error.fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    Gate { passed: Some(worst <= allowed), max_error: Some(worst), against: what }
}

/// Enough workgroups to fill any GPU; few for a software driver, to which starting one is work.
fn groups(gpu: &Gpu) -> usize {
    if gpu.capabilities().kind == AdapterKind::Software { 256 } else { 4096 }
}

fn registers(gpu: &Gpu) -> Result<Probe<'_>> {
    const UNROLLED: usize = 32;
    let software = gpu.capabilities().kind == AdapterKind::Software;
    // A vec4 of a lane is four registers of a processor that runs 8 lanes at once; it has 16.
    let (lanes, chains) = if software { (8, 3) } else { (256, 8) };
    let y = Tensor::empty(gpu, [groups(gpu) * lanes], DType::F32)?;
    let (factor, addend) = (0.999_f32, 0.001_f32);
    let (result, most_rounds) = (y.clone(), 60_000);
    let launch = move |steps: u32| {
        Launch::new(gpu, &FMA, "fma_registers")
            .define("LANES", lanes)
            .define("ACC", chains)
            .define("U", UNROLLED)
            .write(&y)
            .params(params![steps, factor, addend])
            .walk(rounds(steps as usize, 0))
            .groups(groups(gpu))
    };
    let checked = 7;
    launch(checked)?;
    // x f^n + a (1 + f + .. + f^(n-1)), summed over the chains' first values 0, 1, 2, ..
    let (f, a, count) = (f64::from(factor), f64::from(addend), 4 * chains);
    let power = f.powi(checked as i32 * UNROLLED as i32);
    let first = (count * (count - 1) / 2) as f64;
    let expected = first * power + count as f64 * a * (1.0 - power) / (1.0 - f);
    let gate = gate("the closed form of the recurrence, relative".into(), &result.to_vec::<f32>()?, |_| expected, 1e-4);
    Ok(Probe {
        name: "fma_registers",
        shape: format!("{chains} chains of vec4 a lane"),
        tile: format!("LANES={lanes} ACC={chains} U={UNROLLED}"),
        gate,
        cost: Cost { flops: (2 * groups(gpu) * lanes * count * UNROLLED) as f64, bytes: 0.0 },
        most_rounds,
        launch: Box::new(launch),
    })
}

fn loads(gpu: &Gpu) -> Result<Probe<'_>> {
    let caps = gpu.capabilities();
    // Rows and columns of the tile, its depth, and the loops of an invocation in one round.
    let (memory, side, depth, loops) = match (caps.kind, caps.fixed_subgroup()) {
        (AdapterKind::Software, Some(8)) => ("shuffle", 32, 16, 2),
        (AdapterKind::Software, _) => ("storage", 32, 16, 4),
        _ => ("workgroup", 128, 16, 1),
    };
    // Small whole numbers, so that every sum is exact.
    let (a_value, b_value) = (|i: usize| (i * 7 % 5) as f32 - 2.0, |i: usize| (i * 3 % 7) as f32 - 3.0);
    let (a, b) = (tensor(gpu, [side, depth], a_value)?, tensor(gpu, [depth, side], b_value)?);
    let c = Tensor::empty(gpu, [side, side], DType::F32)?;
    let result = c.clone();
    let launch = move |steps: u32| {
        Launch::new(gpu, &LOADS, "fma_loads")
            .define("MEMORY", memory)
            .read(&a)
            .read(&b)
            .write(&c)
            .params(params![steps, depth / 8])
            .walk(rounds(2, 0) + rounds(steps as usize * loops, 0))
            .groups(groups(gpu))
    };
    let checked = 3;
    launch(checked)?;
    let expected = |i: usize| {
        let (row, column) = (i / side, i % side);
        let a_at = |k: usize| if memory == "workgroup" { k * side + row } else { row * depth + k };
        let sum: f32 = (0..depth).map(|k| a_value(a_at(k)) * b_value(k * side + column)).sum();
        f64::from(checked) * f64::from(sum)
    };
    let gate = gate("the exact product of whole numbers".into(), &result.to_vec::<f32>()?, expected, 0.0);
    Ok(Probe {
        name: "fma_loads",
        shape: format!("{side} x {side} x {depth}, the same tile again and again"),
        tile: format!("MEMORY={memory}"),
        gate,
        cost: Cost { flops: (2 * groups(gpu) * side * side * depth) as f64, bytes: 0.0 },
        most_rounds: 60_000 / loops as u32,
        launch: Box::new(launch),
    })
}

fn far_copy(gpu: &Gpu) -> Result<Probe<'_>> {
    let caps = gpu.capabilities();
    let most = caps.max_binding_bytes.min(caps.max_buffer_bytes).min(FAR_BYTES as u64) as usize;
    // A software driver copies in the processor's memory, whose caches are smaller than a
    // data-centre GPU's.
    copy(gpu, "copy", if caps.kind == AdapterKind::Software { most.min(FAR_BYTES / 2) } else { most })
}

fn near_copy(gpu: &Gpu) -> Result<Probe<'_>> {
    copy(gpu, "copy_cached", NEAR_BYTES)
}

fn copy<'a>(gpu: &'a Gpu, name: &'static str, bytes: usize) -> Result<Probe<'a>> {
    // Starting a workgroup of 8 lanes costs a software driver as much as copying a kilobyte.
    let (lanes, vectors, steps) = if gpu.capabilities().kind == AdapterKind::Software { (8, 4, 64) } else { (256, 4, 1) };
    let piece = 16 * lanes * vectors * steps;
    let n = bytes / piece * piece / 4;
    let value = |i: usize| (i % 8191) as f32;
    let x = tensor(gpu, [n, 1], value)?;
    let y = Tensor::empty(gpu, [n], DType::F32)?;
    let result = y.clone();
    // One round is one dispatch: what it copies does not grow.
    let launch = move |times: u32| {
        for _ in 0..times {
            Launch::new(gpu, &COPY, "copy")
                .define("LANES", lanes)
                .define("U", vectors)
                .read(&x)
                .write(&y)
                .params(params![n / 4, steps])
                .walk(rounds(steps, 0))
                .groups(4 * n / piece)?;
        }
        Ok(())
    };
    launch(1)?;
    let gate = gate("its source, exactly".into(), &result.to_vec::<f32>()?, |i| f64::from(value(i)), 0.0);
    Ok(Probe {
        name,
        shape: format!("{} MiB", (4 * n) >> 20),
        tile: format!("LANES={lanes} U={vectors}"),
        gate,
        cost: Cost { flops: 0.0, bytes: 8.0 * n as f64 },
        most_rounds: 256,
        launch: Box::new(launch),
    })
}

fn timed(gpu: &Gpu, work: impl Fn() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    gpu.synchronize()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Measurements until they agree within a percent, or `seconds` are over.
fn repeated(seconds: f64, mut measure: impl FnMut() -> Result<f64>) -> Result<TimeSummary> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    loop {
        times.push(measure()?);
        let sample = TimeSummary::of_seconds(&times);
        if sample.count >= 5 && (begun.elapsed().as_secs_f64() >= seconds || (sample.count >= 20 && sample.is_stable(0.01))) {
            return Ok(sample);
        }
    }
}

fn row(gpu: &Gpu, probe: &Probe, seconds: f64) -> Result<Row> {
    let mut rounds = 1;
    // Rounds are doubled until a launch is long.
    while rounds < probe.most_rounds && timed(gpu, || (probe.launch)(rounds))? < LAUNCH_SECONDS {
        rounds = (2 * rounds).min(probe.most_rounds);
    }
    let wall = repeated(seconds, || timed(gpu, || (probe.launch)(rounds)))?;
    let per_second = |amount: f64| (amount > 0.0).then(|| amount * f64::from(rounds) / wall.median / 1e6);
    let Cost { flops, bytes } = probe.cost;
    Ok(Row {
        suite: "probes".into(),
        name: probe.name.into(),
        group: "probes".into(),
        shape: probe.shape.clone(),
        schedule: gpu.capabilities().schedule.to_string(),
        tile: probe.tile.clone(),
        dtype: "f32".into(),
        gate: probe.gate.clone(),
        wall_ms: wall,
        dispatches: if flops > 0.0 { 1 } else { rounds as usize },
        flops: (flops > 0.0).then_some(flops * f64::from(rounds)),
        bytes: (bytes > 0.0).then_some(bytes * f64::from(rounds)),
        gflops: per_second(flops),
        gbs: per_second(bytes),
        bound: if flops > 0.0 { Bound::Compute } else { Bound::Memory },
        ..Default::default()
    })
}

/// What a submission costs, and one more dispatch in it.
fn launching(gpu: &Gpu, seconds: f64, peaks: &mut Peaks) -> Result<[Row; 2]> {
    let y = Tensor::zeros(gpu, [1], DType::F32)?;
    let count = |times: usize| (0..times).try_for_each(|_| Launch::new(gpu, &COUNT, "count").write(&y).params(params![]).groups(1));
    count(DISPATCHES)?;
    let gate = gate("the number of dispatches".into(), &y.to_vec::<f32>()?, |_| DISPATCHES as f64, 0.0);
    let submit = repeated(seconds / 2.0, || timed(gpu, || count(1)))?;
    let many = repeated(seconds / 2.0, || timed(gpu, || count(DISPATCHES)))?;
    // Both grow with the machine's noise, which the least of many measurements holds least of.
    let each = (many.minimum - submit.minimum).max(0.0) / (DISPATCHES - 1) as f64;
    peaks.submit_microseconds = Some(submit.median * 1e3);
    peaks.dispatch_microseconds = Some(each * 1e3);
    if gpu.capabilities().timestamps {
        let ((), program) = gpu.capture(|| count(DISPATCHES))?;
        if let (intervals, TimedBy::TimeStamps) = program.profile()? {
            let steps = intervals.into_iter().map(|i| i.end_seconds - i.begin_seconds).filter(|step| *step > 0.0);
            peaks.tick_nanoseconds = steps.reduce(f64::min).map(|step| step * 1e9);
        }
    }
    let row = |name: &str, shape: String, wall_ms: TimeSummary, dispatches: usize, note: &str| Row {
        suite: "probes".into(),
        name: name.into(),
        group: "probes".into(),
        shape,
        schedule: gpu.capabilities().schedule.to_string(),
        dtype: "f32".into(),
        gate: gate.clone(),
        wall_ms,
        dispatches,
        bound: Bound::Launch,
        note: note.into(),
        ..Default::default()
    };
    Ok([
        row("submit", "1 dispatch".into(), submit, 1, "recorded, submitted and waited for"),
        row("dispatch", format!("{DISPATCHES} dispatches"), many, DISPATCHES, "dependent on one another, in one submission"),
    ])
}

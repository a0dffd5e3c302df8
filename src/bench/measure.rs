//! Measuring one workload: first run, gate, then many runs of the captured program, with caches
//! warm and with caches cold.

use std::time::Instant;

use super::clock::processor_seconds;
use super::run::{Gate, Row};
use super::workload::{Prepared, Workload};
use crate::error::{Error, Result};
use crate::gpu::{AdapterKind, Bind, Binding, Gpu, Program};
use crate::ops::Cost;
use crate::report::{Bound, Peaks, TimeSummary};
use crate::tensor::{DType, Tensor};

/// How a workload is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Most time for one kind of measurement; fewer where the median stands.
    pub seconds: f64,
    /// Also measure with caches that hold other data.
    pub cold: bool,
    /// Compare a result with its reference first.
    pub gate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 3.0, cold: true, gate: true }
    }
}

/// Runs before anything is timed.
const WARM_UPS: usize = 2;
/// Fewer measurements say nothing of their spread.
const LEAST: usize = 5;
/// The median stands where more measurements would move it by less than this.
const STABLE: f64 = 0.01;

/// A last cache holds this much, even a small one of today.
const CACHED_BYTES: f64 = (16u32 << 20) as f64;

/// What turns caches cold: more than twice what the last of them holds.
pub struct Flush(Option<Tensor>);

impl Flush {
    /// Device memory to write over between two measurements.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(gpu: &Gpu, options: &Options) -> Result<Self> {
        let caps = gpu.capabilities();
        // A desktop processor has up to 32 MiB of cache a core complex, a data-centre GPU 50 to 60.
        let bytes: u64 = if caps.kind == AdapterKind::Software { 96 << 20 } else { 192 << 20 };
        let elements = bytes.min(caps.max_binding_bytes).min(caps.max_buffer_bytes) / 4;
        Ok(Self(options.cold.then(|| Tensor::empty(gpu, [elements as usize], DType::F32)).transpose()?))
    }

    fn run(&self, gpu: &Gpu) -> Result<()> {
        if let Some(tensor) = &self.0 {
            gpu.fill(&tensor.binding(), 0)?;
        }
        gpu.synchronize()
    }
}

/// One element of each result on the host: whoever has it has waited for all the work.
fn first_elements(gpu: &Gpu, results: &[Tensor]) -> Result<Vec<f64>> {
    let pending = results.iter().map(|t| {
        let whole = t.binding();
        Ok((t.dtype(), gpu.read_later(&Binding { bytes: whole.bytes.min(4), ..whole })?))
    });
    let pending = pending.collect::<Result<Vec<_>>>()?;
    pending
        .into_iter()
        .map(|(dtype, pending)| {
            let bytes = pending.wait()?;
            let word = bytes.first_chunk::<4>().copied().unwrap_or_default();
            Ok(match dtype {
                DType::F32 => f64::from(f32::from_le_bytes(word)),
                DType::I32 => f64::from(i32::from_le_bytes(word)),
                DType::F16 => f64::from(half::f16::from_le_bytes([word[0], word[1]])),
            })
        })
        .collect()
}

/// One iteration, from the call until one element of each result is on the host: seconds, and the
/// processor's.
fn iteration(gpu: &Gpu, program: &Program, results: &[Tensor]) -> Result<(f64, Option<f64>)> {
    let (begun, busy) = (Instant::now(), processor_seconds());
    program.replay()?;
    first_elements(gpu, results)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok((seconds, processor_seconds().zip(busy).map(|(after, before)| after - before)))
}

/// Calls `one` until the median of what it gives stands or `seconds` are over.
fn repeat<T>(seconds: f64, mut one: impl FnMut() -> Result<T>, time: impl Fn(&T) -> f64) -> Result<Vec<T>> {
    let (begun, mut found, mut times) = (Instant::now(), Vec::new(), Vec::new());
    loop {
        let value = one()?;
        times.push(time(&value));
        found.push(value);
        let enough =
            begun.elapsed().as_secs_f64() >= seconds || (times.len() >= 4 * LEAST && TimeSummary::of_seconds(&times).is_stable(STABLE));
        if times.len() >= LEAST && enough {
            return Ok(found);
        }
    }
}

/// The device's time stamps, where every one of them makes sense: positive and within the wall's
/// time.
fn device_sample(program: &Program, seconds: f64, before: impl Fn() -> Result<()>) -> Result<Option<TimeSummary>> {
    let timings = repeat(
        seconds,
        || {
            before()?;
            program.time(1)
        },
        |t| t.device_seconds.unwrap_or(t.wall_seconds),
    )?;
    let stamps: Option<Vec<f64>> = timings.iter().map(|t| t.device_seconds.filter(|d| *d > 0.0 && *d <= t.wall_seconds)).collect();
    Ok(stamps.map(|stamps| TimeSummary::of_seconds(&stamps)))
}

/// The kernels of a program with the constants of their variants, each once, in order.
fn kernels(program: &Program) -> String {
    let mut names: Vec<String> = Vec::new();
    for (kernel, variant) in program.kernels() {
        let name = format!("{kernel} {variant}").trim().to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join("; ")
}

/// Measures a workload on a device.
///
/// # Errors
/// Those of making and running it. A result that is wrong is no error: the row's gate says so.
pub fn measure(gpu: &Gpu, workload: &Workload, peaks: &Peaks, flush: &Flush, options: &Options) -> Result<Row> {
    let compiled = gpu.compile_seconds();
    let Prepared { mut step, gate, cost, dtype } = (workload.make)(gpu)?;
    gpu.synchronize()?;
    let begun = Instant::now();
    let first = first_elements(gpu, &step()?)?;
    let first_ms = begun.elapsed().as_secs_f64() * 1e3;
    let built_ms = (gpu.compile_seconds() - compiled) * 1e3;
    let gate = if options.gate { gate()? } else { Gate { against: "not asked for".into(), ..Default::default() } };
    let mut row = Row {
        suite: workload.suite.into(),
        name: workload.name.clone(),
        group: workload.group.clone(),
        shape: workload.shape.clone(),
        schedule: gpu.capabilities().schedule.to_string(),
        dtype: dtype.to_string(),
        gate,
        first_ms,
        check: first.last().copied(),
        ..Default::default()
    };
    let (results, program) = gpu.capture(&mut step)?;
    for _ in 0..WARM_UPS {
        iteration(gpu, &program, &results)?;
    }
    let software = gpu.capabilities().kind == AdapterKind::Software;
    let runs = repeat(options.seconds, || iteration(gpu, &program, &results), |run| run.0)?;
    row.wall_ms = TimeSummary::of_seconds(&runs.iter().map(|run| run.0).collect::<Vec<_>>());
    // A driver may compile when a pipeline is made or when it first runs, so what the first run
    // took longer counts.
    row.compile_ms = built_ms.max(first_ms - row.wall_ms.median);
    row.cpu_ms = runs.iter().map(|run| run.1.filter(|_| software)).collect::<Option<Vec<_>>>().map(|busy| TimeSummary::of_seconds(&busy));
    if gpu.capabilities().timestamps {
        row.device_ms = device_sample(&program, options.seconds / 4.0, || Ok(()))?;
        row.tile = kernels(&program);
    }
    if options.cold {
        let wall = || -> Result<TimeSummary> {
            let one = || {
                flush.run(gpu)?;
                iteration(gpu, &program, &results)
            };
            let runs = repeat(options.seconds / 4.0, one, |run| run.0)?;
            Ok(TimeSummary::of_seconds(&runs.iter().map(|run| run.0).collect::<Vec<_>>()))
        };
        row.cold_ms = match row.device_ms {
            Some(_) => device_sample(&program, options.seconds / 4.0, || flush.run(gpu))?,
            None => Some(wall()?),
        };
    }
    row.dispatches = program.dispatches();
    let live = program.liveness();
    (row.memory_bytes, row.memory_bound_bytes) = (Some(live.held), Some(live.bound));
    if let Some(last) = first.last().filter(|v| !v.is_finite()) {
        return Err(Error::argument(&workload.name, format!("its result begins with {last}")));
    }
    rate(&mut row, cost, peaks);
    Ok(row)
}

/// Fills in what follows from a row's time, what it costs, and the peaks.
pub fn rate(row: &mut Row, cost: Cost, peaks: &Peaks) {
    let seconds = row.time().0.median * 1e-3;
    let positive = |v: f64| (v > 0.0 && v.is_finite()).then_some(v);
    (row.flops, row.bytes) = (positive(cost.flops), positive(cost.bytes));
    row.gflops = row.flops.map(|f| f / seconds / 1e9);
    row.gbs = row.bytes.map(|b| b / seconds / 1e9);
    row.intensity = row.flops.zip(row.bytes).map(|(f, b)| f / b);
    row.percent_of_loads = row.gflops.zip(peaks.loads_gflops).map(|(rate, peak)| 100.0 * rate / peak);
    let least = |amount: Option<f64>, peak: Option<f64>| amount.zip(peak).map(|(amount, peak)| amount / (peak * 1e9));
    let compute = least(row.flops, peaks.fma_gflops);
    // What all runs touch stays in the last cache where it fits.
    let near = row.bytes.is_some_and(|bytes| bytes <= CACHED_BYTES);
    let memory = least(row.bytes, if near { peaks.cached_copy_gbs } else { peaks.copy_gbs });
    let microseconds = peaks.dispatch_microseconds.unwrap_or(0.0) * row.dispatches as f64
        + if row.device_ms.is_none() { peaks.submit_microseconds.unwrap_or(0.0) } else { 0.0 };
    let Some(roof) = compute.into_iter().chain(memory).reduce(f64::max) else { return };
    row.percent_of_peak = Some(100.0 * roof / seconds);
    row.bound = match (compute, memory) {
        _ if microseconds * 1e-6 > roof => Bound::Launch,
        (Some(compute), memory) if memory.is_none_or(|memory| compute >= memory) => Bound::Compute,
        _ => Bound::Memory,
    };
}

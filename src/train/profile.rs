//! Where the time of a training step goes: every kernel between two time stamps of the device, or by
//! the wall clock where these cannot be trusted, and what the host does meanwhile.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::gpu::{Interval, TimedBy};
use crate::report::{Bound, Environment, Peaks};

/// Steps before anything is timed: the first makes what it needs, the second is recorded, the third
/// is the first that is replayed.
const WARM_UPS: usize = 3;
/// Plain steps that the profiled ones are compared with.
const PLAIN: usize = 5;

/// Something that the host did.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// `load`, `upload`, `encode`, `submit` or `wait`.
    pub name: &'static str,
    /// Seconds since the profile began.
    pub begin_seconds: f64,
    /// Seconds since the profile began.
    pub end_seconds: f64,
}

/// A few warm steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// How many were profiled.
    pub steps: usize,
    /// One step without time stamps, by the host's clock: median.
    pub plain_seconds: f64,
    /// The host's track.
    pub host: Vec<Span>,
    /// The device's track, seconds since the profile began.
    pub device: Vec<Interval>,
    /// What clock that is by.
    pub timed_by: TimedBy,
    /// Where it was measured.
    pub environment: Environment,
}

/// What one kernel took.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// Kernel and entry point.
    pub kernel: String,
    /// The constants of the variant.
    pub variant: String,
    /// Calls in one step.
    pub calls: f64,
    /// Seconds of one step.
    pub seconds: f64,
    /// Its share of all kernels' time.
    pub share: f64,
    /// GFLOP/s, where its launches say how many operations they do.
    pub gflops: Option<f64>,
    /// GB/s of the bytes that it binds.
    pub gbs: Option<f64>,
    /// Of what the measured peaks allow.
    pub percent_of_peak: Option<f64>,
    /// What limits it.
    pub bound: Bound,
}

impl Trainer {
    /// Runs some warm steps, then `steps` whose kernels are timed one by one
    /// ([`Program::profile`](crate::gpu::Program::profile)). The weights are changed.
    ///
    /// # Errors
    /// [`Error::Argument`] for a data set without a whole batch, where steps are not recorded because
    /// non-finite numbers are traced, and of steps over shards; those of a step.
    pub fn profile(&mut self, steps: usize) -> Result<Profile> {
        let shards = self.recipe.parallel.shards;
        if shards > 1 {
            let message = format!(
                "a step over {shards} shards is no single program; profile one shard: --set shards=1 --set batch={}",
                self.recipe.batch / shards
            );
            return Err(Error::argument("profile", message));
        }
        let gpu = self.params.gpu().clone();
        let begun = Instant::now();
        let now = || begun.elapsed().as_secs_f64();
        let (mut host, mut device, mut plain, mut clock) = (Vec::new(), Vec::new(), Vec::new(), None);
        // A data set of few batches comes round again.
        let loader = self.loader().clone();
        let mut batches = (0u32..).flat_map(|epoch| loader.epoch(epoch)).take(WARM_UPS + PLAIN + steps).enumerate();
        loop {
            let loading = now();
            let Some((index, batch)) = batches.next() else { break };
            let batch = batch?;
            let loaded = now();
            if index < WARM_UPS + PLAIN {
                self.step(std::slice::from_ref(&batch))?;
                gpu.synchronize()?;
                if index >= WARM_UPS {
                    plain.push(now() - loading);
                }
                continue;
            }
            let program = self
                .stage(&batch)?
                .ok_or_else(|| Error::argument("profile", "steps are not recorded where WGRAD_TRACE_NON_FINITE is set; run without it"))?;
            gpu.synchronize()?;
            let (uploaded, before) = (now(), gpu.counters());
            let intervals = match &clock {
                Some(clock) => program.profile_by(clock)?,
                None => {
                    let (intervals, decided) = program.profile()?;
                    clock = Some(decided);
                    intervals
                }
            };
            let (ended, after) = (now(), gpu.counters());
            let encoded = uploaded + (after.encode_nanoseconds - before.encode_nanoseconds) as f64 * 1e-9;
            let submitted = encoded + (after.submit_nanoseconds - before.submit_nanoseconds) as f64 * 1e-9;
            let times = [loading, loaded, uploaded, encoded, submitted, ended];
            for (name, pair) in ["load", "upload", "encode", "submit", "wait"].into_iter().zip(times.windows(2)) {
                let [begin_seconds, end_seconds] = *pair else { continue };
                host.push(Span { name, begin_seconds, end_seconds });
            }
            // The two clocks have no common zero: the device begins when it is given the work, and
            // has ended before the host knows it.
            let length = intervals.last().map_or(0.0, |last| last.end_seconds);
            let start = encoded.min(ended - length).max(uploaded);
            device.extend(intervals.into_iter().map(|interval| Interval {
                begin_seconds: interval.begin_seconds + start,
                end_seconds: interval.end_seconds + start,
                ..interval
            }));
        }
        plain.sort_by(f64::total_cmp);
        let plain_seconds = plain.get(plain.len() / 2).copied().unwrap_or(0.0);
        let timed_by = clock.unwrap_or(TimedBy::TimeStamps);
        Ok(Profile { steps, plain_seconds, host, device, timed_by, environment: Environment::of(&gpu) })
    }
}

impl Profile {
    /// Seconds that the kernels of one step take.
    pub fn kernel_seconds(&self) -> f64 {
        self.device.iter().map(|i| i.end_seconds - i.begin_seconds).sum::<f64>() / self.steps.max(1) as f64
    }

    /// Trace events for Perfetto (<https://ui.perfetto.dev>) and Chrome: a track of the device,
    /// with an event a dispatch, and one of the host.
    pub fn trace(&self) -> Value {
        const HOST: u32 = 1;
        const DEVICE: u32 = 2;
        let name = |thread: u32, name: &str| json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": thread, "args": { "name": name } });
        let mut events = vec![
            json!({ "ph": "M", "name": "process_name", "pid": 1, "args": { "name": "wgrad" } }),
            name(HOST, "host"),
            name(DEVICE, &format!("{}, {}", self.environment.adapter, self.timed_by)),
        ];
        let event = |thread: u32, name: &str, begin: f64, end: f64, arguments: Value| json!({ "ph": "X", "name": name, "pid": 1, "tid": thread, "ts": begin * 1e6, "dur": (end - begin) * 1e6, "args": arguments });
        events.extend(self.host.iter().map(|s| event(HOST, s.name, s.begin_seconds, s.end_seconds, json!({}))));
        events.extend(self.device.iter().map(|i| {
            let arguments = json!({ "variant": &*i.variant, "grid": i.grid, "flops": i.flops, "bytes": i.bytes });
            event(DEVICE, &i.kernel, i.begin_seconds, i.end_seconds, arguments)
        }));
        json!({ "traceEvents": events, "displayTimeUnit": "ms", "otherData": self.environment })
    }

    /// What each kernel takes, the most expensive first.
    pub fn kernels(&self, peaks: &Peaks) -> Vec<KernelTime> {
        #[derive(Default)]
        struct Sum {
            calls: f64,
            seconds: f64,
            flops: f64,
            bytes: f64,
        }
        let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
        for interval in &self.device {
            let sum = sums.entry((&interval.kernel, &interval.variant)).or_default();
            sum.calls += 1.0;
            sum.seconds += interval.end_seconds - interval.begin_seconds;
            sum.flops += interval.flops;
            sum.bytes += interval.bytes as f64;
        }
        let (steps, all) = (self.steps.max(1) as f64, sums.values().map(|s| s.seconds).sum::<f64>().max(1e-12));
        let mut kernels: Vec<KernelTime> = sums
            .into_iter()
            .map(|((kernel, variant), sum)| {
                let least = |amount: f64, peak: Option<f64>| peak.filter(|_| amount > 0.0).map(|peak| amount / (peak * 1e9));
                let (compute, memory) = (least(sum.flops, peaks.fma_gflops), least(sum.bytes, peaks.copy_gbs));
                let launching = sum.calls * peaks.dispatch_microseconds.unwrap_or(0.0) * 1e-6;
                let roof = compute.into_iter().chain(memory).reduce(f64::max);
                let bound = match (roof, compute) {
                    (None, _) => Bound::Unknown,
                    (Some(roof), _) if launching > roof => Bound::Launch,
                    (Some(roof), Some(compute)) if compute >= roof => Bound::Compute,
                    _ => Bound::Memory,
                };
                let rate = |amount: f64| (amount > 0.0 && sum.seconds > 0.0).then(|| amount / sum.seconds / 1e9);
                KernelTime {
                    kernel: kernel.to_string(),
                    variant: variant.to_string(),
                    calls: sum.calls / steps,
                    seconds: sum.seconds / steps,
                    share: sum.seconds / all,
                    gflops: rate(sum.flops),
                    gbs: rate(sum.bytes),
                    percent_of_peak: roof.filter(|_| sum.seconds > 0.0).map(|roof| 100.0 * roof / sum.seconds),
                    bound,
                }
            })
            .collect();
        kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        kernels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(kernel: &str, begin_seconds: f64, end_seconds: f64, flops: f64, bytes: u64) -> Interval {
        Interval { kernel: kernel.into(), variant: "".into(), grid: [1, 1, 1], begin_seconds, end_seconds, flops, bytes }
    }

    fn profile() -> Profile {
        let device = vec![
            interval("conv", 0.0, 0.4, 30e9, 1_000_000_000),
            interval("copy", 0.4, 0.5, 0.0, 1_000_000_000),
            interval("tiny", 0.5, 0.6, 0.0, 16),
            interval("conv", 1.0, 1.4, 30e9, 1_000_000_000),
            interval("copy", 1.4, 1.5, 0.0, 1_000_000_000),
            interval("tiny", 1.5, 1.6, 0.0, 16),
        ];
        let host = vec![Span { name: "wait", begin_seconds: 0.0, end_seconds: 0.7 }];
        Profile {
            steps: 2,
            plain_seconds: 0.55,
            host,
            device,
            timed_by: TimedBy::TimeStamps,
            environment: Environment { adapter: "an adapter".into(), ..Default::default() },
        }
    }

    #[test]
    fn kernels_are_summed_over_steps_and_held_against_the_peaks() {
        let peaks = Peaks { fma_gflops: Some(100.0), copy_gbs: Some(20.0), dispatch_microseconds: Some(3.0), ..Peaks::default() };
        let kernels = profile().kernels(&peaks);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6 * b, "{a}, expected {b}");
        let names: Vec<_> = kernels.iter().map(|k| (k.kernel.as_str(), k.bound)).collect();
        assert_eq!(names, [("conv", Bound::Compute), ("copy", Bound::Memory), ("tiny", Bound::Launch)]);
        let conv = &kernels[0];
        near(conv.calls, 1.0);
        near(conv.seconds, 0.4);
        near(conv.share, 0.4 / 0.6);
        near(conv.gflops.unwrap(), 75.0);
        near(conv.percent_of_peak.unwrap(), 75.0);
        near(kernels[1].gbs.unwrap(), 10.0);
        assert_eq!(kernels[1].gflops, None);
        assert!(profile().kernels(&Peaks::default()).iter().all(|k| k.bound == Bound::Unknown && k.percent_of_peak.is_none()));
    }

    #[test]
    fn a_trace_has_a_track_of_the_device_and_one_of_the_host() {
        let trace = profile().trace();
        let events = trace["traceEvents"].as_array().unwrap();
        let names: Vec<_> = events.iter().filter(|e| e["ph"] == "M").map(|e| e["args"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["wgrad", "host", "an adapter, time stamps"]);
        let of = |thread: u32| events.iter().filter(move |e| e["ph"] == "X" && e["tid"] == thread);
        assert_eq!((of(1).count(), of(2).count()), (1, 6));
        let first = of(2).next().unwrap();
        assert!(first["name"] == "conv" && first["ts"] == 0.0 && (first["dur"].as_f64().unwrap() - 4e5).abs() < 1e-3, "{first}");
    }
}

//! `wgrad train ... --profile FILE`: where the time of a step goes.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::output::say;
use super::table::Table;
use crate::bench::probes;
use crate::error::Result;
use crate::gpu::{Gpu, TimedBy};
use crate::io::atomic::write_atomically;
use crate::io::console::tell;
use crate::train::Trainer;
use crate::train::profile::KernelTime;

/// Steps in the trace.
const STEPS: usize = 3;
/// Kernels that are printed.
const SHOWN: usize = 10;
/// Seconds for one probe of the adapter's peaks.
const PROBE_SECONDS: f64 = 0.3;

pub(super) fn run(gpu: &Gpu, trainer: &mut Trainer, path: &Path, as_json: bool) -> Result<ExitCode> {
    let profile = trainer.profile(STEPS)?;
    write_atomically(path, profile.trace().to_string().as_bytes())?;
    let (peaks, _) = probes::measure(gpu, PROBE_SECONDS)?;
    let kernels = profile.kernels(&peaks);
    let (plain, all) = (profile.plain_seconds, profile.kernel_seconds());
    if as_json {
        let list: Vec<_> = kernels.iter().map(json_of).collect();
        let reason = match &profile.timed_by {
            TimedBy::TimeStamps => None,
            TimedBy::WallClock { reason } => Some(reason),
        };
        let text = json!({
            "trace": path.display().to_string(), "step_seconds": plain, "kernel_seconds": all, "timed_by": profile.timed_by.to_string(),
            "why_not_time_stamps": reason, "peaks": peaks, "kernels": list, "environment": profile.environment,
        });
        say(format!("{text:#}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let unit = match profile.timed_by {
        TimedBy::TimeStamps => "ms",
        TimedBy::WallClock { .. } => "wall ms",
    };
    let mut table = Table::new(&["kernel", "calls", unit, "share", "GFLOP/s", "GB/s", "% of peak", "bound"]);
    let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.1}"));
    for kernel in kernels.iter().take(SHOWN) {
        table.row(&[
            name(kernel),
            format!("{}", kernel.calls),
            format!("{:.3}", kernel.seconds * 1e3),
            format!("{:.1} %", kernel.share * 100.0),
            number(kernel.gflops),
            number(kernel.gbs),
            number(kernel.percent_of_peak),
            kernel.bound.to_string(),
        ]);
    }
    let calls: f64 = kernels.iter().map(|k| k.calls).sum();
    say(&table)?;
    say(format!(
        "\none step: {:.2} ms; its {calls} kernels one by one, by {}: {:.2} ms; shown are {} of {}",
        plain * 1e3,
        profile.timed_by,
        all * 1e3,
        kernels.len().min(SHOWN),
        kernels.len()
    ))?;
    if let TimedBy::WallClock { reason } = &profile.timed_by {
        say(format!("by wall clock, as {reason}: every kernel is submitted and waited for by itself, and these times have that in them"))?;
    }
    let peak = |value: Option<f64>, unit: &str| value.map_or("not measured".into(), |v| format!("{v:.1} {unit}"));
    say(format!(
        "measured peaks of {}: {} multiply-adds, {} copying, {} a dispatch",
        gpu.capabilities().name,
        peak(peaks.fma_gflops, "GFLOP/s"),
        peak(peaks.copy_gbs, "GB/s"),
        peak(peaks.dispatch_microseconds, "µs")
    ))?;
    say("GB/s count whole bindings once; \"launch\" says that launching takes longer than the work could")?;
    tell(format!("trace of {STEPS} steps in {}: open it at https://ui.perfetto.dev or chrome://tracing", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Kernel and constants, cut where a terminal's line would break.
fn name(kernel: &KernelTime) -> String {
    const LETTERS: usize = 64;
    let name = format!("{} {}", kernel.kernel, kernel.variant);
    if name.chars().count() <= LETTERS { name.trim_end().to_string() } else { name.chars().take(LETTERS - 1).chain(['…']).collect() }
}

fn json_of(kernel: &KernelTime) -> serde_json::Value {
    json!({
        "kernel": kernel.kernel, "variant": kernel.variant, "calls": kernel.calls, "seconds": kernel.seconds, "share": kernel.share,
        "gflops": kernel.gflops, "gbs": kernel.gbs, "percent_of_peak": kernel.percent_of_peak, "bound": kernel.bound,
    })
}

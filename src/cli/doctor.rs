//! `wgrad doctor`: is this adapter's driver right?

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::output::say;
use crate::error::{Error, Result};
use crate::gpu::{AdapterKind, Capabilities, Gpu, GpuOptions, Schedule};
use crate::ops::gradcheck::{gradcheck_half, gradcheck_sample};
use crate::ops::non_finite;
use crate::ops::registry::{Entry, registry};
use crate::ops::sample::Sample;
use crate::ops::{Operator, apply_shared};
use crate::report::Environment;

/// Check every operator on the chosen adapter against its float64 reference, also with NaN and
/// infinities, and that bits repeat
#[derive(clap::Args)]
pub(super) struct Doctor {
    /// Only operators whose name starts with this
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Check both schedules of the heavy kernels, also on a GPU, which uses one
    #[arg(long)]
    both: bool,
    /// Print every operator, not only the wrong ones
    #[arg(long)]
    verbose: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found of one operator.
struct Finding {
    operator: &'static str,
    schedule: Schedule,
    storage: &'static str,
    /// The worst error as a fraction of what is allowed, or what is wrong.
    result: Result<f64>,
}

/// Operators whose f16 storage is checked: the heavy ones, and a light one.
const HALVES: [&str; 9] =
    ["relu", "matmul", "linear", "conv2d", "depthwise_conv2d", "batch_norm_train", "layer_norm", "softmax", "scaled_dot_product_attention"];
/// Samples of each whose f16 storage is checked, and elements of one at most.
const HALF_SAMPLES: usize = 3;
const HALF_ELEMENTS: usize = 1 << 14;

/// The schedules to check, and why each. A GPU is never given the other one's kernels, so these need
/// not be right there; whoever trains on a software driver today may own a GPU tomorrow.
fn schedules(asked: Option<Schedule>, both: bool, adapter: &Capabilities) -> Vec<(Schedule, &'static str)> {
    let (own, software) = (adapter.schedule, adapter.kind == AdapterKind::Software);
    let why = |schedule| match schedule {
        Schedule::Matrix => "for f16: the adapter has cooperative matrices",
        _ if both => "both were asked for",
        _ if asked.is_some() => "WGRAD_SCHEDULE asks for it",
        schedule if schedule == own => "the adapter's own",
        _ => "a software driver runs the other, too",
    };
    let matrices = adapter.matrix.is_some() && (both || matches!(asked, None | Some(Schedule::Matrix)));
    let wanted = |schedule: &Schedule| both || *schedule == own || (asked.is_none() && software);
    let wanted = Schedule::ALL.into_iter().filter(wanted).chain(matrices.then_some(Schedule::Matrix));
    wanted.map(|schedule| (schedule, why(schedule))).collect()
}

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode> {
        let begun = Instant::now();
        let entries: Vec<Entry> = registry().into_iter().filter(|e| e.name.starts_with(&self.only)).collect();
        if entries.is_empty() {
            return Err(Error::argument("doctor", format!("no operator's name starts with \"{}\"; `wgrad ops` lists them", self.only)));
        }
        let mut findings = Vec::new();
        let mut about = None;
        let options = GpuOptions::from_env()?;
        let first = Gpu::with(options.clone())?;
        let wanted = schedules(options.schedule, self.both, first.capabilities());
        for (schedule, why) in &wanted {
            let gpu = Gpu::with(GpuOptions { schedule: Some(*schedule), ..options.clone() })?;
            let caps = gpu.capabilities();
            self.text(|| {
                format!("{} ({}, {}), schedule {schedule} ({why}): {} operators", caps.name, caps.backend, caps.driver, entries.len())
            })?;
            let storages: &[&str] = match schedule {
                Schedule::Matrix => &["f16"],
                _ if caps.f16 => &["f32", "f16"],
                _ => &["f32"],
            };
            let halved = |entry: &Entry| HALVES.contains(&entry.name);
            let checks = storages.iter().flat_map(|storage| entries.iter().map(move |entry| (*storage, entry)));
            for (storage, entry) in checks.filter(|(storage, entry)| *storage == "f32" || halved(entry)) {
                let result = if storage == "f32" { examine(&gpu, entry) } else { examine_half(&gpu, entry) };
                let name = format!("{}{}", entry.name, if storage == "f32" { "" } else { ", f16 storage" });
                match &result {
                    Ok(worst) if self.verbose => {
                        self.text(|| format!("  {name:<32} right, worst error {:.0} % of what is allowed", 100.0 * worst))?
                    }
                    Ok(_) => {}
                    Err(problem) => self.text(|| format!("  {name:<32} WRONG: {problem}"))?,
                }
                let lost = matches!(result, Err(Error::DeviceLost(_)));
                findings.push(Finding { operator: entry.name, schedule: *schedule, storage, result });
                if lost {
                    break;
                }
            }
            if !caps.f16 {
                self.text(|| "  f16 storage was not checked: the adapter, or what was asked of it, has none".into())?;
            }
            about.get_or_insert(Environment::of(&gpu));
        }
        if !Schedule::ALL.iter().all(|schedule| wanted.iter().any(|(checked, _)| checked == schedule)) {
            let checked = wanted.iter().map(|(schedule, _)| schedule.to_string()).collect::<Vec<_>>().join(" and ");
            self.text(|| format!("only schedule {checked} was checked; `wgrad doctor --both` checks both"))?;
        }
        let wrong = findings.iter().filter(|f| f.result.is_err()).count();
        // A lost device leaves operators unexamined; the loss itself counts as wrong.
        let seconds = begun.elapsed().as_secs_f64();
        if self.json {
            let list: Vec<_> = findings
                .iter()
                .map(|f| json!({ "operator": f.operator, "schedule": f.schedule.to_string(), "storage": f.storage, "worst": f.result.as_ref().ok(), "problem": f.result.as_ref().err().map(ToString::to_string) }))
                .collect();
            say(format!("{:#}", json!({ "healthy": wrong == 0, "seconds": seconds, "environment": about, "checks": list })))?;
        } else if wrong == 0 {
            say(format!(
                "verdict: HEALTHY; all {} checks passed in {seconds:.0} s: results and gradients are right, NaN comes through, and bits repeat",
                findings.len()
            ))?;
        } else {
            say(format!(
                "verdict: NOT HEALTHY; {wrong} of {} checks failed in {seconds:.0} s. A newer driver may help; please report this with the output of `wgrad info`",
                findings.len()
            ))?;
        }
        Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn text(&self, line: impl FnOnce() -> String) -> Result<()> {
        if self.json { Ok(()) } else { say(line()) }
    }
}

/// The worst error of an operator's samples as a fraction of what is allowed.
fn examine(gpu: &Gpu, entry: &Entry) -> Result<f64> {
    let mut worst = 0.0f64;
    for sample in (entry.samples)() {
        bits_repeat(gpu, sample)?;
    }
    for sample in (entry.samples)() {
        worst = worst.max(gradcheck_sample(gpu, sample, 1)?.worst);
    }
    non_finite::check(gpu, entry, 1)?;
    Ok(worst)
}

/// The same of samples that are stored as f16: the first input, the first two, or all that are
/// floats, whichever the operator takes.
fn examine_half(gpu: &Gpu, entry: &Entry) -> Result<f64> {
    let mut worst = 0.0f64;
    let size = |sample: &Sample| sample.arrays(1).iter().map(|a| a.data.len()).sum::<usize>();
    for sample in (entry.samples)().into_iter().filter(|s| (1..=HALF_ELEMENTS).contains(&size(s))).take(HALF_SAMPLES) {
        let arrays = sample.arrays(1);
        let operator: Arc<dyn Operator> = Arc::from(sample.operator);
        let floats: Vec<usize> = arrays.iter().enumerate().filter(|(_, a)| a.dtype.is_float()).map(|(at, _)| at).collect();
        let ways: [&[usize]; 3] = [&[0], &[0, 1], &floats];
        let mut reports = ways.into_iter().map(|halves| gradcheck_half(gpu, &operator, &arrays, halves));
        let accepted = |report: &Result<_>| !matches!(report, Err(Error::Dtype { .. }));
        let report = reports.find(accepted).unwrap_or_else(|| Err(Error::dtype(entry.name, "no storage in f16 is accepted")));
        worst = worst.max(report?.worst);
    }
    Ok(worst)
}

fn bits_repeat(gpu: &Gpu, sample: Sample) -> Result<()> {
    let arrays = sample.arrays(2);
    let operator: Arc<dyn Operator> = Arc::from(sample.operator);
    let run = || -> Result<Vec<Vec<u64>>> {
        let tensors = arrays.iter().map(|a| a.upload(gpu)).collect::<Result<Vec<_>>>()?;
        let outputs = apply_shared(operator.clone(), &tensors.iter().collect::<Vec<_>>())?;
        outputs.iter().map(|t| Ok(t.to_f64()?.into_iter().map(f64::to_bits).collect())).collect()
    };
    if run()? == run()? { Ok(()) } else { Err(Error::argument(operator.name(), "two runs on the same inputs gave different bits")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Matrix;

    #[test]
    fn gpus_are_checked_on_the_schedule_that_they_use() {
        let gpu = Gpu::new().unwrap();
        let adapter = |kind, schedule| Capabilities { kind, schedule, matrix: None, ..gpu.capabilities().clone() };
        let of = |asked, both, adapter: &Capabilities| schedules(asked, both, adapter).into_iter().map(|(s, _)| s).collect::<Vec<_>>();
        let discrete = adapter(AdapterKind::Discrete, Schedule::Gpu);
        assert_eq!(of(None, false, &discrete), [Schedule::Gpu]);
        assert_eq!(of(None, true, &discrete), Schedule::ALL);
        assert_eq!(of(None, false, &adapter(AdapterKind::Software, Schedule::Software)), Schedule::ALL);
        let matrices = Capabilities { matrix: Some(Matrix { m: 16, n: 16, k: 16 }), ..discrete.clone() };
        assert_eq!(of(None, false, &matrices), [Schedule::Gpu, Schedule::Matrix]);
        assert_eq!(of(Some(Schedule::Gpu), false, &matrices), [Schedule::Gpu]);
        // What is asked for is the adapter's schedule then.
        for schedule in Schedule::ALL {
            for kind in [AdapterKind::Integrated, AdapterKind::Software] {
                assert_eq!(of(Some(schedule), false, &adapter(kind, schedule)), [schedule]);
            }
        }
    }

    #[test]
    fn the_operators_with_halves_exist() {
        let names: Vec<&str> = registry().iter().map(|entry| entry.name).collect();
        assert!(HALVES.iter().all(|name| names.contains(name)));
    }
}

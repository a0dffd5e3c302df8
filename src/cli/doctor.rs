//! `wgrad doctor`: is this adapter's driver right?

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::output::say;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, GpuOptions, Schedule};
use crate::ops::gradcheck::gradcheck_sample;
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
    /// The worst error as a fraction of what is allowed, or what is wrong.
    result: Result<f64>,
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
        for schedule in Schedule::ALL {
            let gpu = Gpu::with(GpuOptions { schedule: Some(schedule), ..GpuOptions::from_env()? })?;
            let caps = gpu.capabilities();
            self.text(|| format!("{} ({}, {}), schedule {schedule}: {} operators", caps.name, caps.backend, caps.driver, entries.len()))?;
            for entry in &entries {
                let result = examine(&gpu, entry);
                match &result {
                    Ok(worst) if self.verbose => {
                        self.text(|| format!("  {:<32} right, worst error {:.0} % of what is allowed", entry.name, 100.0 * worst))?
                    }
                    Ok(_) => {}
                    Err(problem) => self.text(|| format!("  {:<32} WRONG: {problem}", entry.name))?,
                }
                let lost = matches!(result, Err(Error::DeviceLost(_)));
                findings.push(Finding { operator: entry.name, schedule, result });
                if lost {
                    break;
                }
            }
            about.get_or_insert(Environment::of(&gpu));
        }
        let wrong = findings.iter().filter(|f| f.result.is_err()).count();
        // A lost device leaves operators unexamined; the loss itself counts as wrong.
        let seconds = begun.elapsed().as_secs_f64();
        if self.json {
            let list: Vec<_> = findings
                .iter()
                .map(|f| json!({ "operator": f.operator, "schedule": f.schedule.to_string(), "worst": f.result.as_ref().ok(), "problem": f.result.as_ref().err().map(ToString::to_string) }))
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

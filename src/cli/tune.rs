//! `wgrad tune`: measures what kernels leave to measurement, for this adapter.

use std::path::PathBuf;
use std::process::ExitCode;

use super::device::tuning_file;
use super::output::say;
use crate::bench::tune::{Decision, tune};
use crate::bench::{SUITES, workloads};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, GpuOptions, Tuning};
use crate::io::atomic::{make_folder, write_atomically};
use crate::io::console::tell;

/// Measure the schedules and tiles of kernels, and keep for later runs what is clearly faster here
///
/// Results of all choices are compared before any is timed. What other workloads found before is
/// kept.
#[derive(clap::Args)]
pub(super) struct Tune {
    /// Workloads, as `wgrad bench` names them
    #[arg(value_name = "WORKLOAD")]
    filters: Vec<String>,
    /// Whose knobs are measured
    #[arg(long, value_name = "SUITE", default_value = "peers", value_parser = SUITES)]
    suite: String,
    /// Most time for one knob of one workload
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// The table, instead of the one that later runs load by themselves
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Tune {
    pub(super) fn run(self) -> Result<ExitCode> {
        let options = GpuOptions { tuning: None, ..GpuOptions::from_env()? };
        let gpu = Gpu::with(options.clone())?;
        let caps = gpu.capabilities().clone();
        let workloads: Vec<_> = workloads(&self.suite, &caps).into_iter().filter(|w| w.is_wanted(&self.filters)).collect();
        if workloads.is_empty() {
            let message =
                format!("no workload of suite {} is named {}; `wgrad bench --list` shows all", self.suite, self.filters.join(", "));
            return Err(Error::argument("tune", message));
        }
        let path = self.out.clone().or_else(|| tuning_file(&caps));
        let path = path.ok_or_else(|| Error::argument("tune", "this user has no cache folder; name a file with --out"))?;
        let before = match path.exists() {
            true => Some(Tuning::load(&path)?).filter(|table| table.is_of(&caps.name, &caps.driver)),
            false => None,
        };
        let before = before.unwrap_or_else(|| Tuning::new(&caps.name, &caps.driver));
        drop(gpu);
        tell(format!("measuring what {} workloads leave open on {}", workloads.len(), caps.name));
        let table = tune(&options, before.clone(), &workloads, self.seconds, &mut |decision| say(line(decision)))?;
        if table == before {
            say(format!("nothing changed; tuning table {}", table.hash()))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.dry_run {
            say(format!("not written: {}\n{table}", path.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        write_atomically(&path, table.to_string().as_bytes())?;
        say(format!("tuning table {} in {} (before: {})", table.hash(), path.display(), before.hash()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// One decision: what was measured, and what changed.
fn line(decision: &Decision) -> String {
    let consulted = &decision.consulted;
    let ratios: Vec<String> = decision
        .ratios
        .iter()
        .map(|(choice, ratio, error)| format!("{choice}: {:+.1} % (± {:.1})", 100.0 * (ratio - 1.0), 200.0 * error * ratio))
        .chain(decision.refused.iter().map(|(choice, why)| format!("{choice}: refused, {why}")))
        .collect();
    let choice = |entry: Option<u32>| entry.unwrap_or(consulted.default);
    let verdict = match (choice(decision.before), choice(decision.now)) {
        (before, now) if before == now => format!("stays {now}"),
        (before, now) => format!("{before} -> {now}"),
    };
    format!(
        "{} {}  {verdict}; time against {}: {}  [{}]",
        consulted.knob.name,
        consulted.bucket,
        consulted.default,
        if ratios.is_empty() { "no other choice".into() } else { ratios.join(", ") },
        decision.workloads.join(", ")
    )
}

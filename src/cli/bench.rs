//! `wgrad bench`: measures kernels.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::device;
use super::exchange;
use super::kernel::KernelArguments;
use super::output::say;
use super::table::Table;
use crate::bench::arguments::expression;
use crate::bench::compare::{Verdict, compare};
use crate::bench::formats::{csv, json_line};
use crate::bench::measure::{Flush, Options, measure};
use crate::bench::report::html;
use crate::bench::run::{Row, Run};
use crate::bench::sweep::{Sweep, mark_winners};
use crate::bench::workload::{Workload, wanted};
use crate::bench::{ladder, peers, probes, workloads};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, GpuOptions};
use crate::io::atomic::{read, write_atomically};
use crate::io::console::tell;
use crate::ops::Cost;
use crate::report::{Environment, Peaks, TimeSummary};

/// Time kernels, hold them against what this adapter can do at best, and check them first
///
/// A workload is named by the beginning of its name, or exactly as `=NAME`. A file of WGSL is
/// measured with --bind, --params and --grid:
///
///   wgrad bench scale.wgsl --bind x=f32[1024,1024]:random --bind y=f32[1024,1024]:zero --params 1048576,0.5 --grid 16384 --bytes 8*1024*1024
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Bench {
    /// Workloads, or one file of WGSL
    #[arg(value_name = "WORKLOAD")]
    pub(super) filters: Vec<String>,
    /// What to measure
    #[arg(long, value_name = "SUITE", default_value = "peers", value_parser = exchange::suites())]
    suite: String,
    /// Of the suite `exchange`: microseconds before the first byte of a message arrives
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 5.0)]
    pub(super) latency: f64,
    /// Of the suite `exchange`: gigabits that the network between machines carries in a second
    #[arg(long, value_name = "GBIT", default_value_t = 100.0)]
    pub(super) bandwidth: f64,
    /// Most time for each kind of measurement of a workload
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Do not measure with cold caches
    #[arg(long)]
    hot: bool,
    /// Try all of these: schedule=software,gpu, or a size of matmul, conv, depthwise, softmax,
    /// batchnorm or ntxent: n=128,256
    #[arg(long, value_name = "NAME=VALUES")]
    pub(super) sweep: Vec<String>,
    /// Print the workloads' names and measure nothing
    #[arg(long)]
    pub(super) list: bool,
    /// Print a line of JSON for each workload
    #[arg(long, conflicts_with = "csv")]
    pub(super) json: bool,
    /// Print comma-separated values
    #[arg(long)]
    pub(super) csv: bool,
    /// Write a page with a roofline plot, bars and a table to this file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write everything that was measured to this file, for --compare
    #[arg(long, value_name = "FILE")]
    pub(super) save: Option<PathBuf>,
    /// Say what became faster or slower since the run in this file; exit code 1 where anything is
    /// slower
    #[arg(long, value_name = "FILE")]
    pub(super) compare: Option<PathBuf>,
    #[command(flatten)]
    kernel: Measured,
}

/// What one launch of a kernel does, and what its results are held against.
#[derive(clap::Args)]
#[command(next_help_heading = "A kernel of your own")]
struct Measured {
    #[command(flatten)]
    kernel: KernelArguments,
    /// Operations of one launch: 2*1024*1024
    #[arg(long, value_name = "NUMBER")]
    flops: Option<String>,
    /// Bytes read and written by one launch
    #[arg(long, value_name = "NUMBER")]
    bytes: Option<String>,
    /// A kernel with the same buffers whose results are right
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Largest relative error
    #[arg(long, value_name = "NUMBER", default_value_t = 1e-4)]
    tolerance: f64,
}

impl Measured {
    fn workload(&self, path: &Path) -> Result<Workload> {
        let amount = |text: &Option<String>| text.as_deref().map_or(Ok(0.0), expression);
        let cost = Cost { flops: amount(&self.flops)?, bytes: amount(&self.bytes)? };
        let expect = self.expect.as_deref().map(|path| self.kernel.user(path)).transpose()?;
        Ok(self.kernel.user(path)?.workload(expect, self.tolerance, cost))
    }
}

impl Bench {
    pub(super) fn run(self) -> Result<ExitCode> {
        // Before the minutes that measuring takes.
        let before = self.compare.as_deref().map(load).transpose()?;
        let sweep = Sweep::parse(&self.sweep)?;
        let gpu = device::open()?;
        if self.suite == exchange::SUITE {
            return self.exchange(&gpu);
        }
        if self.list {
            let names = self.workloads(&gpu, &sweep)?.into_iter().map(|w| format!("{:<40} {}\n", w.name, w.shape));
            say(names.collect::<String>())?;
            return Ok(ExitCode::SUCCESS);
        }
        let run = self.measure(&gpu, &sweep)?;
        if self.csv {
            say(csv(&run)?)?;
        } else if !self.json {
            say(text(&run))?;
        }
        if let Some(path) = &self.html {
            write_atomically(path, html(&run)?.as_bytes())?;
        }
        if let Some(path) = &self.save {
            let json = serde_json::to_vec_pretty(&run).map_err(|e| Error::argument("bench", e.to_string()))?;
            write_atomically(path, &json)?;
        }
        let slower = match &before {
            Some(before) => print_comparison(before, &run)?,
            None => false,
        };
        let wrong = run.rows.iter().any(Row::is_wrong);
        Ok(if wrong || slower { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn workloads(&self, gpu: &Gpu, sweep: &Sweep) -> Result<Vec<Workload>> {
        if let [file] = self.filters.as_slice()
            && file.ends_with(".wgsl")
        {
            return Ok(vec![self.kernel.workload(Path::new(file))?]);
        }
        if !sweep.sizes.is_empty() {
            return sweep.workloads(&self.filters);
        }
        let list: Vec<Workload> = workloads(&self.suite, gpu.capabilities()).into_iter().filter(|w| w.is_wanted(&self.filters)).collect();
        if list.is_empty() && self.suite != "probes" {
            let message = format!("no workload of the suite {} is named {}; --list shows all", self.suite, self.filters.join(", "));
            return Err(Error::argument("bench", message));
        }
        Ok(list)
    }

    fn options(&self) -> Options {
        Options { seconds: self.seconds, cold: !self.hot, gate: true }
    }

    fn measure(&self, gpu: &Gpu, sweep: &Sweep) -> Result<Run> {
        let options = self.options();
        let list = self.workloads(gpu, sweep)?;
        let mut run = Run { environment: Environment::of(gpu), peaks: Peaks::default(), rows: Vec::new() };
        let (peaks, probed) = probes::measure(gpu, if list.is_empty() { self.seconds } else { self.seconds.min(0.5) })?;
        run.peaks = peaks;
        if list.is_empty() {
            for row in probed.into_iter().filter(|row| wanted(&row.name, &self.filters)) {
                self.keep(&mut run, row)?;
            }
            return Ok(run);
        }
        let own = vec![gpu.capabilities().schedule];
        for schedule in if sweep.schedules.is_empty() { &own } else { &sweep.schedules } {
            let gpu = match *schedule == gpu.capabilities().schedule {
                true => gpu.clone(),
                false => Gpu::with(GpuOptions { schedule: Some(*schedule), ..gpu.options().clone() })?,
            };
            let flush = Flush::new(&gpu, &options)?;
            for workload in &list {
                let mut row = measure(&gpu, workload, &run.peaks, &flush, &options)?;
                row.gain = ladder::gain(&row, &run.rows);
                self.keep(&mut run, row)?;
            }
        }
        if !self.sweep.is_empty() {
            mark_winners(&mut run.rows, sweep.schedules.len() > 1);
        }
        Ok(run)
    }

    /// A line as soon as it is there: a benchmark takes minutes.
    fn keep(&self, run: &mut Run, row: Row) -> Result<()> {
        if self.json {
            say(json_line(&row)?)?;
        } else {
            tell(format!("{:<32} {:>12}", row.name, milliseconds(row.time().0.median)));
        }
        if row.is_wrong() {
            tell(format!("{} is WRONG: {}", row.name, row.gate.against));
        }
        run.rows.push(row);
        Ok(())
    }
}

fn load(path: &Path) -> Result<Run> {
    serde_json::from_slice(&read(path)?)
        .map_err(|e| Error::data(path.display().to_string(), format!("is no run of `wgrad bench --save`: {e}")))
}

fn milliseconds(ms: f64) -> String {
    if ms < 0.1 { format!("{:.2} us", ms * 1e3) } else { format!("{ms:.3} ms") }
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |v| format!("{v:.digits$}"))
}

/// The environment, the peaks and the table.
fn text(run: &Run) -> String {
    let (e, p) = (&run.environment, &run.peaks);
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16} {value}");
    };
    line("adapter", format!("{} ({}, {}), {}", e.adapter, e.kind, e.backend, e.driver));
    line("schedule", format!("{}, subgroups {} to {}, {}", e.schedule, e.subgroup_size[0], e.subgroup_size[1], e.features.join(", ")));
    line("versions", format!("wgrad {}, wgpu {}, tuning table {}", e.wgrad, e.wgpu, e.tuning_table.as_deref().unwrap_or("none")));
    let load = e.load_average.map_or(String::new(), |l| format!(", load {:.2} {:.2} {:.2}", l[0], l[1], l[2]));
    line("machine", format!("{}, {} cores{load}, {}", e.system, e.cores, e.date));
    line("command", e.command.clone());
    line(
        "measured peaks",
        format!(
            "multiply-add {} GFLOP/s in registers, {} from a near tile; copy {} GB/s, {} cached; dispatch {} us, submit and wait {} us, time-stamp step {} ns",
            optional(p.fma_gflops, 1),
            optional(p.loads_gflops, 1),
            optional(p.copy_gbs, 1),
            optional(p.cached_copy_gbs, 1),
            optional(p.dispatch_microseconds, 2),
            optional(p.submit_microseconds, 1),
            optional(p.tick_nanoseconds, 0),
        ),
    );
    if let Some(reason) = &p.matrix_absent {
        line("matrix units", format!("not measured: {reason}"));
    }
    let head = [
        "workload", "gate", "time", "p10..p90", "mad", "n", "clock", "wall", "cpu", "cold", "GFLOP/s", "GB/s", "flop/B", "% peak",
        "% tile", "bound", "compile", "schedule",
    ];
    let mut table = Table::new(&head);
    for row in &run.rows {
        table.row(&cells(row));
    }
    text + "\n" + &table.to_string() + "\n" + &steps(run) + &notes(run)
}

/// What each step of the ladder gains; nothing where none was measured.
fn steps(run: &Run) -> String {
    let mut table = Table::new(&["step of the ladder", "time", "times as fast as the step before", "% peak"]);
    let rows: Vec<&Row> = run.rows.iter().filter(|row| row.suite == "ladder").collect();
    for row in &rows {
        table.row(&[row.name.clone(), milliseconds(row.time().0.median), optional(row.gain, 2), optional(row.percent_of_peak, 1)]);
    }
    if rows.is_empty() { String::new() } else { table.to_string() + "\n" }
}

fn cells(row: &Row) -> [String; 18] {
    let (time, clock) = row.time();
    let sample = |s: Option<TimeSummary>| s.map_or("-".into(), |s| milliseconds(s.median));
    [
        if row.winner { format!("{} *", row.name) } else { row.name.clone() },
        match row.gate.passed {
            Some(true) => "right".into(),
            Some(false) => "WRONG".into(),
            None => "-".into(),
        },
        milliseconds(time.median),
        format!("{}..{}", milliseconds(time.p10), milliseconds(time.p90)),
        milliseconds(time.mad),
        time.count.to_string(),
        clock.into(),
        milliseconds(row.wall_ms.median),
        sample(row.cpu_ms),
        sample(row.cold_ms),
        optional(row.gflops, 1),
        optional(row.gbs, 1),
        optional(row.intensity, 1),
        optional(row.percent_of_peak, 0),
        optional(row.percent_of_loads, 0),
        row.bound.to_string(),
        format!("{:.0} ms", row.compile_ms),
        row.schedule.clone(),
    ]
}

/// More rows than this have no notes of their own below the table.
const MOST_NOTES: usize = 20;

/// What stands below the table: what was launched, what it was compared with, and what a reader
/// must know.
fn notes(run: &Run) -> String {
    let mut text = String::new();
    let all = run.rows.len() <= MOST_NOTES;
    for row in run.rows.iter().filter(|row| all || row.is_wrong()) {
        let error = row.gate.max_error.map_or(String::new(), |e| format!("{e:.2e} against "));
        let _ = write!(text, "{}: {}; {error}{}", row.name, row.shape, row.gate.against);
        if !row.tile.is_empty() {
            // A step has dozens; --json, --csv and --html have them all.
            let _ = match row.tile.split("; ").count() {
                kernels @ 5.. => write!(text, "; {} dispatches of {kernels} kernels", row.dispatches),
                _ => write!(text, "; {} dispatches: {}", row.dispatches, row.tile),
            };
        }
        if let (Some(held), Some(bound)) = (row.memory_bytes, row.memory_bound_bytes.filter(|b| *b > 0)) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let _ = write!(text, "; holds {:.1} MiB, {:.2} times the bound by liveness", mib(held), held as f64 / bound as f64);
        }
        let _ = writeln!(text, "{}", if row.note.is_empty() { String::new() } else { format!("; {}", row.note) });
    }
    if !all {
        let _ = writeln!(text, "what each row launched and was compared with: --json, --html or --save");
    }
    if run.rows.iter().any(|r| r.winner) {
        let _ = writeln!(text, "* the winner of its sweep");
    }
    if run.rows.iter().any(|r| r.suite == "peers" && r.name.ends_with("fwdbwd")) {
        let _ = writeln!(text, "{}", peers::UPSTREAM);
    }
    text
}

/// Prints what changed; whether anything is slower.
fn print_comparison(before: &Run, after: &Run) -> Result<bool> {
    let comparisons = compare(before, after);
    if comparisons.is_empty() {
        return Err(Error::argument("compare", "the two runs have no workload in common"));
    }
    let mut table = Table::new(&["workload", "before", "now", "ratio", "95 %", "verdict"]);
    for c in &comparisons {
        table.row(&[
            c.name.clone(),
            milliseconds(c.before_ms),
            milliseconds(c.after_ms),
            format!("{:.3}", c.after_ms / c.before_ms),
            format!("+- {:.3}", c.uncertainty),
            c.verdict.to_string(),
        ]);
    }
    tell(format!("\n{table}"));
    if before.environment.adapter != after.environment.adapter || before.environment.driver != after.environment.driver {
        tell(format!("the runs come from different adapters or drivers: {} and {}", before.environment.driver, after.environment.driver));
    }
    Ok(comparisons.iter().any(|c| c.verdict == Verdict::Slower))
}

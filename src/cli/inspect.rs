//! `wgrad inspect`: what a GPU's compiler makes of kernels.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::device;
use super::output::say;
use super::table::Table;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, GpuOptions, Schedule};
use crate::inspect::cards::{Card, Dispatch, cards, dispatches};
use crate::inspect::check::{compare, problems, table};
use crate::inspect::page::page;
use crate::inspect::setup::{Scope, set_up};
use crate::inspect::targets::Installation;
use crate::inspect::{CompileOptions, Inspection, Pipeline, Subject, model_launches};
use crate::io::atomic::{read, write_atomically};
use crate::io::console::tell;

/// Say what GPU compilers make of kernels: registers, spills, occupancy, machine code
///
/// Kernels are compiled and never run, by the driver of the adapter at hand or, with --target, by
/// Mesa's compilers for GPUs that are not there. Counts are exact for that compiler's version;
/// latency and throughput are its own model's.
///
///   wgrad inspect --setup                      Mesa's compiler for AMD
///   wgrad inspect matmul --target rdna3        what the workloads launch whose names begin so
///   wgrad inspect --model resnet18 --batch 64 --target rdna3,ampere
///   wgrad inspect scale.wgsl --target rdna3 --isa
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Inspect {
    /// Workloads of the benchmark by the beginning of their names, or one file of WGSL; every
    /// operator where nothing is named
    #[arg(value_name = "WORKLOAD")]
    filters: Vec<String>,
    /// The supervised training step of this network
    #[arg(long, value_name = "NAME", conflicts_with = "filters")]
    model: Option<String>,
    /// Images of a step
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Side of the images; the network's own when not given
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=16_384), requires = "model")]
    resolution: Option<u32>,
    /// What trains the network
    #[arg(long, value_name = "NAME", default_value = "sgd")]
    optimizer: String,
    /// A constant of the file's template
    #[arg(long, value_name = "NAME=VALUE")]
    define: Vec<String>,
    /// GPUs that are not there, or `all` that are set up; the adapter at hand when not given
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    target: Vec<String>,
    /// Fetch Mesa's compilers: `amd`, or `all` for NVIDIA, Adreno and Apple, too
    #[arg(long, value_name = "SCOPE", num_args = 0..=1, default_missing_value = "amd", value_parser = ["amd", "all"])]
    setup: Option<String>,
    /// Where Mesa's compilers lie; the user's cache folder when not given
    #[arg(long, value_name = "DIR")]
    mesa: Option<PathBuf>,
    /// List the dispatches of the network's step, and what it is on named cards on paper
    #[arg(long, requires = "model", conflicts_with_all = ["isa", "csv", "html", "compare", "check"])]
    cards: bool,
    /// Compile for a device that does not check the bounds of buffers, which wgpu never makes
    #[arg(long)]
    not_robust: bool,
    /// Print WGSL and machine code
    #[arg(long)]
    isa: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values of one target, which --check reads
    #[arg(long)]
    csv: bool,
    /// Write a page with a table for each target to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Say what changed since the JSON in this file; exit code 1 where anything is worse by a tenth
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Fail on spills, on loads of products and convolutions that nothing hides, and on registers
    /// more than a tenth above those in this file, which --csv wrote
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

impl Inspect {
    pub(super) fn run(self) -> Result<ExitCode> {
        let installation = Installation { folder: self.folder()? };
        if let Some(scope) = &self.setup {
            let scope = if scope == "all" { Scope::All } else { Scope::Amd };
            set_up(&installation, scope, &|line| tell(line))?;
            return Ok(ExitCode::SUCCESS);
        }
        if let (true, Some(name)) = (self.cards, &self.model) {
            return self.on_paper(name);
        }
        // Before the compilers begin.
        let before: Option<Vec<Inspection>> = self.compare.as_deref().map(load).transpose()?;
        let kept = self.check.as_deref().map(text_of).transpose()?;
        let list = self.inspect(&installation)?;
        if let Some(path) = &self.html {
            write_atomically(path, page(&list)?.as_bytes())?;
        }
        if self.json {
            say(serde_json::to_string(&list).map_err(|e| Error::argument("inspect", e.to_string()))?)?;
        } else if self.csv {
            let [only] = list.as_slice() else { return Err(Error::argument("--csv", "takes one target")) };
            write_csv(only)?;
        } else {
            for inspection in &list {
                self.print(inspection)?;
            }
        }
        let mut failed = false;
        if let Some(before) = &before {
            failed |= print_changes(before, &list)?;
        }
        if let Some(kept) = &kept {
            for inspection in &list {
                let found = problems(inspection, kept)?;
                found.iter().for_each(|problem| tell(format!("{}: {problem}", inspection.target)));
                tell(format!("{}: {} pipelines, {} problems", inspection.target, inspection.pipelines.len(), found.len()));
                failed |= !found.is_empty();
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn folder(&self) -> Result<PathBuf> {
        let none = || Error::argument("--mesa", "there is no cache folder here; name a folder");
        self.mesa.clone().or_else(|| device::cache_folder().map(|cache| cache.join("mesa"))).ok_or_else(none)
    }

    fn subject(&self) -> Result<Subject> {
        if let Some(name) = &self.model {
            let (batch, resolution) = (self.batch as usize, self.resolution.map(|side| side as usize));
            return Ok(Subject::Model { name: name.clone(), batch, resolution, optimizer: self.optimizer.clone() });
        }
        match self.filters.as_slice() {
            [file] if file.ends_with(".wgsl") => {
                let wrong = |text: &String| Error::argument("--define", format!("expected NAME=VALUE, found \"{text}\""));
                let pair = |text: &String| text.split_once('=').map(|(a, b)| (a.to_string(), b.to_string())).ok_or_else(|| wrong(text));
                Ok(Subject::File { path: file.into(), defines: self.define.iter().map(pair).collect::<Result<_>>()? })
            }
            filters => Ok(Subject::Workloads(filters.to_vec())),
        }
    }

    /// The step's dispatches beside the units of named cards.
    fn on_paper(&self, name: &str) -> Result<ExitCode> {
        let gpu = Gpu::with(GpuOptions { schedule: Some(Schedule::Gpu), ..GpuOptions::from_env()? })?;
        let side = self.resolution.map(|side| side as usize);
        let list = dispatches(&model_launches(&gpu, name, self.batch as usize, side, &self.optimizer)?);
        let cards = cards()?;
        if self.json {
            let estimates: Vec<_> = cards.iter().map(|card| json!({ "card": card, "estimate": card.estimate(&list) })).collect();
            say(json!({ "model": name, "batch": self.batch, "dispatches": list, "cards": estimates }))?;
            return Ok(ExitCode::SUCCESS);
        }
        let largest = cards.iter().max_by_key(|card| card.units).cloned().unwrap_or_default();
        say(dispatches_table(&list, &largest))?;
        say(format!("the {} of {} that take longest on the {}\n", list.len().min(SHOWN), list.len(), largest.card))?;
        say(cards_table(&cards, &list, &format!("images/s of {}", self.batch), self.batch as f64))?;
        say(
            "on paper: public peaks of each card and the usual way from one dispatch to the next; nothing was measured, and no program reaches peaks",
        )?;
        Ok(ExitCode::SUCCESS)
    }

    fn inspect(&self, installation: &Installation) -> Result<Vec<Inspection>> {
        let subject = self.subject()?;
        if self.target.is_empty() {
            let gpu = Gpu::with(GpuOptions::from_env()?)?;
            let here = Inspection::here(&gpu, &subject, CompileOptions { texts: self.isa, robust: !self.not_robust });
            let hint = |error| match error {
                Error::Limit { operator, message, adapter } if operator == "inspect" => {
                    let message = format!("{message}; `wgrad inspect --setup` and --target rdna3 need no GPU");
                    Error::Limit { operator, message, adapter }
                }
                other => other,
            };
            return Ok(vec![here.map_err(hint)?]);
        }
        let targets = match self.target.as_slice() {
            [all] if all == "all" => installation.targets(),
            names => names.iter().map(|name| installation.target(name)).collect::<Result<_>>()?,
        };
        if targets.is_empty() {
            return Err(Error::argument("--target", "nothing is set up: run `wgrad inspect --setup`"));
        }
        let program = std::env::current_exe().map_err(|e| Error::io(Path::new("wgrad"), &e))?;
        targets.into_iter().map(|target| Inspection::on(target, installation, &program, &self.arguments())).collect()
    }

    /// The call of this program that inspects the same by the adapter at hand.
    fn arguments(&self) -> Vec<String> {
        let mut list: Vec<String> = ["inspect", "--json"].map(String::from).into();
        list.extend(self.isa.then(|| "--isa".into()));
        list.extend(self.not_robust.then(|| "--not-robust".into()));
        if let Some(model) = &self.model {
            list.extend(["--model", model, "--batch", &self.batch.to_string(), "--optimizer", &self.optimizer].map(String::from));
            list.extend(self.resolution.map(|side| format!("--resolution={side}")));
        }
        list.extend(self.define.iter().map(|define| format!("--define={define}")));
        list.extend(self.filters.iter().cloned());
        list
    }

    fn print(&self, inspection: &Inspection) -> Result<()> {
        say(format!("{}: {} ({}), compiled and not run", inspection.target, inspection.adapter, inspection.driver))?;
        if self.isa {
            return inspection.pipelines.iter().try_for_each(print_texts);
        }
        let mut table = Table::new(&HEAD);
        for pipeline in &inspection.pipelines {
            table.row(&cells(pipeline));
        }
        say(format!("\n{table}"))?;
        let spilling = inspection.pipelines.iter().filter(|p| p.figures.spills()).count();
        if !inspection.left_out.is_empty() {
            say(format!("left out, as they exceed this adapter's limits: {}", inspection.left_out.join(", ")))?;
        }
        say(format!("{} pipelines, {spilling} of which spill registers\n", inspection.pipelines.len()))
    }
}

/// Dispatches that are printed.
const SHOWN: usize = 30;

/// The dispatches that take longest on a card.
fn dispatches_table(list: &[Dispatch], card: &Card) -> Table {
    let time = |d: &Dispatch| d.launches as f64 * card.seconds(d);
    let flops = |d: &Dispatch| d.launches as f64 * d.flops;
    let [all_time, all_flops] = [list.iter().map(time).sum::<f64>(), list.iter().map(flops).sum()];
    let mut longest: Vec<&Dispatch> = list.iter().collect();
    longest.sort_by(|a, b| time(b).total_cmp(&time(a)));
    let mut table = Table::new(&["kernel", "launches", "workgroups", "invocations", "MFLOP", "MB", "of FLOPs", "of time", "fills it"]);
    for dispatch in longest.into_iter().take(SHOWN) {
        table.row(&[
            dispatch.kernel.clone(),
            dispatch.launches.to_string(),
            dispatch.workgroups.to_string(),
            dispatch.invocations.to_string(),
            format!("{:.2}", dispatch.flops / 1e6),
            format!("{:.2}", dispatch.bytes / 1e6),
            format!("{:.2} %", 100.0 * flops(dispatch) / all_flops.max(1.0)),
            format!("{:.2} %", 100.0 * time(dispatch) / all_time),
            if card.is_filled_by(dispatch) { "yes".into() } else { "no".into() },
        ]);
    }
    table
}

/// A step of `images` on each card.
fn cards_table(cards: &[Card], step: &[Dispatch], rate: &str, images: f64) -> Table {
    let mut table = Table::new(&["card", "units", "ms a step, least", rate, "FLOPs that do not fill it", "time in them"]);
    for card in cards {
        let estimate = card.estimate(step);
        table.row(&[
            card.card.clone(),
            card.units.to_string(),
            format!("{:.2}", 1e3 * estimate.seconds),
            format!("{:.0}", images / estimate.seconds.max(f64::MIN_POSITIVE)),
            format!("{:.1} %", 100.0 * estimate.unfilled_flops),
            format!("{:.1} %", 100.0 * estimate.unfilled_seconds),
        ]);
    }
    table
}

const HEAD: [&str; 12] = [
    "pipeline",
    "workload",
    "registers",
    "spills",
    "workgroup B",
    "occupancy",
    "instructions",
    "latency",
    "throughput",
    "loop",
    "multiply-adds",
    "hidden",
];

fn cells(pipeline: &Pipeline) -> [String; 12] {
    let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.0}"));
    let f = &pipeline.figures;
    let hot = pipeline.heaviest_loop.as_ref();
    [
        pipeline.name(),
        pipeline.workload.clone(),
        number(f.registers),
        if f.spills() { format!("{:.0} ({:.0} B)", f.spills, f.scratch_bytes) } else { "0".into() },
        number(f.workgroup_bytes),
        number(f.occupancy),
        number(f.instructions),
        number(f.latency),
        number(f.throughput),
        hot.map_or("-".into(), |l| l.instructions.to_string()),
        hot.map_or("-".into(), |l| format!("{:.0} %", 100.0 * l.share())),
        hot.and_then(|l| l.hidden.iter().min()).map_or("-".into(), ToString::to_string),
    ]
}

fn print_texts(pipeline: &Pipeline) -> Result<()> {
    say(format!("\n==== {} ====", pipeline.name()))?;
    if let Some(hot) = &pipeline.heaviest_loop {
        let mix: Vec<String> = hot.mix.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        say(format!("heaviest loop: {} instructions, {:.0} % multiply-adds: {}", hot.instructions, 100.0 * hot.share(), mix.join(", ")))?;
        say(format!("multiply-adds between each load and its wait: {:?}", hot.hidden))?;
    }
    pipeline.texts.iter().try_for_each(|(name, text)| say(format!("---- {name} ----\n{text}")))
}

fn write_csv(inspection: &Inspection) -> Result<()> {
    say(table(inspection)?.trim_end())
}

fn text_of(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| Error::data(path.display().to_string(), e.to_string()))
}

fn load(path: &Path) -> Result<Vec<Inspection>> {
    serde_json::from_slice(&read(path)?)
        .map_err(|e| Error::data(path.display().to_string(), format!("is nothing that `wgrad inspect --json` printed: {e}")))
}

/// Prints what changed; whether anything is worse by more than a tenth.
fn print_changes(before: &[Inspection], after: &[Inspection]) -> Result<bool> {
    let changes = compare(before, after);
    let mut table = Table::new(&["pipeline", "target", "figure", "before", "after", "ratio", ""]);
    for change in &changes {
        let [was, now] = change.values.map(|v| format!("{v:.0}"));
        let worse = if change.is_worse() { "worse" } else { "" };
        table.row(&[
            change.pipeline.clone(),
            change.target.clone(),
            change.figure.into(),
            was,
            now,
            format!("{:.2}", change.ratio()),
            worse.into(),
        ]);
    }
    if changes.is_empty() {
        say("nothing changed")?;
        return Ok(false);
    }
    say(table)?;
    let worse = changes.iter().filter(|change| change.is_worse()).count();
    say(format!("{} figures changed, {worse} are worse by more than a tenth", changes.len()))?;
    Ok(worse > 0)
}

//! What a GPU's compiler makes of kernels: registers, spills, occupancy, machine code. They are
//! compiled and never run, by the driver of the adapter at hand or by Mesa's compilers for GPUs
//! that are not there ([`targets`]). Numbers are exact for that compiler's version; latency and
//! throughput are its own model's.

mod amd;
pub mod cards;
pub mod check;
pub mod figures;
pub mod page;
pub mod setup;
pub mod targets;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use amd::Loop;
pub use figures::Figures;
use targets::{Installation, Target};

use crate::bench::user::{self, User};
use crate::bench::workload::Workload;
use crate::bench::workloads;
use crate::error::{Error, Result};
use crate::gpu::{Compiler, Gpu, Launch, PlannedKernel, PlannedLaunch};
use crate::models::{ModelOptions, model};
use crate::nn::Parameters;
use crate::train::estimate::training_launches;

/// What is compiled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Subject {
    /// What the benchmark's workloads launch whose names begin so, of all suites; all where none is
    /// named.
    Workloads(Vec<String>),
    /// What a supervised training step launches.
    Model {
        /// The network's name.
        name: String,
        /// Images or texts of a step.
        batch: usize,
        /// Side of the images, or length of the texts; the network's own where there is none.
        resolution: Option<usize>,
        /// `sgd`, `adamw` or the like.
        optimizer: String,
    },
    /// All entry points of a file of WGSL, which may be a template.
    File {
        /// The file.
        path: PathBuf,
        /// Constants of the template.
        defines: Vec<(String, String)>,
    },
}

/// How it is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileOptions {
    /// WGSL and the compiler's texts are kept.
    pub texts: bool,
    /// The device checks the bounds of buffers, as wgpu has it.
    pub robust: bool,
}

/// One pipeline, as a compiler sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    /// The kernel and its entry point, `family/file:entry`.
    pub kernel: String,
    /// Constants of the variant.
    pub variant: String,
    /// The first workload that launches it.
    pub workload: String,
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// Lanes of a subgroup.
    pub subgroup_size: u32,
    /// What compilers have in common.
    pub figures: Figures,
    /// All that this compiler says, in its own words.
    pub statistics: BTreeMap<String, f64>,
    /// The heaviest loop, where the machine code is AMD's.
    pub heaviest_loop: Option<Loop>,
    /// WGSL and machine code, where they were asked for.
    pub texts: BTreeMap<String, String>,
}

impl Pipeline {
    /// Kernel and variant, which tell it from all others.
    pub fn name(&self) -> String {
        format!("{} {}", self.kernel, self.variant).trim_end().to_string()
    }
}

/// What one compiler says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The target's name; `here` for the adapter at hand.
    pub target: String,
    /// The adapter, as its driver calls it.
    pub adapter: String,
    /// The driver and its version.
    pub driver: String,
    /// The pipelines, in the order of their first launch.
    pub pipelines: Vec<Pipeline>,
    /// Workloads that exceed the adapter's limits.
    pub left_out: Vec<String>,
}

/// The name under which machine code is kept among [`Pipeline::texts`], in Mesa's drivers.
const ASSEMBLY: [&str; 3] = ["Assembly", "Final Assembly", "GEN Assembly"];

impl Inspection {
    /// Compiles `subject` by the driver behind `gpu`.
    ///
    /// # Errors
    /// A driver that does not say what it compiles; an unknown network; a file that is no WGSL;
    /// nothing to compile.
    pub fn here(gpu: &Gpu, subject: &Subject, options: CompileOptions) -> Result<Self> {
        let compiler = Compiler::of(gpu, options.robust)?;
        let caps = gpu.capabilities();
        let mut pipelines = Vec::new();
        let mut left_out = Vec::new();
        for (workload, kernel, entry) in entries(gpu, subject, &mut left_out)? {
            let size = kernel.entries.iter().find(|(name, _)| *name == entry).map_or([1; 3], |(_, size)| *size);
            for executable in compiler.compile(&kernel, &entry, true)? {
                let assembly = ASSEMBLY.iter().find_map(|name| executable.texts.get(*name));
                let heaviest_loop = assembly.filter(|_| caps.driver.contains("radv")).and_then(|text| amd::heaviest_loop(text));
                let mut all = executable.texts.clone();
                all.insert("WGSL".into(), kernel.text.clone());
                pipelines.push(Pipeline {
                    kernel: format!("{}:{entry}", kernel.kernel),
                    variant: kernel.variant.clone(),
                    workload: workload.clone(),
                    workgroup: size,
                    subgroup_size: executable.subgroup_size,
                    figures: Figures::of(&executable.statistics),
                    statistics: executable.statistics,
                    heaviest_loop,
                    texts: if options.texts { all } else { BTreeMap::new() },
                });
            }
        }
        Ok(Self { target: "here".into(), adapter: caps.name.clone(), driver: caps.driver.clone(), pipelines, left_out })
    }

    /// The same for a GPU that is not there: `program`, which is this program, is run on the
    /// target's driver and called with `arguments`, by which it prints a list of [`Self::here`] alone as JSON.
    ///
    /// # Errors
    /// A target that is not set up; whatever the program reports.
    pub fn on(target: &Target, installation: &Installation, program: &Path, arguments: &[String]) -> Result<Self> {
        let scratch = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), &e))?;
        let mut command = installation.command(target, program, scratch.path())?;
        let failed = |message: String| Error::argument(format!("target {}", target.name), message);
        let output = command.args(arguments).stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
        let words = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(failed(words.trim().to_string()));
        }
        let [inspection]: [Self; 1] = serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("{e}; {}", words.trim())))?;
        Ok(Self { target: target.name.into(), ..inspection })
    }
}

/// Every pipeline of `subject` once, with the first workload that launches it. Workloads beyond the
/// adapter's limits go to `left_out`.
fn entries(gpu: &Gpu, subject: &Subject, left_out: &mut Vec<String>) -> Result<Vec<(String, Arc<PlannedKernel>, String)>> {
    let list = match subject {
        Subject::Workloads(filters) => of_workloads(gpu, filters, left_out)?,
        Subject::Model { name, batch, resolution, optimizer } => {
            let launches = model_launches(gpu, name, *batch, *resolution, optimizer)?;
            launches.into_iter().map(|launch| (name.clone(), launch.kernel, launch.entry)).collect()
        }
        Subject::File { path, defines } => of_file(gpu, path, defines)?,
    };
    let mut seen = HashSet::new();
    Ok(list.into_iter().filter(|(_, kernel, entry)| seen.insert((kernel.clone(), entry.clone()))).collect())
}

/// The launches of one training step of a network on batches of its images or texts.
///
/// # Errors
/// An unknown network or optimizer; a limit of the adapter.
pub fn model_launches(gpu: &Gpu, name: &str, batch: usize, resolution: Option<usize>, optimizer: &str) -> Result<Vec<PlannedLaunch>> {
    let model = model(name, ModelOptions { size: resolution.map(|side| [side; 2]), length: resolution, ..Default::default() })?;
    let input = model.input(resolution.unwrap_or(model.resolution), 3).batch(batch);
    training_launches(gpu, |params: &Parameters| model.classifier(params, 1000), input, optimizer)
}

/// The suites whose workloads launch our own kernels on the shapes that they are made for.
const SUITES: [&str; 5] = ["registry", "layers", "peers", "gpu", "half"];

fn of_workloads(gpu: &Gpu, filters: &[String], left_out: &mut Vec<String>) -> Result<Vec<(String, Arc<PlannedKernel>, String)>> {
    let planning = gpu.planning()?;
    let mut list = Vec::new();
    let all = SUITES.iter().flat_map(|suite| workloads(suite, gpu.capabilities()));
    let mut found = false;
    for workload in all.filter(|workload| workload.is_wanted(filters)) {
        found = true;
        match step(&planning, &workload) {
            Ok(plan) => list.extend(plan.into_iter().map(|launch| (workload.name.clone(), launch.kernel, launch.entry))),
            Err(Error::Limit { .. }) => left_out.push(workload.name),
            Err(error) => return Err(error),
        }
    }
    if !found {
        let message =
            format!("no workload's name begins with {}; `wgrad bench --suite registry --list` and the like show all", filters.join(", "));
        return Err(Error::argument("inspect", message));
    }
    Ok(list)
}

/// The launches of one iteration of a workload.
fn step(planning: &Gpu, workload: &Workload) -> Result<Vec<PlannedLaunch>> {
    let mut prepared = (workload.make)(planning)?;
    // What makes the inputs is not what is measured.
    planning.take_plan()?;
    (prepared.step)()?;
    planning.take_plan()
}

fn of_file(gpu: &Gpu, path: &Path, defines: &[(String, String)]) -> Result<Vec<(String, Arc<PlannedKernel>, String)>> {
    let (name, text) = User::read(path)?;
    let kernel = user::kernel(gpu, &name, &text);
    let launch = user::with_defines(Launch::new(gpu, &kernel, ""), defines);
    let planned = launch.planned_kernel()?;
    Ok(planned.entries.iter().map(|(entry, _)| (path.display().to_string(), planned.clone(), entry.clone())).collect())
}

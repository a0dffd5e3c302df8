//! `wgrad train`: a run from a recipe.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde_json::{Map, json};

use super::device;
use super::output::{mib, say};
use super::profile;
use super::signals::Stop;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::evaluate::Validation;
use crate::evaluate::run_report::html;
use crate::gpu::{Gpu, Precision};
use crate::inspect::cards::{cards, dispatches};
use crate::io::atomic::write_atomically;
use crate::io::console::tell;
use crate::nn::Summary;
use crate::parallel::{self, Group};
use crate::train::estimate::{run_launches, run_memory};
use crate::train::methods::METHODS;
use crate::train::progress::Style;
use crate::train::recipe::VERSION;
use crate::train::validation::Validator;
use crate::train::{Recipe, RunDirectory, Trainer};

/// Train a model
#[derive(clap::Args)]
pub(super) struct Train {
    /// The method
    #[arg(value_name = "METHOD", value_parser = methods())]
    method: String,
    #[command(flatten)]
    options: Options,
}

fn methods() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(METHODS.iter().map(|entry| PossibleValue::new(entry.name).help(entry.card.text)))
}

#[derive(clap::Args)]
struct Options {
    /// A recipe in TOML; what it leaves out takes the method's default (`wgrad recipe METHOD`
    /// prints these)
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Change one value of the recipe; may be repeated: epochs=3, optimizer=adamw,
    /// optimizer.betas=[0.9,0.98], temperature=0.2; the value is TOML or a bare text, and the key's
    /// table may be left out where no other has such a key
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A folder of images: MNIST or CIFAR files, or one folder a class
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The network, by timm's name
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Weights to begin from, by defaults for fine-tuning; a head for other classes starts anew;
    /// grey images become coloured by --set rgb=true
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// What stays as it is: `backbone`, or names and scopes with `*` for any text and commas
    /// between
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    freeze: Vec<String>,
    /// Bring the images to so many pixels a side
    #[arg(long, value_name = "PIXELS")]
    resolution: Option<usize>,
    /// List pictures that cannot be read, and leave them out: all are read once before the first step
    #[arg(long)]
    skip_bad: bool,
    /// What is computed in f16: nothing (f32), or products, convolutions and activations (mixed)
    #[arg(long, value_name = "f32|mixed")]
    precision: Option<Precision>,
    /// Passes over the data; with --resume a run goes on for so many in all, which may be more than
    /// it began with
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// The run's directory
    #[arg(long, value_name = "DIR", default_value = "runs/latest")]
    out: PathBuf,
    /// Go on from the last checkpoint of --out, by the recipe that is kept there
    #[arg(long, conflicts_with_all = ["recipe", "set", "data", "model", "weights", "freeze", "resolution", "skip_bad", "precision", "dry_run"])]
    resume: bool,
    /// Write the metrics for TensorBoard, too, into the run's `tensorboard` folder; a run that was
    /// begun so goes on so
    #[arg(long, conflicts_with_all = ["dry_run", "profile"])]
    tensorboard: bool,
    /// Print parameters, memory and expected time, and stop
    #[arg(long)]
    dry_run: bool,
    /// Write a trace of a few warm steps for Perfetto or Chrome, print the kernels that cost most,
    /// and stop
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "resume"])]
    profile: Option<PathBuf>,
    /// Print metrics as JSON lines
    #[arg(long)]
    json: bool,
}

impl Train {
    pub(super) fn run(self) -> Result<ExitCode> {
        let group = parallel::world()?;
        // The others would wait for what does not come.
        self.run_in(&group).inspect_err(|error| group.fail(&error.to_string()))
    }

    fn run_in(self, group: &Arc<dyn Group>) -> Result<ExitCode> {
        let Self { method, options } = self;
        let leads = group.rank() == 0;
        if !leads && (options.dry_run || options.profile.is_some()) {
            return Ok(ExitCode::SUCCESS);
        }
        let gpu = device::open()?;
        if options.resume {
            return options.resume(&gpu, &method, group);
        }
        let recipe = options.recipe(&method)?;
        let dataset = Arc::new(recipe.open(Split::Train)?);
        let mut trainer = Trainer::new(&gpu, recipe.clone(), dataset.clone())?;
        trainer.notes.iter().filter(|_| leads).for_each(tell);
        if options.dry_run {
            return dry_run(&gpu, &mut trainer, &dataset, options.json);
        }
        if let Some(path) = &options.profile {
            return profile::run(&gpu, &mut trainer, path, options.json);
        }
        let trainer = judged(trainer, &dataset)?.shared_by(group.clone())?;
        let run = leads.then(|| RunDirectory::create(&options.out, &recipe, &gpu)).transpose()?;
        let run = run.map(|run| if options.tensorboard { run.with_tensorboard(0) } else { Ok(run) }).transpose()?;
        options.finish(&gpu, trainer, run.as_ref())
    }
}

impl Options {
    fn recipe(&self, method: &str) -> Result<Recipe> {
        let freeze: Vec<String> = self.freeze.iter().map(|pattern| pattern.trim().to_string()).collect();
        let mut recipe = match &self.recipe {
            Some(path) => {
                let (recipe, old) = Recipe::read_any(path)?;
                if old {
                    let path = path.display();
                    tell(format!("{path} is a recipe of version 1; `wgrad recipe {path}` prints it as of version {VERSION}"));
                }
                recipe
            }
            None if self.weights.is_some() => Recipe::finetuning(method, &freeze),
            None => Recipe::defaults(method),
        };
        recipe.epochs = self.epochs.unwrap_or(recipe.epochs);
        recipe.data.path = self.data.clone().unwrap_or(recipe.data.path);
        recipe.data.resolution = self.resolution.unwrap_or(recipe.data.resolution);
        recipe.data.skip_bad |= self.skip_bad;
        recipe.model.name = self.model.clone().unwrap_or(recipe.model.name);
        recipe.precision.name = self.precision.unwrap_or(recipe.precision.name);
        recipe.finetune.weights = self.weights.clone().unwrap_or(recipe.finetune.weights);
        if !freeze.is_empty() {
            recipe.finetune.freeze = freeze;
        }
        recipe.set_all(self.set.iter().map(String::as_str))?;
        let own = &recipe.method.name;
        if own != method {
            return Err(Error::argument("recipe", format!("its method is \"{own}\"; use `wgrad train {own}`")));
        }
        Ok(recipe)
    }

    fn resume(&self, gpu: &Gpu, method: &str, group: &Arc<dyn Group>) -> Result<ExitCode> {
        // One process writes; the others read what it will not change before all have read it.
        let leads = group.rank() == 0;
        let (run, mut recipe) = if leads { RunDirectory::resume(&self.out)? } else { RunDirectory::open(&self.out)? };
        let own = &recipe.method.name;
        if own != method {
            let message = format!("holds a run of the method \"{own}\"; use `wgrad train {own}`");
            return Err(Error::argument(self.out.display().to_string(), message));
        }
        let (mut checkpoint, notes) = run.newest_checkpoint()?;
        notes.iter().filter(|_| leads).for_each(tell);
        let before = recipe.epochs;
        if let Some(checkpoint) = &mut checkpoint {
            // What has been learnt stays; the schedule is that of the new length from here on.
            if let Some(epochs) = self.epochs {
                checkpoint.prolong(epochs)?;
                recipe.epochs = epochs;
            }
            checkpoint.follow(&recipe, &run.recipe_path())?;
        }
        let dataset = Arc::new(recipe.open(Split::Train)?);
        // A run that was ended before its first checkpoint starts again.
        let trainer = match &checkpoint {
            Some(checkpoint) => Trainer::resume(gpu, checkpoint, dataset.clone())?,
            None => Trainer::new(gpu, recipe, dataset.clone())?,
        };
        let trainer = judged(trainer, &dataset)?.shared_by(group.clone())?;
        if !leads {
            return self.finish(gpu, trainer, None);
        }
        let difference = checkpoint.and_then(|c| c.difference(gpu));
        difference.iter().for_each(tell);
        let step = trainer.position().step;
        run.rewind(step)?;
        let run = if self.tensorboard || run.tensorboard().exists() { run.with_tensorboard(step)? } else { run };
        if trainer.recipe.epochs != before {
            run.keep_recipe(&trainer.recipe)?;
            tell(format!("the run goes on to epoch {}; it began with {before}", trainer.recipe.epochs));
        }
        run.enter_resumption(step, gpu, difference.as_deref())?;
        tell(format!("resuming after step {step} of {}", trainer.steps()));
        self.finish(gpu, trainer, Some(&run))
    }

    /// The rest of the run, written down by the process that has a directory.
    fn finish(&self, gpu: &Gpu, mut trainer: Trainer, run: Option<&RunDirectory>) -> Result<ExitCode> {
        let stop = Stop::on_signals()?;
        let style = match run {
            None => Style::Silent,
            Some(_) if self.json => Style::Json,
            Some(_) => Style::Auto,
        };
        let mut epoch = trainer.position().epoch;
        let outcome = trainer.run(run, style, &mut |position| {
            if position.epoch > epoch {
                epoch = position.epoch;
                run.into_iter().for_each(|run| write_page(run, None));
            }
            stop.is_asked_for()
        })?;
        if let Some(run) = run {
            write_page(run, Some((gpu, self.data.as_deref())));
            if outcome.finished {
                tell(format!(
                    "finished in {:.1} s; weights in {}, curves in {}",
                    outcome.seconds,
                    run.weights().display(),
                    run.report().display()
                ));
            } else {
                let command = format!("wgrad train {} --resume --out {}", trainer.recipe.method.name, run.path().display());
                tell(format!("stopped after step {}; go on with `{command}`", outcome.position.step));
            }
        }
        Ok(if outcome.finished || !stop.is_asked_for() { ExitCode::SUCCESS } else { stop.code() })
    }
}

/// Writes the run's page. Training is worth more than its page, so what is wrong with that is only
/// said.
fn write_page(run: &RunDirectory, device: Option<(&Gpu, Option<&Path>)>) {
    let page = html(run.path(), device.map(|(gpu, _)| gpu), device.and_then(|(_, data)| data));
    if let Err(error) = page.and_then(|page| write_atomically(&run.report(), page.as_bytes())) {
        tell(format!("{}: {error}; `wgrad report {}` writes it", run.report().display(), run.path().display()));
    }
}

/// `trainer` with what its recipe holds out of `dataset` to be judged by.
fn judged(trainer: Trainer, dataset: &Arc<Dataset>) -> Result<Trainer> {
    let validation = Validation::new(&trainer.recipe, dataset)?;
    Ok(trainer.judged_by(validation.map(|validation| Box::new(validation) as Box<dyn Validator>)))
}

fn dry_run(gpu: &Gpu, trainer: &mut Trainer, dataset: &Arc<Dataset>, as_json: bool) -> Result<ExitCode> {
    let recipe = trainer.recipe.clone();
    let mut summary = Summary::default();
    trainer.method.network().module().summarize(&recipe.input(dataset).batch(recipe.batch).shape, &mut summary)?;
    let predicted = run_memory(gpu, |gpu| Trainer::new(gpu, recipe.clone(), dataset.clone()))?;
    let (first, each) = trainer.measure_steps(3)?;
    let (steps, parameters) = (trainer.steps(), trainer.params.count());
    let multiply_adds = summary.macs() / recipe.batch as u64;
    let memory = gpu.memory();
    let step = dispatches(&run_launches(gpu, |gpu| Trainer::new(gpu, recipe.clone(), dataset.clone()))?);
    let cards = cards()?;
    let seconds = first + each * steps.saturating_sub(1) as f64;
    if as_json {
        let layers = summary
            .rows
            .iter()
            .map(|r| json!({ "name": r.name, "output": r.output.to_vec(), "parameters": r.parameters, "multiply_adds": r.macs }))
            .collect::<Vec<_>>();
        let on_paper = cards.iter().map(|c| (c.card.clone(), json!(c.estimate(&step).seconds * steps as f64))).collect::<Map<_, _>>();
        say(format!(
            "{:#}",
            json!({
                "parameters": parameters, "multiply_adds_per_image": multiply_adds, "device_memory_bytes": memory.held, "predicted_memory_bytes": predicted.held,
                "live_bytes": memory.peak, "predicted_live_bytes": predicted.peak, "steps": steps,
                "first_step_seconds": first, "step_seconds": each, "expected_seconds": seconds, "on_paper_seconds": on_paper, "adapter": gpu.capabilities().name, "layers": layers,
            })
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let heads = parameters - summary.parameters();
    say(format!("{summary}\n"))?;
    say(format!(
        "parameters       {parameters}{}",
        if heads > 0 { format!(", {heads} of them in heads that only training needs") } else { String::new() }
    ))?;
    say(format!("multiply-adds    {multiply_adds} an image, forwards"))?;
    say(format!(
        "device memory    {} held, {} of it in tensors at most; predicted {} and {}",
        mib(memory.held),
        mib(memory.peak),
        mib(predicted.held),
        mib(predicted.peak)
    ))?;
    say(format!(
        "expected time    {seconds:.0} s: {steps} steps of {:.0} ms after a first one of {:.1} s, which compiles kernels",
        each * 1e3,
        first
    ))?;
    say(format!("measured on a few steps on {}; nothing was kept", gpu.capabilities().name))?;
    let on_paper: Vec<String> =
        cards.iter().map(|card| format!("{} {}", card.card, seconds_text(card.estimate(&step).seconds * steps as f64))).collect();
    say(format!("on paper, at least, by public peaks and not measured: {}", on_paper.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}

/// Seconds, with one digit where there are few.
fn seconds_text(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

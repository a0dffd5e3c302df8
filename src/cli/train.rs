//! `wgrad train`: a run from a recipe.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::data::{Dataset, Split, open};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::atomic::read;
use crate::nn::Summary;
use crate::tensor::Shape;
use crate::train::progress::Style;
use crate::train::{Checkpoint, Recipe, RunDirectory, Trainer};

/// Train a model
#[derive(clap::Subcommand)]
pub(super) enum Train {
    /// Learn a classifier from labels
    Supervised(Options),
    /// Learn an encoder without labels (Chen et al. 2020)
    Simclr(Options),
}

#[derive(clap::Args)]
pub(super) struct Options {
    /// A recipe in TOML; what it leaves out takes its default
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Change one value of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A folder of images: MNIST or CIFAR files, or one folder a class
    #[arg(long)]
    data: Option<PathBuf>,
    /// The run's directory
    #[arg(long, value_name = "DIR", default_value = "runs/latest")]
    out: PathBuf,
    /// Go on from the last checkpoint of --out
    #[arg(long)]
    resume: bool,
    /// Print parameters, memory and expected time, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print metrics as JSON lines
    #[arg(long)]
    json: bool,
}

/// Set by Ctrl-C: the step under way is finished and a checkpoint written.
pub(super) fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let handler = move || {
        if flag.swap(true, std::sync::atomic::Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("interrupted: writing a checkpoint (once more to stop at once)");
    };
    ctrlc::set_handler(handler).map_err(|e| Error::argument("Ctrl-C", e.to_string()))?;
    Ok(stop)
}

impl Train {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (method, options) = match self {
            Train::Supervised(options) => ("supervised", options),
            Train::Simclr(options) => ("simclr", options),
        };
        let gpu = Gpu::new()?;
        if options.resume {
            return options.resume(&gpu);
        }
        let recipe = options.recipe(method)?;
        let dataset = Arc::new(open(&recipe.data, Split::Train)?);
        let mut trainer = Trainer::new(&gpu, recipe.clone(), dataset.clone())?;
        if options.dry_run {
            return dry_run(&gpu, &mut trainer, &dataset);
        }
        let run = RunDirectory::create(&options.out, &recipe, &gpu)?;
        options.finish(&mut trainer, &run)
    }
}

impl Options {
    fn recipe(&self, method: &str) -> Result<Recipe> {
        let mut recipe = match &self.recipe {
            Some(path) => Recipe::parse(&String::from_utf8_lossy(&read(path)?), &path.display().to_string())?,
            None if method == "simclr" => simclr_defaults(),
            None => Recipe::default(),
        };
        recipe.method = method.into();
        if let Some(data) = &self.data {
            recipe.data.clone_from(data);
        }
        self.set.iter().try_for_each(|assignment| recipe.set(assignment))?;
        Ok(recipe)
    }

    fn resume(&self, gpu: &Gpu) -> Result<ExitCode> {
        let (run, _) = RunDirectory::open(&self.out)?;
        let checkpoint = Checkpoint::load(&run.last_checkpoint())?;
        let dataset = Arc::new(open(&checkpoint.recipe.data, Split::Train)?);
        let mut trainer = Trainer::resume(gpu, &checkpoint, dataset)?;
        run.rewind(checkpoint.position.step)?;
        eprintln!("resuming at step {} of {}", checkpoint.position.step, trainer.steps());
        self.finish(&mut trainer, &run)
    }

    fn finish(&self, trainer: &mut Trainer, run: &RunDirectory) -> Result<ExitCode> {
        let stop = stop_on_interrupt()?;
        let outcome = trainer.run(Some(run), if self.json { Style::Json } else { Style::Auto }, &stop)?;
        if outcome.finished {
            eprintln!("finished in {:.1} s; weights in {}", outcome.seconds, run.weights().display());
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("stopped at step {}; go on with --resume --out {}", outcome.position.step, display(run.path()));
        Ok(ExitCode::from(130))
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// SimCLR's own defaults for small grey images.
pub(super) fn simclr_defaults() -> Recipe {
    Recipe {
        method: "simclr".into(),
        model: "cnn_16_32_64".into(),
        batch: 256,
        epochs: 6,
        augmentation: "grey_simclr".into(),
        learning_rate: 0.3,
        weight_decay: 1e-4,
        ..Default::default()
    }
}

fn dry_run(gpu: &Gpu, trainer: &mut Trainer, dataset: &Arc<Dataset>) -> Result<ExitCode> {
    let mut summary = Summary::default();
    let input = Shape::from([trainer.recipe.batch, dataset.height(), dataset.width(), dataset.channels()]);
    trainer.learner.network().summarize(&input, &mut summary)?;
    println!("{summary}");
    let views = u64::from(trainer.learner.method().views());
    let parameters = 4 * trainer.params.count() as u64;
    // Values, gradients and one optimizer state; activations of every view with their gradients.
    let estimate = 3 * parameters + 2 * views * summary.activation_bytes();
    println!("parameters        {} ({} with heads)", summary.parameters(), trainer.params.count());
    println!("multiply-adds     {} an image and view", summary.macs() / trainer.recipe.batch.max(1) as u64);
    println!("device memory     about {} MiB for a step", (estimate >> 20).max(1));
    let (seconds, measured) = trainer.measure_steps(3)?;
    println!("                  {} MiB measured", gpu.memory().high_water >> 20);
    println!("expected time     {:.0} s for {} steps of {} ms on {}", seconds * trainer.steps() as f64, trainer.steps(), (seconds * 1e3).round(), gpu.capabilities().name);
    println!("                  measured on {measured} steps, whose result was thrown away");
    Ok(ExitCode::SUCCESS)
}

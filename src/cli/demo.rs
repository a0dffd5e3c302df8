//! `wgrad demo`: from nothing to a table in minutes, on real photographs of clothes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::device;
use super::output::say;
use super::probe::table as probe_table;
use super::table::Table;
use super::train::{INTERRUPTED, stop_on_interrupt};
use crate::data::{Dataset, Split, open};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::atomic::write_atomically;
use crate::train::evaluate::evaluate;
use crate::train::probe::{ProbeOptions, Protocol, Report, Source, Subject, mean_and_spread, probe};
use crate::train::progress::Style;
use crate::train::run::environment;
use crate::train::{Recipe, RunDirectory, Trainer};

/// Pre-train an encoder without labels, probe it, train a MobileNet with labels, and show what came of it
#[derive(clap::Args)]
pub(super) struct Demo {
    /// Where everything is kept; an earlier demo there is replaced
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// The photographs
    #[arg(long, value_name = "DIR", default_value = "data/fashion-mnist")]
    data: PathBuf,
    /// Epochs of pre-training
    #[arg(long, value_name = "N", default_value_t = 6)]
    pretrain_epochs: u32,
    /// Epochs of the MobileNet
    #[arg(long, value_name = "N", default_value_t = 5)]
    epochs: u32,
    /// Decides initial values, order and augmentation
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Labels of each class that the probe is given.
const LABELS: usize = 20;

/// One trained network of the demo.
struct Trained {
    trainer: Trainer,
    seconds: f64,
}

impl Demo {
    pub(super) fn run(self) -> Result<ExitCode> {
        Ok(if self.all()? { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
    }

    /// False where it was interrupted.
    fn all(&self) -> Result<bool> {
        let begun = Instant::now();
        let gpu = device::open()?;
        let train = Arc::new(open(&self.data, Split::Train)?);
        let test = Arc::new(open(&self.data, Split::Test)?);
        if self.out.exists() {
            // A demo's directory is the demo's own; anything else is left alone.
            if !self.out.join("simclr").join("recipe.toml").exists() {
                return Err(Error::argument(self.out.display().to_string(), "exists and holds no demo; choose another --out"));
            }
            std::fs::remove_dir_all(&self.out).map_err(|e| Error::io(&self.out, &e))?;
        }
        eprintln!(
            "{} ({}), {} training and {} test images of {} classes",
            gpu.capabilities().name,
            gpu.capabilities().backend,
            train.len(),
            test.len(),
            train.classes()
        );

        let stop = stop_on_interrupt()?;

        eprintln!("\n1. SimCLR: an encoder learns from images without labels");
        let recipe = Recipe { data: self.data.clone(), epochs: self.pretrain_epochs, seed: self.seed, ..Recipe::defaults("simclr") };
        let Some(simclr) = self.train(&gpu, "simclr", recipe, &train, &stop)? else { return Ok(false) };

        let options = ProbeOptions { labels: vec![LABELS], seed: self.seed, ..Default::default() };
        eprintln!("\n2. Probe: {LABELS} labels a class on its features, {} draws", options.draws);
        let probe_begun = Instant::now();
        let Trainer { method, params, recipe, .. } = &simclr.trainer;
        let subject = Subject { encoder: method.encoder(), params, recipe, train: &train, test: &test };
        let probed = probe(&gpu, &subject, &options, &mut |_| ())?;
        let probe_seconds = probe_begun.elapsed().as_secs_f64();
        eprint!("{}", probe_table(&probed));

        eprintln!("\n3. A MobileNetV1 (width 0.25) and, as the baseline, a linear classifier on pixels learn with labels");
        let recipe = Recipe { data: self.data.clone(), epochs: self.epochs, seed: self.seed, ..Recipe::default() };
        let Some(mobilenet) = self.train(&gpu, "mobilenetv1", recipe.clone(), &train, &stop)? else { return Ok(false) };
        // A strong baseline: the best of a small search over rate, epochs and decay.
        let mut pixels = Recipe {
            model: "pixels".into(),
            batch: 128,
            epochs: 20,
            learning_rate: 0.05,
            weight_decay: 5e-3,
            augmentation: "none".into(),
            ..recipe
        };
        pixels.set("label_smoothing=0")?;
        let Some(linear) = self.train(&gpu, "pixels", pixels, &train, &stop)? else { return Ok(false) };
        let mobilenet_accuracy = accuracy(&gpu, &mobilenet, &train, &test)?;
        let linear_accuracy = accuracy(&gpu, &linear, &train, &test)?;

        let results = Results {
            simclr,
            probed,
            probe_seconds,
            mobilenet,
            mobilenet_accuracy,
            linear,
            linear_accuracy,
            seconds: begun.elapsed().as_secs_f64(),
        };
        let summary = results.to_json(&gpu);
        write_atomically(&self.out.join("summary.json"), format!("{summary:#}\n").as_bytes())?;
        if self.json {
            say(format!("{summary:#}"))?;
        } else {
            say(format!("\n{}", results.table()))?;
            say(format!("{:.0} s in all; everything is in {}", results.seconds, self.out.display()))?;
        }
        Ok(true)
    }

    /// Trains one network; `None` where it was interrupted.
    fn train(&self, gpu: &Gpu, name: &str, recipe: Recipe, data: &Arc<Dataset>, stop: &AtomicBool) -> Result<Option<Trained>> {
        let path = self.directory(name);
        let mut trainer = Trainer::new(gpu, recipe, data.clone())?;
        let run = RunDirectory::create(&path, &trainer.recipe, gpu)?;
        let outcome = trainer.run(Some(&run), Style::Auto, &mut |_| stop.load(Ordering::Relaxed))?;
        if !outcome.finished {
            eprintln!("stopped; `wgrad train {} --resume --out {}` finishes this part alone", trainer.recipe.method, path.display());
            return Ok(None);
        }
        Ok(Some(Trained { trainer, seconds: outcome.seconds }))
    }

    fn directory(&self, name: &str) -> PathBuf {
        Path::new(&self.out).join(name)
    }
}

/// The share of test images that a trained classifier gets right.
fn accuracy(gpu: &Gpu, trained: &Trained, train: &Dataset, test: &Arc<Dataset>) -> Result<f64> {
    let preprocessing = trained.trainer.recipe.preprocessing("none", 0, train)?;
    Ok(evaluate(gpu, trained.trainer.method.network(), test, &preprocessing)?.accuracy())
}

/// Everything that the closing table shows.
struct Results {
    simclr: Trained,
    probed: Report,
    probe_seconds: f64,
    mobilenet: Trained,
    mobilenet_accuracy: f64,
    linear: Trained,
    linear_accuracy: f64,
    seconds: f64,
}

impl Results {
    fn table(&self) -> Table {
        let percent = |v: f64| format!("{:.1} %", 100.0 * v);
        let mut table = Table::new(&["what", "labels", "test accuracy", "parameters", "training seconds"]);
        for source in Source::ALL {
            let (mean, spread) = mean_and_spread(self.probed.draws(Protocol::Linear, Some(LABELS), source).unwrap_or_default());
            let cost = |text: String| if source == Source::Trained { text } else { "-".to_string() };
            table.row(&[
                format!("probe of {source}"),
                format!("{LABELS} a class"),
                format!("{} +- {:.1}", percent(mean), 100.0 * spread),
                cost(self.simclr.trainer.params.count().to_string()),
                cost(format!("{:.0}", self.simclr.seconds)),
            ]);
        }
        let classifiers = [
            ("MobileNetV1, width 0.25", &self.mobilenet, self.mobilenet_accuracy),
            ("linear classifier on pixels", &self.linear, self.linear_accuracy),
        ];
        for (name, trained, accuracy) in classifiers {
            table.row(&[
                name.into(),
                "all".into(),
                percent(accuracy),
                trained.trainer.params.count().to_string(),
                format!("{:.0}", trained.seconds),
            ]);
        }
        table
    }

    fn to_json(&self, gpu: &Gpu) -> Value {
        let classifier = |trained: &Trained, accuracy: f64| json!({ "accuracy": accuracy, "parameters": trained.trainer.params.count(), "seconds": trained.seconds });
        json!({
            "environment": environment(gpu),
            "seconds": self.seconds,
            "simclr": { "parameters": self.simclr.trainer.params.count(), "seconds": self.simclr.seconds, "epochs": self.simclr.trainer.recipe.epochs },
            "probe": self.probed.to_json(),
            "probe_seconds": self.probe_seconds,
            "mobilenet": classifier(&self.mobilenet, self.mobilenet_accuracy),
            "linear_on_pixels": classifier(&self.linear, self.linear_accuracy),
        })
    }
}

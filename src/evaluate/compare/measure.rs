//! What is measured of finished runs: accuracy, size, speed, and what training took.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Column, Comparison, Subject, short};
use crate::data::{Dataset, Loader, PackedBatch, Split};
use crate::error::{Error, Result};
use crate::evaluate::evaluate;
use crate::evaluate::probe::{self, ProbeOptions, linear_clean, mean_and_spread};
use crate::gpu::Gpu;
use crate::methods::HIDDEN;
use crate::nn::{Mode, Module, Summary};
use crate::report::{Environment, TimeSummary};
use crate::tensor::{DType, InputShape, Tensor};
use crate::train::methods::find;
use crate::train::run::Usage;
use crate::train::{LoadedRun, Recipe, RunDirectory};

/// Images of the batch whose throughput is measured.
pub const BATCH: usize = 64;
/// Labels a class of the linear probe that an encoder is judged by.
const LABELS: usize = 20;
/// Rounds that compile kernels and warm caches, and rounds that count.
const WARM: usize = 3;
const ROUNDS: usize = 15;

/// What an accuracy is one of, and what its spread is one over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// A classifier: the standard error of a share of so many test images.
    Classifier,
    /// A linear classifier on an encoder's features, of so many labels a class: the standard
    /// deviation over so many draws of them.
    Probe {
        /// Labels of each class.
        labels: usize,
        /// Choices of them.
        draws: u32,
    },
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The network, by name.
    pub network: String,
    /// The data set, with its images' size.
    pub data: String,
    /// The share of test images that are given the right class, and its spread: over runs where
    /// there are several, else as `judged` says.
    pub accuracy: (f64, f64),
    /// What was judged.
    pub judged: Judged,
    /// How many images it was judged on.
    pub test_images: usize,
    /// How many runs.
    pub runs: usize,
    /// Trained values of the network, without what only training needs.
    pub parameters: usize,
    /// Of one image, forwards.
    pub multiply_adds: u64,
    /// Of the file of weights, which has a method's own heads in it, too.
    pub bytes: u64,
    /// Milliseconds from one image on the device to its result on the host.
    pub latency: TimeSummary,
    /// The same of [`BATCH`] images.
    pub batch: TimeSummary,
    /// What training took, the mean over runs; `None` where a run does not keep it.
    pub spent: Option<Usage>,
    /// Labels that the method was given.
    pub labels: usize,
    /// The networks that taught it, and the labels that these were given, where they are still
    /// there.
    pub teachers: Vec<(String, Option<usize>)>,
    /// The weights that it began from.
    pub weights: Option<String>,
}

impl Measured {
    /// Images a second, in batches.
    pub fn throughput(&self) -> f64 {
        BATCH as f64 / (self.batch.median * 1e-3)
    }

    pub(super) fn to_json(&self) -> Value {
        let judged = match self.judged {
            Judged::Classifier => json!("classifier"),
            Judged::Probe { labels, draws } => json!({ "probe": { "labels_per_class": labels, "draws": draws } }),
        };
        let teachers: Vec<Value> = self.teachers.iter().map(|(name, labels)| json!({ "run": name, "labels": labels })).collect();
        json!({
            "network": self.network, "data": self.data, "accuracy": self.accuracy.0, "spread": self.accuracy.1, "judged": judged,
            "test_images": self.test_images, "runs": self.runs, "parameters": self.parameters, "multiply_adds": self.multiply_adds,
            "model_bytes": self.bytes, "latency_ms": self.latency, "batch_ms": self.batch, "batch": BATCH,
            "images_per_second": self.throughput(), "training": self.spent, "labels": self.labels, "teachers": teachers, "weights": self.weights,
        })
    }
}

/// Compares `subjects`. `data` says where the runs' images are when they have moved; `seen` is told
/// what is measured next.
///
/// # Errors
/// A run that is not finished; those of the device and of files.
pub fn measure(gpu: &Gpu, subjects: Vec<Subject>, data: Option<&PathBuf>, seen: &mut dyn FnMut(&str)) -> Result<Comparison> {
    let mut columns = Vec::new();
    let mut timed = Vec::new();
    let environment = subjects.iter().any(|subject| !subject.runs.is_empty()).then(|| Environment::of(gpu));
    for subject in subjects {
        seen(&subject.name);
        let found = subject.runs.iter().map(|run| judge(gpu, run, data)).collect::<Result<Vec<_>>>()?;
        let measured = together(found).map(|(measured, clock)| {
            timed.push((columns.len(), clock));
            measured
        });
        columns.push(Column { subject, measured });
    }
    if !timed.is_empty() {
        seen("speed");
    }
    // In turn, so that what else the machine does troubles all alike.
    for round in 0..WARM + ROUNDS {
        for (_, clock) in &mut timed {
            clock.tick(round >= WARM)?;
        }
    }
    for (at, clock) in timed {
        if let Some(measured) = columns.get_mut(at).and_then(|column| column.measured.as_mut()) {
            let [one, many] = clock.seconds.map(|seconds| TimeSummary::of_seconds(&seconds));
            (measured.latency, measured.batch) = (one, many);
        }
    }
    Ok(Comparison { environment, columns })
}

/// A network under the clock: with one image, and with a batch.
struct Timed {
    network: Box<dyn Module>,
    images: [Tensor; 2],
    seconds: [Vec<f64>; 2],
}

impl Timed {
    fn tick(&mut self, counts: bool) -> Result<()> {
        for (images, seconds) in self.images.iter().zip(&mut self.seconds) {
            let begun = Instant::now();
            self.network.forward(images, Mode::Eval)?.cast(DType::F32)?.to_vec::<f32>()?;
            if counts {
                seconds.push(begun.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }
}

/// Everything of one run but its speed.
fn judge(gpu: &Gpu, run: &Path, data: Option<&PathBuf>) -> Result<(Measured, Timed)> {
    let LoadedRun { recipe, network, train, params } = LoadedRun::open(gpu, run, data)?;
    let (directory, _) = RunDirectory::open(run)?;
    let test = Arc::new(recipe.open(Split::Test)?);
    let clean = recipe.preprocessing("none", 0, &train)?;
    let (judged, accuracy) = if network.classifier().is_some() {
        let share = evaluate(gpu, &network, &test, &clean)?.accuracy();
        (Judged::Classifier, (share, (share * (1.0 - share) / test.len().max(1) as f64).sqrt()))
    } else {
        let subject = probe::ProbeSubject { encoder: network.backbone(), params: &params, recipe: &recipe, train: &train, test: &test };
        let augmentation = recipe.augmentation.views.first()?.to_string();
        let options = ProbeOptions { seed: recipe.seed, augmentation, ..Default::default() };
        let labels = LABELS.min(fewest(&train));
        let draws = linear_clean(gpu, &subject, &options, labels)?;
        (Judged::Probe { labels, draws: options.draws }, mean_and_spread(&draws))
    };
    let input = recipe.input(&train);
    let mut summary = Summary::default();
    network.summarize(&input.batch(1).shape, &mut summary)?;
    let images = |count: usize| {
        let some = Arc::new(test.subset(&(0..count).map(|i| i % test.len().max(1)).collect::<Vec<_>>())?);
        let batch = Loader::evaluation(some, count)?.epoch(0).next();
        let batch = batch.ok_or_else(|| Error::data(test.name(), "holds no image"))??;
        clean.apply(&PackedBatch::upload(gpu, &batch)?.unpack()?, 0, 0)
    };
    let weights = directory.weights();
    let bytes = std::fs::metadata(&weights).map_err(|e| Error::io(&weights, &e))?.len();
    let labels_of = |run: &Path| RunDirectory::open(run).ok().and_then(|(_, recipe)| labels(&recipe, None).ok());
    let own = if (recipe.model.width - 1.0).abs() > 0.0 { format!(", width × {}", recipe.model.width) } else { String::new() };
    let measured = Measured {
        network: recipe.model.name.clone() + &own,
        data: match input {
            InputShape::Image([height, width, channels]) => format!("{}, {height}×{width}×{channels}", train.name()),
            InputShape::Tokens(_) => format!("{}, {input}", train.name()),
        },
        accuracy,
        judged,
        test_images: test.len(),
        runs: 1,
        parameters: params.count(),
        multiply_adds: summary.macs(),
        bytes,
        latency: TimeSummary::default(),
        batch: TimeSummary::default(),
        spent: directory.usage()?,
        labels: labels(&recipe, Some(&train))?,
        teachers: recipe.teachers.iter().map(|run| (short(run), labels_of(run))).collect(),
        weights: Some(recipe.finetune.weights.as_path()).filter(|weights| !weights.as_os_str().is_empty()).map(origin),
    };
    Ok((measured, Timed { network: Box::new(network), images: [images(1)?, images(BATCH)?], seconds: Default::default() }))
}

/// Several runs as one; the speed is the first's.
fn together(found: Vec<(Measured, Timed)>) -> Option<(Measured, Timed)> {
    let count = found.len();
    let accuracies: Vec<f64> = found.iter().map(|(measured, _)| measured.accuracy.0).collect();
    let spent: Option<Vec<Usage>> = found.iter().map(|(measured, _)| measured.spent).collect();
    let seconds = spent.map(|spent| spent.iter().map(|spent| spent.seconds).sum::<f64>() / count as f64);
    let (first, timed) = found.into_iter().next()?;
    let spent = first.spent.zip(seconds).map(|(spent, seconds)| Usage { seconds, ..spent });
    let accuracy = if count > 1 { mean_and_spread(&accuracies) } else { first.accuracy };
    Some((Measured { accuracy, spent, runs: count, ..first }, timed))
}

/// What weights are called: the run that they are of, or their file.
fn origin(path: &Path) -> String {
    let run = path.parent().filter(|folder| folder.join("recipe.toml").exists());
    short(run.unwrap_or(path))
}

/// Images of the rarest class.
fn fewest(dataset: &Dataset) -> usize {
    let count = |class: usize| dataset.labels().iter().filter(|label| **label == class as i32).count();
    (0..dataset.classes()).map(count).min().unwrap_or(0)
}

/// How many labels `recipe` gives its method; `chosen` are its images where they are open already.
fn labels(recipe: &Recipe, chosen: Option<&Arc<Dataset>>) -> Result<usize> {
    if !find(&recipe.method.name)?.uses_labels(&recipe.method.settings)? {
        return Ok(0);
    }
    let dataset = chosen.map_or_else(|| recipe.chosen(Arc::new(recipe.open(Split::Train)?)), |chosen| Ok(chosen.clone()))?;
    let known = |dataset: &Dataset| dataset.labels().iter().filter(|label| **label != HIDDEN).count();
    Ok(if recipe.data.labels_per_class > 0 {
        known(&dataset.hide(&dataset.split_indices(recipe.data.labels_per_class, recipe.seed)?.0))
    } else {
        known(&dataset)
    })
}

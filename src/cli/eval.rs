//! `wgrad eval`: a trained classifier on test images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::classifier::ModelArguments;
use super::device;
use super::output::say;
use super::table::Table;
use crate::data::{Dataset, Labels, Split, Task, list_image_folder};
use crate::error::{Error, Result};
use crate::evaluate::bias::{add_bias, bias_for_share};
use crate::evaluate::domains::{Domains, GateScore, domains};
use crate::evaluate::tasks::{evaluate_heads, heads};
use crate::evaluate::{Evaluation, outputs, stream_outputs};
use crate::gpu::Gpu;
use crate::io::atomic::write_atomically;
use crate::report::csv::csv;
use crate::train::LoadedRun;
use crate::train::progress::Count;

/// Most classes whose confusion is shown whole.
const WHOLE: usize = 20;
/// Pairs of classes that are shown else.
const PAIRS: usize = 15;

/// Evaluate a run's classifier on its test images, or a model by name with weights from a file on a
/// folder of images
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("named").arg("model").requires("data")))]
pub(super) struct Eval {
    /// The run's directory
    #[arg(default_value = "runs/latest", conflicts_with = "model")]
    run: PathBuf,
    /// Of a model: a folder of images for each class, or of test/ or val/ with these. Of a run: its
    /// data set where it has moved
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Of a run: only so many test images of each class, always the same
    #[arg(long, value_name = "N", conflicts_with = "model")]
    per_class: Option<usize>,
    /// Of a run that merged several teachers: say how well it, and how sure they are, tell which of
    /// them an image belongs to
    #[arg(long, conflicts_with = "model")]
    domains: bool,
    /// Of a run: add a number to the logit of a class; may be repeated
    #[arg(long, value_name = "CLASS=VALUE", conflicts_with = "model")]
    bias: Vec<String>,
    /// Of a run: raise the logit of a class until it is predicted for this share of the training
    /// images, of those of omitted classes, too; no label is looked at. May be repeated
    #[arg(long, value_name = "CLASS=SHARE", conflicts_with = "model")]
    share: Vec<String>,
    #[command(flatten)]
    model: ModelArguments,
    /// Write the whole confusion matrix, true classes by predicted ones, as CSV
    #[arg(long, value_name = "FILE")]
    confusion: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found, and of what.
struct Judged {
    found: Evaluation,
    labels: Labels,
    parameters: usize,
    /// How classes were matched with folders.
    matched: Option<String>,
    /// Pictures that could not be read.
    damaged: usize,
    /// Which of its teachers images belong to.
    domains: Option<Domains>,
    /// What the run has learnt beside its classes.
    tasks: Vec<(Task, Evaluation)>,
    /// What was added to classes' logits, where anything was.
    bias: Vec<(usize, f32)>,
}

impl Eval {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = device::open()?;
        let judged = match (&self.model.model, &self.data) {
            (Some(name), Some(data)) => self.of_model(&gpu, name, data)?,
            _ => self.of_run(&gpu)?,
        };
        if let Some(path) = &self.confusion {
            write_atomically(path, confusion(&judged)?.as_bytes())?;
        }
        if self.json {
            let Judged { found, labels, parameters, matched, damaged, domains, tasks, bias } = &judged;
            let told = |told: &GateScore| json!({ "accuracy": told.accuracy, "auroc": told.auroc });
            let domains =
                domains.as_ref().map(|d| json!({ "student": d.student, "energy": told(&d.energy), "probability": told(&d.probability) }));
            let task = |(task, found): &(Task, Evaluation)| {
                json!({
                    "name": task.name, "images": found.images(), "accuracy": found.accuracy(), "loss": found.loss(),
                    "confusion": found.confusion, "classes": task.classes,
                })
            };
            let bias: serde_json::Map<_, _> = bias.iter().map(|(class, value)| (labels.name(*class), json!(value))).collect();
            let all = json!({
                "images": found.images(), "accuracy": found.accuracy(), "top_5": found.top_5(), "loss": found.loss(),
                "confusion": found.confusion, "classes": labels.names(), "parameters": parameters, "matched": matched, "damaged": damaged,
                "domains": domains, "tasks": tasks.iter().map(task).collect::<Vec<_>>(), "bias": bias,
            });
            // A line for every number of a large matrix helps no one.
            say(if labels.names().len() <= WHOLE { format!("{all:#}") } else { all.to_string() })?;
        } else {
            say(text(&judged))?;
        }
        Ok(if judged.damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn of_run(&self, gpu: &Gpu) -> Result<Judged> {
        let mut finished = LoadedRun::open(gpu, &self.run, self.data.as_ref())?;
        let heads = heads(&self.run, &finished)?;
        if finished.network.classifier().is_none() {
            return Err(Error::argument(self.run.display().to_string(), "holds an encoder without a classifier; use `wgrad probe`"));
        }
        self.model.fold(&mut finished.network)?;
        let LoadedRun { recipe, network, train, params } = &finished;
        let mut test = recipe.open(Split::Test)?;
        if let Some(per_class) = self.per_class {
            test = test.subset(&test.split_indices(per_class, 0)?.0)?;
        }
        let test = Arc::new(test);
        let (preprocessing, parameters) = (recipe.preprocessing("none", 0, train)?, params.count());
        let bias = self.biases(gpu, &finished, &test)?;
        let mut logits = outputs(gpu, network, &test, &preprocessing, 0)?;
        add_bias(&mut logits, &bias);
        let mut found = Evaluation::new(test.classes());
        found.add(&logits, test.labels())?;
        let tasks = evaluate_heads(gpu, (&finished, &heads), &test, &preprocessing)?;
        let labels = Labels::new(test.class_names().to_vec());
        let domains = self.domains.then(|| domains(gpu, recipe, train, &test, &found.confusion)).transpose()?;
        let bias = bias.into_iter().enumerate().filter(|(_, value)| *value != 0.0).collect();
        Ok(Judged { found, labels, parameters, matched: None, damaged: 0, domains, tasks, bias })
    }

    /// What is added to each class's logit: what the command line says, and what gives classes
    /// their share of the training images.
    fn biases(&self, gpu: &Gpu, finished: &LoadedRun, test: &Dataset) -> Result<Vec<f32>> {
        let LoadedRun { recipe, network, train, .. } = finished;
        let mut bias = vec![0.0; test.classes()];
        for (class, value) in self.bias.iter().map(|text| assignment(text, test)).collect::<Result<Vec<_>>>()? {
            bias.iter_mut().skip(class).take(1).for_each(|bias| *bias += value);
        }
        if self.share.is_empty() {
            return Ok(bias);
        }
        let mut all = recipe.clone();
        all.data.omit.clear();
        let preprocessing = recipe.preprocessing("none", 0, train)?;
        let mut seen = outputs(gpu, network, &all.chosen(Arc::new(all.open(Split::Train)?))?, &preprocessing, 0)?;
        add_bias(&mut seen, &bias);
        for (class, share) in self.share.iter().map(|text| assignment(text, test)).collect::<Result<Vec<_>>>()? {
            let mut more = vec![0.0; test.classes()];
            let value = bias_for_share(&seen, test.classes(), class, share.into())?;
            more.iter_mut().skip(class).take(1).for_each(|bias| *bias = value);
            add_bias(&mut seen, &more);
            add_bias(&mut bias, &more);
        }
        Ok(bias)
    }

    fn of_model(&self, gpu: &Gpu, name: &str, data: &Path) -> Result<Judged> {
        let (folders, mut files) = list_image_folder(data)?;
        let classifier = self.model.of_model(gpu, name)?;
        let (classes, matched) = classifier.labels.match_folders(&folders)?;
        for (_, label) in &mut files {
            *label = classes.get(*label as usize).map_or(-1, |class| *class as i32);
        }
        let total = classifier.labels.names().len();
        let mut found = Evaluation::new(total);
        let mut damaged = 0;
        let mut count = Count::new("eval", files.len());
        stream_outputs(gpu, classifier.network.as_ref(), &files, total, &classifier.input, |read, outputs| {
            found.add(outputs, &read.batch.labels)?;
            read.damaged.iter().for_each(|error| count.say(&format!("passed over: {error}")));
            damaged += read.damaged.len();
            count.advance(read.batch.indices.len() + read.damaged.len());
            Ok(())
        })?;
        if found.images() == 0 {
            return Err(Error::data(data.display().to_string(), format!("none of its {damaged} pictures can be read")));
        }
        let matched = format!("{} folders matched with {total} classes by {matched}", folders.len());
        Ok(Judged {
            found,
            labels: classifier.labels,
            parameters: classifier.params.count(),
            matched: Some(matched),
            damaged,
            domains: None,
            tasks: Vec::new(),
            bias: Vec::new(),
        })
    }
}

/// A class of `dataset` and a number, from `CLASS=NUMBER`.
fn assignment(text: &str, dataset: &Dataset) -> Result<(usize, f32)> {
    let wrong = || Error::argument(text, "expected CLASS=NUMBER, a finite one");
    let (class, value) = text.rsplit_once('=').ok_or_else(wrong)?;
    let value = value.trim().parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(wrong)?;
    Ok((dataset.class(class.trim())?, value))
}

/// What is said of an evaluation: figures, and the confusion of few classes or the most frequent
/// mistakes among many.
fn text(judged: &Judged) -> String {
    let Judged { found, labels, parameters, matched, damaged, domains, tasks, bias } = judged;
    let names = labels.names();
    let top_5 = if names.len() > 5 { format!(", top-5 {:.2} %", 100.0 * found.top_5()) } else { String::new() };
    let mut text = format!(
        "accuracy {:.2} %{top_5} of {} images, loss {:.4}, {parameters} parameters\n",
        100.0 * found.accuracy(),
        found.images(),
        found.loss()
    );
    text.extend(bias.iter().map(|(class, value)| format!("added to the logit of {}: {value:.3}\n", labels.name(*class))));
    text.extend(matched.iter().map(|matched| format!("{matched}\n")));
    text.extend(domains.iter().map(domains_line));
    if *damaged > 0 {
        text.push_str(&format!("pictures that could not be read: {damaged}\n"));
    }
    for (task, found) in tasks {
        let (accuracy, images) = (100.0 * found.accuracy(), found.images());
        text.push_str(&format!("{}: accuracy {accuracy:.2} % of {images} images, loss {:.4}\n", task.name, found.loss()));
    }
    text.push('\n');
    if names.len() <= WHOLE {
        let head: Vec<String> = (0..names.len()).map(|i| i.to_string()).collect();
        let mut table = Table::new(&[&["true \\ predicted"], head.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
        for (index, (name, row)) in names.iter().zip(&found.confusion).enumerate() {
            let counts = row.iter().map(ToString::to_string);
            table.row(&[format!("{index} {name}")].into_iter().chain(counts).collect::<Vec<_>>());
        }
        return text + &table.to_string();
    }
    let mistakes = found.mistakes();
    if mistakes.is_empty() {
        return text;
    }
    let mut table = Table::of_words(&["true", "predicted", "images"]);
    for (truth, predicted, images) in mistakes.iter().take(PAIRS) {
        table.row(&[labels.name(*truth), labels.name(*predicted), images.to_string()]);
    }
    text + &table.to_string()
}

fn domains_line(domains: &Domains) -> String {
    let told = |told: &GateScore| format!("{:.2} % (AUROC {:.3})", 100.0 * told.accuracy, told.auroc);
    let Domains { student, energy, probability } = domains;
    let (energy, probability) = (told(energy), told(probability));
    format!("which teacher's class: the student {:.2} %, teachers' energy {energy}, largest probability {probability}\n", 100.0 * student)
}

/// The confusion matrix with the classes' names.
fn confusion(judged: &Judged) -> Result<String> {
    let names = judged.labels.names();
    let head = std::iter::once("true \\ predicted".to_string()).chain(names.iter().cloned()).collect::<Vec<_>>();
    let rows = names.iter().zip(&judged.found.confusion);
    csv(std::iter::once(head)
        .chain(rows.map(|(name, row)| std::iter::once(name.clone()).chain(row.iter().map(ToString::to_string)).collect())))
}

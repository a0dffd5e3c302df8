//! `wgrad probe`: what has an encoder learnt?

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::device;
use super::output::say;
use super::table::Table;
use crate::data::{ClassGroup, Dataset, Split};
use crate::error::{Error, Result};
use crate::evaluate::probe::{Neighbours, ProbeOptions, ProbeSubject, Protocol, Report, Source, mean_and_spread, probe};
use crate::io::console::tell;
use crate::train::LoadedRun;

/// Judge a run's encoder by linear classifiers, nearest neighbours, retrieval and, on request,
/// fine-tuning, beside a random encoder and raw pixels (docs/evaluation.md)
#[derive(clap::Args)]
pub(super) struct Probe {
    /// The run's directory
    #[arg(default_value = "runs/latest")]
    run: PathBuf,
    /// The run's data set where it is not where the run found it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Probe on another data set than the run's, images of the same colours; they are normalised as
    /// the run's are
    #[arg(long, value_name = "DIR")]
    on: Option<PathBuf>,
    /// Probe on these classes, by number or name (`6+7, Bag`: two, of which the first is two of the
    /// data set's; `*` for all): those that the run has not seen
    #[arg(long, value_name = "LIST")]
    classes: Option<String>,
    /// Labelled images of each class, with commas between; `all` for all that there are
    #[arg(long, value_name = "N,..", default_value = "10,20", value_delimiter = ',', value_parser = labels)]
    labels: Vec<usize>,
    /// Independent choices of them
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    draws: u32,
    /// Augmented views of each labelled image
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=200))]
    views: u32,
    /// The views' augmentation preset; the run's own (the first of several) when not given
    #[arg(long, value_name = "PRESET")]
    augmentation: Option<String>,
    /// Neighbours that vote and the temperature of their weights: dino (20:0.07), moco (200:0.1) or
    /// K:T
    #[arg(long, value_name = "K:T", default_value = "dino")]
    neighbours: Neighbours,
    /// Fine-tune the whole network, too, from the run's weights and from scratch, by this learning
    /// rate [default: 0.003]; this takes minutes
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true, default_missing_value = "0.003", value_parser = rate)]
    finetune: Option<f32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn labels(text: &str) -> std::result::Result<usize, String> {
    if text == "all" {
        return Ok(0);
    }
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a number above 0, or all".to_string())
}

fn rate(text: &str) -> std::result::Result<f32, String> {
    text.parse().ok().filter(|rate| *rate > 0.0 && *rate < 1.0).ok_or_else(|| "expected a number between 0 and 1".to_string())
}

impl Probe {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = device::open()?;
        let loaded = LoadedRun::open(&gpu, &self.run, self.data.as_ref())?;
        let (train, test) = self.images(&loaded)?;
        let first = loaded.recipe.augmentation.views.first()?;
        let options = ProbeOptions {
            labels: self.labels,
            draws: self.draws,
            views: self.views,
            seed: loaded.recipe.seed,
            augmentation: self.augmentation.as_deref().unwrap_or(first).to_string(),
            neighbours: self.neighbours,
            finetune: self.finetune,
        };
        let encoder = loaded.network.backbone();
        let subject = ProbeSubject { encoder, params: &loaded.params, recipe: &loaded.recipe, train: &train, test: &test };
        let found = probe(&gpu, &subject, &options, &mut |row| {
            // The only one that is worth waiting for.
            if row.protocol == Protocol::Finetune {
                let count = row.labels.filter(|n| *n > 0).map_or("all".into(), |n| n.to_string());
                tell(format!("{} {} labels a class, {}: {}", row.protocol, count, row.source, shown(row.protocol, &row.draws)));
            }
        })?;
        if self.json {
            let ProbeOptions { draws, views, seed, augmentation, neighbours, finetune, .. } = options;
            let options = json!({
                "draws": draws, "views": views, "seed": seed, "augmentation": augmentation,
                "neighbours": neighbours.k, "temperature": neighbours.temperature, "finetune": finetune,
            });
            let mut all = found.to_json();
            all.as_object_mut().map(|all| all.insert("options".into(), options));
            say(format!("{all:#}"))?;
        } else {
            say(table(&found))?;
            say(notes(&found, &options))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The images that labels are drawn from, and those that are judged on.
    fn images(&self, loaded: &LoadedRun) -> Result<(Arc<Dataset>, Arc<Dataset>)> {
        if self.on.is_none() && self.classes.is_none() {
            return Ok((loaded.train.clone(), Arc::new(loaded.recipe.open(Split::Test)?)));
        }
        let mut other = loaded.recipe.clone();
        other.data.path = self.on.clone().unwrap_or(other.data.path);
        let classes = self.classes.as_deref().filter(|classes| *classes != "*");
        other.data.classes = classes.map(ClassGroup::list).unwrap_or_default();
        let open = |split| Ok::<_, Error>(Arc::new(other.open(split)?.normalized_as(&loaded.train)?));
        Ok((open(Split::Train)?, open(Split::Test)?))
    }
}

/// A mean, and the spread of several draws; accuracies in per cent.
fn shown(protocol: Protocol, draws: &[f64]) -> String {
    let (mean, spread) = mean_and_spread(draws);
    match (protocol.is_accuracy(), draws.len()) {
        (true, 1) => format!("{:.1}", 100.0 * mean),
        (true, _) => format!("{:.1} +- {:.1}", 100.0 * mean, 100.0 * spread),
        (false, 1) => format!("{mean:.3}"),
        (false, _) => format!("{mean:.3} +- {spread:.3}"),
    }
}

/// The probe's table.
pub(super) fn table(found: &Report) -> Table {
    let mut head = vec!["protocol".to_string(), "labels a class".into()];
    head.extend(Source::ALL.map(|source| source.to_string()));
    head.extend(["over random".into(), "over pixels".into()]);
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for (protocol, labels) in found.protocols() {
        let figure = |draws: Option<&[f64]>| draws.map_or("-".to_string(), |draws| shown(protocol, draws));
        let mut cells = vec![protocol.to_string(), labels.map_or("-".into(), |n| if n == 0 { "all".into() } else { n.to_string() })];
        cells.extend(Source::ALL.map(|source| figure(found.draws(protocol, labels, source))));
        cells.extend([Source::Random, Source::Pixels].map(|other| figure(found.ahead(protocol, labels, other).as_deref())));
        table.row(&cells);
    }
    table
}

/// What must be known to read it.
fn notes(found: &Report, options: &ProbeOptions) -> String {
    let ProbeOptions { draws, augmentation, neighbours, .. } = options;
    let ratio = found.retrieval_ratio(Source::Random).unwrap_or(f64::NAN);
    format!(
        "accuracy in per cent: mean and spread over {draws} draws; differences are paired. Test images in views of {augmentation} unless clean.\n\
         {} neighbours, temperature {}. Retrieval from {} images: of instances {ratio:.1} times the random encoder's, chance is {:.1}.\n\
         Fine-tuned: the random encoder's column is the same network from scratch. Alignment and uniformity: less is better.",
        neighbours.k,
        neighbours.temperature,
        found.gallery,
        100.0 / found.gallery.max(1) as f64
    )
}

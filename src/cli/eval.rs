//! `wgrad eval`: a trained classifier on test images.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::device;
use super::output::say;
use super::table::Table;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::{Parameters, state_dict};
use crate::train::evaluate::evaluate;
use crate::train::trainer::{Learner, learner};
use crate::train::{Recipe, RunDirectory};

/// Evaluate a run's classifier on the test images
#[derive(clap::Args)]
pub(super) struct Eval {
    /// The run's directory
    #[arg(default_value = "runs/latest")]
    run: PathBuf,
    /// The run's data set where it is not where the run found it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only so many test images of each class, always the same
    #[arg(long, value_name = "N")]
    per_class: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A run's network with its weights, and what it was trained on.
pub(super) struct Loaded {
    pub recipe: Recipe,
    pub learner: Learner,
    pub train: Arc<crate::data::Dataset>,
    pub params: Parameters,
}

/// Loads a finished run. Its training images give the classes and the statistics to normalise with; `data` says where they are when
/// they have moved.
pub(super) fn load(gpu: &Gpu, run: &std::path::Path, data: Option<&PathBuf>) -> Result<Loaded> {
    let (run, mut recipe) = RunDirectory::open(run)?;
    if !run.weights().exists() {
        let command = format!("wgrad train {} --resume --out {}", recipe.method, run.path().display());
        return Err(Error::data(
            run.path().display().to_string(),
            format!("has no weights yet: the run is not finished; go on with `{command}`"),
        ));
    }
    if let Some(data) = data {
        recipe.data.clone_from(data);
    }
    let train = recipe.labelled(Arc::new(recipe.open(Split::Train)?))?;
    let params = Parameters::new(gpu, recipe.seed);
    let learner = learner(&params, &recipe, &train)?;
    state_dict::load(&params, &run.weights())?;
    Ok(Loaded { recipe, learner, train, params })
}

impl Eval {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = device::open()?;
        let loaded = load(&gpu, &self.run, self.data.as_ref())?;
        let Learner::Supervised(_) = &loaded.learner else {
            return Err(Error::argument(self.run.display().to_string(), "holds an encoder without a classifier; use `wgrad probe`"));
        };
        let mut test = loaded.recipe.open(Split::Test)?;
        if let Some(per_class) = self.per_class {
            test = test.subset(&test.split_indices(per_class, 0)?.0)?;
        }
        let test = Arc::new(test);
        let preprocessing = loaded.recipe.preprocessing("none", 0, &loaded.train)?;
        let found = evaluate(&gpu, loaded.learner.network(), &test, &preprocessing)?;
        if self.json {
            say(format!(
                "{:#}",
                json!({ "images": test.len(), "accuracy": found.accuracy(), "loss": found.loss, "confusion": found.confusion, "classes": test.class_names(), "parameters": loaded.params.count() })
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        say(format!(
            "accuracy {:.2} % of {} images, loss {:.4}, {} parameters\n",
            100.0 * found.accuracy(),
            test.len(),
            found.loss,
            loaded.params.count()
        ))?;
        let names = test.class_names();
        let head: Vec<String> = (0..names.len()).map(|i| i.to_string()).collect();
        let mut table = Table::new(&[&["true \\ predicted"], head.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
        for (index, (name, row)) in names.iter().zip(&found.confusion).enumerate() {
            let counts = row.iter().map(ToString::to_string);
            table.row(&[format!("{index} {name}")].into_iter().chain(counts).collect::<Vec<_>>());
        }
        say(table)?;
        Ok(ExitCode::SUCCESS)
    }
}

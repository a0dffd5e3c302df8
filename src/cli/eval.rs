//! `wgrad eval`: a trained classifier on test images.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::table::Table;
use crate::data::{Split, open};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::{Parameters, state_dict};
use crate::train::evaluate::{evaluate, preprocessing};
use crate::train::trainer::{Learner, learner};
use crate::train::{Recipe, RunDirectory};

/// Evaluate a run's classifier on the test images
#[derive(clap::Args)]
pub(super) struct Eval {
    /// The run's directory
    #[arg(default_value = "runs/latest")]
    run: PathBuf,
    /// Other data than the run's own
    #[arg(long)]
    data: Option<PathBuf>,
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

/// Loads a finished run.
pub(super) fn load(gpu: &Gpu, run: &std::path::Path) -> Result<Loaded> {
    let (run, recipe) = RunDirectory::open(run)?;
    let train = Arc::new(open(&recipe.data, Split::Train)?);
    let params = Parameters::new(gpu, recipe.seed);
    let learner = learner(&params, &recipe, &train)?;
    state_dict::load(&params, &run.weights())?;
    Ok(Loaded { recipe, learner, train, params })
}

impl Eval {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = Gpu::new()?;
        let loaded = load(&gpu, &self.run)?;
        let Learner::Supervised(_) = &loaded.learner else {
            return Err(Error::argument(self.run.display().to_string(), "holds an encoder without a classifier; use `wgrad probe`"));
        };
        let test = Arc::new(open(self.data.as_ref().unwrap_or(&loaded.recipe.data), Split::Test)?);
        let preprocessing = preprocessing("none", 0, &loaded.train)?;
        let found = evaluate(&gpu, loaded.learner.network(), &test, &preprocessing)?;
        if self.json {
            println!("{:#}", json!({ "images": test.len(), "accuracy": found.accuracy(), "loss": found.loss, "confusion": found.confusion, "parameters": loaded.params.count() }));
            return Ok(ExitCode::SUCCESS);
        }
        println!("{:.2} % of {} images, loss {:.4}, {} parameters", 100.0 * found.accuracy(), test.len(), found.loss, loaded.params.count());
        let names = test.class_names();
        let head: Vec<String> = (0..names.len()).map(|i| i.to_string()).collect();
        let mut table = Table::new(&[&["true \\ predicted"], head.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
        for (index, (name, row)) in names.iter().zip(&found.confusion).enumerate() {
            let counts = row.iter().map(ToString::to_string);
            table.row(&[format!("{index} {name}")].into_iter().chain(counts).collect::<Vec<_>>());
        }
        print!("{table}");
        Ok(ExitCode::SUCCESS)
    }
}

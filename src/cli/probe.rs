//! `wgrad probe`: what has an encoder learnt?

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::classifier::load;
use super::device;
use super::output::say;
use super::table::Table;
use crate::data::{Split, view_names};
use crate::error::Result;
use crate::train::probe::{Accuracies, ProbeOptions, mean_and_spread, probe};

/// Judge a run's encoder by a linear classifier and nearest neighbours, beside a random encoder and raw pixels
#[derive(clap::Args)]
pub(super) struct Probe {
    /// The run's directory
    #[arg(default_value = "runs/latest")]
    run: PathBuf,
    /// The run's data set where it is not where the run found it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Labelled images of each class
    #[arg(long, value_name = "N", default_value_t = 20)]
    labels: usize,
    /// Independent choices of them
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    draws: u32,
    /// Augmented views of each labelled image
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=200))]
    views: u32,
    /// The views' augmentation preset; the run's own when not given
    #[arg(long, value_name = "PRESET")]
    augmentation: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Probe {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = device::open()?;
        let loaded = load(&gpu, &self.run, self.data.as_ref())?;
        let test = Arc::new(loaded.recipe.open(Split::Test)?);
        let encoder = loaded.method.encoder();
        let first = view_names(&loaded.recipe.augmentation, 1)?.first().copied().unwrap_or("none");
        let augmentation = self.augmentation.as_deref().unwrap_or(first).to_string();
        let options = ProbeOptions { per_class: self.labels, draws: self.draws, views: self.views, seed: loaded.recipe.seed, augmentation };
        let found = probe(&gpu, encoder, &loaded.recipe, &loaded.train, &test, &options)?;
        if self.json {
            say(format!("{:#}", json!(found.iter().map(Accuracies::to_json).collect::<Vec<_>>())))?;
        } else {
            say(table(&found))?;
            say(format!(
                "accuracy in per cent over {} draws of {} labels a class; on augmented test images unless clean",
                self.draws, self.labels
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The probe's table, in per cent.
pub(super) fn table(found: &[Accuracies]) -> Table {
    let mut table = Table::new(&["features", "linear", "nearest", "linear, clean images"]);
    let show = |values: &[f64]| {
        let (mean, spread) = mean_and_spread(values);
        format!("{:.1} +- {:.1}", 100.0 * mean, 100.0 * spread)
    };
    for row in found {
        table.row(&[row.features.clone(), show(&row.linear), show(&row.neighbours), show(&row.clean)]);
    }
    table
}

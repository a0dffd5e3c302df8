//! `wgrad predict`: a trained classifier on pictures.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::device;
use super::eval::load;
use super::output::say;
use super::table::Table;
use crate::data::{Dataset, ImageOptions, read_pictures};
use crate::error::{Error, Result};
use crate::train::evaluate::outputs;
use crate::train::trainer::Learner;

/// Classify pictures (PNG, JPEG) with a run's classifier
#[derive(clap::Args)]
pub(super) struct Predict {
    /// The pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The run's directory
    #[arg(long, value_name = "DIR", default_value = "runs/latest")]
    run: PathBuf,
    /// The run's data set where it is not where the run found it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Classes to list for each picture
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Predict {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = device::open()?;
        let loaded = load(&gpu, &self.run, self.data.as_ref())?;
        let Learner::Supervised(_) = &loaded.learner else {
            return Err(Error::argument(
                self.run.display().to_string(),
                "holds an encoder without a classifier; train one with `wgrad train supervised`",
            ));
        };
        let train = &loaded.train;
        let shape = [train.height(), train.width(), train.channels()];
        if train.height() != train.width() {
            return Err(Error::data(
                train.name(),
                format!("its images are {} x {}; pictures can be brought to squares only", train.height(), train.width()),
            ));
        }
        let pixels = read_pictures(&self.images, ImageOptions { size: train.height(), grey: train.channels() == 1, ..Default::default() })?;
        let pictures = Arc::new(Dataset::new("pictures", shape, pixels, vec![0; self.images.len()], train.class_names().to_vec())?);
        let preprocessing = loaded.recipe.preprocessing("none", 0, train)?;
        let logits = outputs(&gpu, loaded.learner.network(), &pictures, &preprocessing, 0)?;
        let mut table = Table::new(&["picture", "class", "probability"]);
        let mut list = Vec::new();
        for (path, row) in self.images.iter().zip(logits.chunks_exact(train.classes().max(1))) {
            let ranked = ranked(row);
            let best: Vec<(String, f64)> = ranked
                .into_iter()
                .take(usize::from(self.top))
                .map(|(class, p)| (train.class_names().get(class).cloned().unwrap_or_else(|| class.to_string()), p))
                .collect();
            for (index, (name, p)) in best.iter().enumerate() {
                let picture = if index == 0 { path.display().to_string() } else { String::new() };
                table.row(&[picture, name.clone(), format!("{:.1} %", 100.0 * p)]);
            }
            list.push(json!({ "picture": path, "classes": best.iter().map(|(name, p)| json!({ "class": name, "probability": p })).collect::<Vec<_>>() }));
        }
        if self.json {
            say(format!("{:#}", json!(list)))?
        } else {
            say(table)?
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Classes with their softmax, the likeliest first.
fn ranked(logits: &[f32]) -> Vec<(usize, f64)> {
    let top = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let weights: Vec<f64> = logits.iter().map(|v| f64::from(v - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut ranked: Vec<(usize, f64)> = weights.into_iter().map(|w| w / sum).enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

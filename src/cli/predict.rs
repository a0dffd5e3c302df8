//! `wgrad predict`: a trained classifier on pictures.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::classifier::ModelArguments;
use super::device;
use super::output::say;
use super::table::Table;
use crate::data::{LabelledFile, list_pictures};
use crate::error::{Error, Result};
use crate::evaluate::stream_outputs;
use crate::train::progress::Count;

/// Classify pictures (PNG, JPEG, WebP, GIF, BMP, TIFF) with a run's classifier, or a model by name
/// with weights from a file
#[derive(clap::Args)]
pub(super) struct Predict {
    /// The pictures, and folders of them
    #[arg(required = true, value_name = "IMAGE|FOLDER")]
    images: Vec<PathBuf>,
    /// The run's directory
    #[arg(long, value_name = "DIR", default_value = "runs/latest", conflicts_with = "model")]
    run: PathBuf,
    /// The run's data set where it is not where the run found it
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    data: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArguments,
    /// Classes to list for each picture
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Predict {
    pub(super) fn run(self) -> Result<ExitCode> {
        let files = self.files()?;
        let gpu = device::open()?;
        let classifier = match &self.model.model {
            Some(name) => self.model.of_model(&gpu, name)?,
            None => self.model.of_run(&gpu, &self.run, self.data.as_ref())?,
        };
        let labels = &classifier.labels;
        let mut table = Table::of_words(&["picture", "class", "probability"]);
        let mut list = Vec::new();
        let mut damaged = Vec::new();
        let mut count = Count::new("predict", files.len());
        stream_outputs(&gpu, classifier.network.as_ref(), &files, 1, &classifier.input, |read, outputs| {
            let pictures = read.batch.indices.iter().filter_map(|place| files.get(*place as usize));
            for ((path, _), row) in pictures.zip(outputs.chunks_exact(labels.names().len().max(1))) {
                let mut picture = path.display().to_string();
                let mut classes = Vec::new();
                for (index, probability) in ranked(row).into_iter().take(self.top.into()) {
                    let class = labels.name(index);
                    classes.push(json!({ "index": index, "class": class, "probability": probability }));
                    table.row(&[std::mem::take(&mut picture), class, format!("{:9.1} %", 100.0 * probability)]);
                }
                list.push(json!({ "picture": path.display().to_string(), "classes": classes }));
            }
            read.damaged.iter().for_each(|error| count.say(&format!("passed over: {error}")));
            damaged.extend(read.damaged.first().cloned());
            count.advance(read.batch.indices.len() + read.damaged.len());
            Ok(())
        })?;
        drop(count);
        match damaged.into_iter().next() {
            Some(error) if list.is_empty() => Err(error),
            Some(_) => self.show(list, table).map(|()| ExitCode::FAILURE),
            None => self.show(list, table).map(|()| ExitCode::SUCCESS),
        }
    }

    fn show(&self, list: Vec<Value>, table: Table) -> Result<()> {
        if self.json { say(format!("{:#}", json!(list))) } else { say(table) }
    }

    /// The pictures named and those in folders, all with label 0.
    fn files(&self) -> Result<Vec<LabelledFile>> {
        let mut files = Vec::new();
        for path in &self.images {
            let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?;
            let found = if metadata.is_dir() { list_pictures(path)? } else { vec![path.clone()] };
            if found.is_empty() {
                return Err(Error::data(path.display().to_string(), "expected pictures in this folder, found none"));
            }
            files.extend(found.into_iter().map(|file| (file, 0)));
        }
        Ok(files)
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

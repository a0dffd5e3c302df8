//! `wgrad models`: what there is by name, and what a network costs before it is run.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::device;
use super::output::{mib, say};
use super::table::Table;
use crate::error::Result;
use crate::gpu::{Gpu, Precision};
use crate::models::{FAMILIES, Model, ModelOptions, model, model_names};
use crate::nn::{Module, Parameters, Summary};
use crate::train::estimate::{Estimate, inference_memory, training_memory};

/// List the networks, or show what one costs: parameters, multiply-adds, memory, layer by layer
#[derive(clap::Args)]
pub(super) struct Models {
    /// A network's name, timm's where timm has it; all networks when not given
    name: Option<String>,
    /// Side of the images, or tokens of a text; the network's own when not given
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=16_384), requires = "name")]
    resolution: Option<u32>,
    /// Images a step
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..), requires = "name")]
    batch: u32,
    /// What training computes in f16: nothing (f32), or products, convolutions and activations
    /// (mixed)
    #[arg(long, value_name = "f32|mixed", default_value_t, requires = "name")]
    precision: Precision,
    /// Training keeps of each block its input alone, and runs it again on the way back
    #[arg(long, requires = "name")]
    checkpoint_blocks: bool,
    /// Classes to tell apart
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    classes: u32,
    /// Channels of the images
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    channels: u32,
    /// Multiplies the network's own width
    #[arg(long, default_value_t = 1.0, requires = "name")]
    width: f64,
    /// Stride of the first convolution; the network's own when not given
    #[arg(long, value_name = "STRIDE", requires = "name")]
    stem_stride: Option<usize>,
    /// What trains it: sgd, adamw or lars
    #[arg(long, default_value = "sgd", requires = "name")]
    optimizer: String,
    /// Print JSON, with exact numbers
    #[arg(long)]
    json: bool,
}

impl Models {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = device::open()?;
        match &self.name {
            Some(name) => self.show(&gpu, name)?,
            None => self.list(&gpu)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn model(&self, name: &str) -> Result<Model> {
        let input = self.resolution.map(|side| side as usize);
        let (channels, width) = (self.channels as usize, self.width);
        let (size, length) = (input.map(|side| [side; 2]), input);
        model(
            name,
            ModelOptions {
                channels,
                width,
                stem_stride: self.stem_stride,
                size,
                length,
                checkpoint_blocks: self.checkpoint_blocks,
                ..Default::default()
            },
        )
    }

    /// The layers of `model` for one image.
    fn summary(&self, gpu: &Gpu, model: &Model, side: usize) -> Result<Summary> {
        let mut summary = Summary::default();
        let network = model.classifier(&Parameters::new(&gpu.dry()?, 0), self.classes as usize)?;
        network.summarize(&model.input(side, self.channels as usize).batch(1).shape, &mut summary)?;
        Ok(summary)
    }

    fn list(&self, gpu: &Gpu) -> Result<()> {
        let mut table = Table::new(&["model", "resolution", "parameters", "multiply-adds", "activations"]);
        let mut list = Vec::new();
        for name in model_names() {
            let model = self.model(name)?;
            let summary = self.summary(gpu, &model, model.resolution)?;
            let (parameters, macs, bytes) = (summary.parameters(), summary.macs(), summary.activation_bytes());
            list.push(json!({
                "name": name, "resolution": model.resolution, "parameters": parameters, "multiply_adds": macs, "activation_bytes": bytes,
            }));
            table.row(&[name.to_string(), model.resolution.to_string(), millions(parameters as u64), billions(macs), mib(bytes)]);
        }
        if self.json {
            return say(format!("{:#}", json!(list)));
        }
        say(table)?;
        for (pattern, meaning) in FAMILIES.iter().flat_map(|family| family.patterns) {
            say(format!("{pattern:<22} {meaning}"))?;
        }
        say(format!("one image, {} classes; `wgrad models NAME` shows one in full, with the memory that it needs", self.classes))
    }

    fn show(&self, gpu: &Gpu, name: &str) -> Result<()> {
        let model = self.model(name)?;
        let side = self.resolution.map_or(model.resolution, |side| side as usize);
        let summary = self.summary(gpu, &model, side)?;
        let input = model.input(side, self.channels as usize);
        let batch = input.batch(self.batch as usize);
        let build = |params: &Parameters| model.classifier(params, self.classes as usize);
        // What an adapter's limits do not allow is an answer, too.
        let training = training_memory(&gpu.with_precision(self.precision)?, build, batch.clone(), &self.optimizer);
        let inference = inference_memory(gpu, build, batch);
        let (parameters, macs, bytes) = (summary.parameters(), summary.macs(), summary.activation_bytes());
        let caps = gpu.capabilities();
        if self.json {
            let layers = summary.rows.iter().map(|r| {
                let (output, bytes) = (r.output.to_vec(), r.activation_bytes());
                json!({ "name": r.name, "output": output, "parameters": r.parameters, "multiply_adds": r.macs, "activation_bytes": bytes })
            });
            return say(format!(
                "{:#}",
                json!({
                    "name": name, "resolution": side, "batch": self.batch, "classes": self.classes, "optimizer": self.optimizer,
                    "parameters": parameters, "multiply_adds": macs, "activation_bytes": bytes,
                    "training": memory(&training), "inference": memory(&inference),
                    "adapter": caps.name, "schedule": caps.schedule.to_string(), "layers": layers.collect::<Vec<_>>(),
                })
            ));
        }
        say(layers(&summary))?;
        say(format!("parameters       {} ({parameters})", millions(parameters as u64)))?;
        say(format!("multiply-adds    {} ({macs}) forwards, of {input}", billions(macs)))?;
        say(format!("activations      {} an image, {} a batch of {}", mib(bytes), mib(bytes * u64::from(self.batch)), self.batch))?;
        let trained = |e: Estimate| {
            format!(
                "{} to train on batches of {} with {}: weights {}, optimizer {}; {} in tensors at most",
                mib(e.held),
                self.batch,
                self.optimizer,
                mib(e.parameters),
                mib(e.optimizer),
                mib(e.live)
            )
        };
        say(format!("device memory    {}", training.map_or_else(|error| format!("training is not possible here: {error}"), trained)))?;
        let answers = |e: Estimate| format!("{} to answer for batches of {}; {} in tensors at most", mib(e.held), self.batch, mib(e.live));
        say(format!("                 {}", inference.map_or_else(|error| format!("answering is not possible here: {error}"), answers)))?;
        say(format!("counted for {}, schedule {}; nothing was run", caps.name, caps.schedule))
    }
}

fn memory(estimate: &Result<Estimate>) -> Value {
    match estimate {
        Ok(e) => json!({
            "device_memory_bytes": e.held, "live_bytes": e.live, "parameter_bytes": e.parameters, "optimizer_bytes": e.optimizer,
        }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// What each layer costs for one image, and its share of all multiply-adds.
fn layers(summary: &Summary) -> Table {
    let mut table = Table::new(&["layer", "output", "parameters", "multiply-adds", "share", "activations"]);
    let total = summary.macs().max(1) as f64;
    let cells = |name: &str, output: String, parameters: usize, macs: u64, bytes: u64| {
        let share = format!("{:.1} %", 100.0 * macs as f64 / total);
        [name.into(), output, parameters.to_string(), millions(macs), share, mib(bytes)]
    };
    for r in &summary.rows {
        table.row(&cells(&r.name, r.output.to_string(), r.parameters, r.macs, r.activation_bytes()));
    }
    table.row(&cells("total", String::new(), summary.parameters(), summary.macs(), summary.activation_bytes()));
    table
}

fn millions(count: u64) -> String {
    format!("{:.2} M", count as f64 / 1e6)
}

fn billions(count: u64) -> String {
    format!("{:.2} G", count as f64 / 1e9)
}

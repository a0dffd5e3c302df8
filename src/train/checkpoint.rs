//! Checkpoints: one safetensors file that holds all it takes to go on as if nothing had happened.

use std::path::Path;

use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Archive, HostTensor};
use crate::methods::Method;
use crate::nn::{Parameters, state_dict};
use crate::optim::Optimizer;
use crate::tensor::Tensor;

/// Raised when older checkpoints can no longer be read.
const FORMAT: &str = "1";

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Optimizer steps taken.
    pub step: u64,
    /// The epoch that comes next, or is under way.
    pub epoch: u32,
    /// Batches of that epoch that are behind.
    pub batch: usize,
}

/// The file's contents.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Where the run stands.
    pub position: Position,
    /// What the run computes.
    pub recipe: Recipe,
    /// The adapter that computed it, with its driver and schedule: others give other bits.
    pub adapter: String,
    archive: Archive,
}

/// Adapter, driver and schedule in one line: equal bits are promised only where it is equal.
fn adapter_line(gpu: &Gpu) -> String {
    let caps = gpu.capabilities();
    format!("{} | {} | {} | wgrad {}", caps.name, caps.driver, caps.schedule, env!("CARGO_PKG_VERSION"))
}

impl Checkpoint {
    /// Reads the state of a run from the device.
    ///
    /// # Errors
    /// A lost device.
    pub fn capture(position: Position, recipe: &Recipe, params: &Parameters, optimizer: &mut dyn Optimizer, method: &dyn Method) -> Result<Self> {
        let mut archive = Archive::default();
        for (name, tensor) in state_dict::to_archive(params)?.tensors {
            archive.insert(format!("model.{name}"), tensor);
        }
        for (name, tensor) in optimizer.state()? {
            archive.insert(format!("optimizer.{name}"), host(&tensor)?);
        }
        for (name, tensor) in method.state() {
            archive.insert(format!("method.{name}"), host(&tensor)?);
        }
        Ok(Self { position, recipe: recipe.clone(), adapter: adapter_line(params.gpu()), archive })
    }

    /// Puts the state of a run back on the device.
    ///
    /// # Errors
    /// [`Error::Data`] naming a tensor that is missing or does not fit.
    pub fn restore(&self, params: &Parameters, optimizer: &mut dyn Optimizer, method: &dyn Method) -> Result<()> {
        let part = |prefix: &str| {
            let strip = |(name, tensor): (&String, &HostTensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()));
            Archive { tensors: self.archive.tensors.iter().filter_map(strip).collect(), text: Default::default() }
        };
        let report = state_dict::from_archive(params, &part("model."), "checkpoint")?;
        if let Some(name) = report.missing.first().or(report.extra.first()) {
            return Err(Error::data("checkpoint", format!("does not fit the recipe's model: tensor \"{name}\" is only on one side")));
        }
        params.set_step(self.position.step);
        for (prefix, targets) in [("optimizer.", optimizer.state()?), ("method.", method.state())] {
            let stored = part(prefix);
            for (name, target) in targets {
                match stored.tensors.get(&name) {
                    Some(HostTensor::F32(shape, data)) if shape == target.shape() => target.write(data)?,
                    Some(HostTensor::I32(shape, data)) if shape == target.shape() => target.write(data)?,
                    other => {
                        let found = other.map_or("nothing".into(), |t| t.shape().to_string());
                        return Err(Error::data("checkpoint", format!("tensor \"{prefix}{name}\" should have shape {}, found {found}", target.shape())));
                    }
                }
            }
        }
        let here = adapter_line(params.gpu());
        if here != self.adapter {
            log::warn!("the run was on \"{}\", this is \"{here}\": it goes on, but its bits will differ from an uninterrupted run's", self.adapter);
        }
        Ok(())
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut archive = self.archive.clone();
        let Position { step, epoch, batch } = self.position;
        for (key, value) in [
            ("format", format!("wgrad checkpoint {FORMAT}")),
            ("step", step.to_string()),
            ("epoch", epoch.to_string()),
            ("batch", batch.to_string()),
            ("recipe", self.recipe.to_toml()?),
            ("adapter", self.adapter.clone()),
        ] {
            archive.text.insert(key.into(), value);
        }
        archive.save(path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where it is damaged, no checkpoint, or of another format.
    pub fn load(path: &Path) -> Result<Self> {
        let mut archive = Archive::load(path)?;
        let source = path.display().to_string();
        let format = archive.text.get("format").cloned().unwrap_or_default();
        if format != format!("wgrad checkpoint {FORMAT}") {
            return Err(Error::data(source, format!("is no checkpoint of format {FORMAT}: its format is \"{format}\"")));
        }
        fn number<T: std::str::FromStr>(archive: &Archive, path: &Path, key: &str) -> Result<T> {
            let text = archive.require_text(path, key)?;
            text.parse().map_err(|_| Error::data(path.display().to_string(), format!("the entry \"{key}\" is \"{text}\", expected a number")))
        }
        let position = Position { step: number(&archive, path, "step")?, epoch: number(&archive, path, "epoch")?, batch: number(&archive, path, "batch")? };
        let recipe = Recipe::parse(archive.require_text(path, "recipe")?, &source)?;
        let adapter = archive.require_text(path, "adapter")?.to_string();
        archive.text.clear();
        Ok(Self { position, recipe, adapter, archive })
    }
}

fn host(tensor: &Tensor) -> Result<HostTensor> {
    let shape = tensor.shape().clone();
    Ok(match tensor.dtype() {
        crate::tensor::DType::I32 => HostTensor::I32(shape, tensor.to_vec()?),
        _ => HostTensor::F32(shape, tensor.to_f64()?.into_iter().map(|v| v as f32).collect()),
    })
}

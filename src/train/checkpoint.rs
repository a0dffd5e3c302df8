//! Checkpoints: one safetensors file that holds all it takes to go on as if nothing had happened.

use std::path::Path;

use super::alarm::Alarm;
use super::changes::{adapter_line, check_data, check_recipe, difference, limits_line};
use super::recipe::Recipe;
use super::validation::Looks;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Archive, HostTensor};
use crate::methods::Method;
use crate::nn::Parameters;
use crate::nn::state_dict::{self, NotFinite};
use crate::optim::{Ema, Optimizer};
use crate::tensor::Tensor;

/// Raised when older checkpoints can no longer be read.
const FORMAT: &str = "2";

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

/// The losses of an epoch so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EpochLoss {
    /// Their sum.
    pub sum: f64,
    /// How many.
    pub count: u64,
}

impl EpochLoss {
    /// Adds a step's.
    pub fn add(&mut self, loss: f32) {
        self.sum += f64::from(loss);
        self.count += 1;
    }

    /// The mean, 0 of none.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// All of a run that changes from step to step.
pub struct State<'a> {
    /// The weights and statistics.
    pub params: &'a Parameters,
    /// Their average, where one is kept.
    pub ema: Option<&'a Ema>,
    /// With its moments.
    pub optimizer: &'a mut dyn Optimizer,
    /// With its queues and centres.
    pub method: &'a dyn Method,
    /// A hash of each teacher's weights.
    pub teachers: &'a [String],
    /// What the images are, in one line.
    pub data: &'a str,
}

/// The file's contents.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Where the run stands.
    pub position: Position,
    /// The losses of the epoch under way, so that its mean is the same whether or not the run was
    /// interrupted.
    pub epoch_loss: EpochLoss,
    /// What has been seen of a collapse.
    pub alarm: Alarm,
    /// What images that are not learnt from have said.
    pub validation: Looks,
    /// What the run computes.
    pub recipe: Recipe,
    /// The adapter that computed it, with its driver, schedule and version: others give other bits.
    pub adapter: String,
    /// Its limits, by which large tensors are worked on in pieces.
    pub limits: Option<String>,
    /// The hash of that tuning table, `none` without one.
    pub tuning_table: String,
    /// A hash of each teacher's weights.
    pub teachers: Vec<String>,
    /// What its images are, in one line.
    pub data: Option<String>,
    /// Whether its file has a checksum; files of earlier versions have none.
    pub checked: bool,
    archive: Archive,
    /// What errors call it: the file.
    source: String,
}

/// Everything that is laid out as the parameters are, by its prefix in the file.
fn homes<'a>(params: &'a Parameters, ema: Option<&'a Ema>, method: &'a dyn Method) -> Vec<(&'static str, &'a Parameters)> {
    [("model", params)].into_iter().chain(ema.map(|ema| ("ema", ema.parameters()))).chain(method.averages()).collect()
}

impl Checkpoint {
    /// Reads the state of a run from the device.
    ///
    /// # Errors
    /// A lost device.
    pub fn capture(
        (position, epoch_loss, alarm, validation): (Position, EpochLoss, Alarm, Looks),
        recipe: &Recipe,
        state: State,
    ) -> Result<Self> {
        let State { params, ema, optimizer, method, teachers, data } = state;
        let mut archive = Archive::default();
        for (prefix, params) in homes(params, ema, method) {
            for (name, tensor) in state_dict::to_archive(params)?.tensors {
                archive.insert(format!("{prefix}.{name}"), tensor);
            }
        }
        for (name, tensor) in optimizer.state()? {
            archive.insert(format!("optimizer.{name}"), host(&tensor)?);
        }
        for (name, tensor) in method.state() {
            archive.insert(format!("method.{name}"), host(&tensor)?);
        }
        let gpu = params.gpu();
        Ok(Self {
            position,
            epoch_loss,
            alarm,
            validation,
            recipe: recipe.clone(),
            adapter: adapter_line(gpu),
            limits: Some(limits_line(gpu)),
            tuning_table: gpu.tuning_hash(),
            teachers: teachers.to_vec(),
            data: Some(data.into()),
            checked: true,
            archive,
            source: "checkpoint".into(),
        })
    }

    /// Puts the state of a run back on the device.
    ///
    /// # Errors
    /// [`Error::Data`] naming a tensor that is missing or does not fit, or images or a teacher that
    /// are not those that the run began with.
    pub fn restore(&self, state: State) -> Result<()> {
        let State { params, ema, optimizer, method, teachers, data } = state;
        self.data.as_ref().map_or(Ok(()), |then| check_data(&self.source, then, data))?;
        if teachers != self.teachers {
            let number = teachers.iter().zip(&self.teachers).take_while(|(now, then)| now == then).count();
            let name = self.recipe.teachers.get(number).map_or(String::new(), |run| run.display().to_string());
            let message =
                format!("the run began with another teacher {name}: its weights have changed since; bring them back, or begin a new run");
            return Err(Error::data(&self.source, message));
        }
        let part = |prefix: &str| {
            let prefix = format!("{prefix}.");
            let strip = |(name, tensor): (&String, &HostTensor)| Some((name.strip_prefix(&prefix)?.to_string(), tensor.clone()));
            Archive { tensors: self.archive.tensors.iter().filter_map(strip).collect(), text: Default::default() }
        };
        for (prefix, params) in homes(params, ema, method) {
            let report = state_dict::from_archive(params, &part(prefix), &self.source)?;
            for (names, lacks) in [(&report.missing, "the checkpoint lacks"), (&report.extra, "the model lacks")] {
                if let Some(name) = names.first() {
                    return Err(Error::data(
                        &self.source,
                        format!("does not fit the model of its recipe: {lacks} tensor \"{prefix}.{name}\""),
                    ));
                }
            }
        }
        params.set_step(self.position.step);
        for (prefix, targets) in [("optimizer", optimizer.state()?), ("method", method.state())] {
            let stored = part(prefix);
            let mut not_finite = NotFinite::default();
            for (name, tensor) in &stored.tensors {
                if let HostTensor::F32(_, data) = tensor {
                    not_finite.look_at(&format!("{prefix}.{name}"), data);
                }
            }
            not_finite.check(&self.source)?;
            for (name, target) in targets {
                match stored.tensors.get(&name) {
                    Some(HostTensor::F32(shape, data)) if shape == target.shape() => target.write(data)?,
                    Some(HostTensor::I32(shape, data)) if shape == target.shape() => target.write(data)?,
                    other => {
                        let found = other.map_or("nothing".into(), |t| t.shape().to_string());
                        return Err(Error::data(
                            &self.source,
                            format!("tensor \"{prefix}.{name}\" should have shape {}, found {found}", target.shape()),
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on by `recipe`, which errors call `source`: the one beside the run, where what was
    /// edited in it does not decide what is computed.
    ///
    /// # Errors
    /// [`Error::Data`] naming what else was edited.
    pub fn follow(&mut self, recipe: &Recipe, source: &Path) -> Result<()> {
        check_recipe(&source.display().to_string(), &self.recipe, recipe)?;
        self.recipe.clone_from(recipe);
        Ok(())
    }

    /// Goes on to `epochs` epochs in all, of which the recipe may have had fewer or more.
    ///
    /// # Errors
    /// [`Error::Argument`] where more have begun already.
    pub fn prolong(&mut self, epochs: u32) -> Result<()> {
        let begun = self.position.epoch + u32::from(self.position.batch > 0);
        if epochs < begun {
            return Err(Error::argument("epochs", format!("the run is in epoch {begun} already, so it cannot end with epoch {epochs}")));
        }
        self.recipe.epochs = epochs;
        Ok(())
    }

    /// What makes the bits of a run that goes on here differ from those of an uninterrupted one;
    /// `None` where they will be the same.
    pub fn difference(&self, gpu: &Gpu) -> Option<String> {
        let (adapter, tuning_table, limits) = (adapter_line(gpu), gpu.tuning_hash(), limits_line(gpu));
        let others =
            [("tuning table", [&self.tuning_table as &str, &tuning_table]), ("limits", [self.limits.as_ref().unwrap_or(&limits), &limits])];
        difference([&self.adapter, &adapter], &others)
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
            ("epoch_loss_sum", self.epoch_loss.sum.to_string()),
            ("epoch_loss_count", self.epoch_loss.count.to_string()),
            ("alarm", json("alarm", &self.alarm)?),
            ("validation", json("validation", &self.validation)?),
            ("seed", self.recipe.seed.to_string()),
            ("recipe", self.recipe.to_toml()?),
            ("adapter", self.adapter.clone()),
            ("tuning_table", self.tuning_table.clone()),
            ("teachers", self.teachers.join(" ")),
        ] {
            archive.text.insert(key.into(), value);
        }
        let known = [("limits", &self.limits), ("data", &self.data)];
        archive.text.extend(known.into_iter().filter_map(|(key, value)| Some((key.into(), value.clone()?))));
        archive.save(path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where it is damaged, by its checksum too, no checkpoint, or
    /// of another format.
    pub fn load(path: &Path) -> Result<Self> {
        let (mut archive, checked) = Archive::load_checked(path)?;
        let source = path.display().to_string();
        let format = archive.text.get("format").cloned().unwrap_or_default();
        if format != format!("wgrad checkpoint {FORMAT}") {
            return Err(Error::data(source, format!("is no checkpoint of format {FORMAT}: its format is \"{format}\"")));
        }
        fn number<T: std::str::FromStr>(archive: &Archive, path: &Path, key: &str) -> Result<T> {
            let text = archive.require_text(path, key)?;
            text.parse()
                .map_err(|_| Error::data(path.display().to_string(), format!("the entry \"{key}\" is \"{text}\", expected a number")))
        }
        let position = Position {
            step: number(&archive, path, "step")?,
            epoch: number(&archive, path, "epoch")?,
            batch: number(&archive, path, "batch")?,
        };
        let epoch_loss = EpochLoss { sum: number(&archive, path, "epoch_loss_sum")?, count: number(&archive, path, "epoch_loss_count")? };
        let damaged = |key: &str, e: serde_json::Error| Error::data(&source, format!("the entry \"{key}\": {e}"));
        let alarm = serde_json::from_str(archive.require_text(path, "alarm")?).map_err(|e| damaged("alarm", e))?;
        // Checkpoints of earlier versions had no looks.
        let looks = archive.text.get("validation").map_or(Ok(Looks::default()), |text| serde_json::from_str(text));
        let validation = looks.map_err(|e| damaged("validation", e))?;
        let recipe = Recipe::parse(archive.require_text(path, "recipe")?, &source)?;
        let adapter = archive.require_text(path, "adapter")?.to_string();
        let tuning_table = archive.require_text(path, "tuning_table")?.to_string();
        // Checkpoints of earlier versions had no teachers.
        let teachers = archive.text.get("teachers").map(|text| text.split_whitespace().map(Into::into).collect()).unwrap_or_default();
        // Nor limits and data.
        let [limits, data] = ["limits", "data"].map(|key| archive.text.remove(key));
        archive.text.clear();
        Ok(Self {
            position,
            epoch_loss,
            alarm,
            validation,
            recipe,
            adapter,
            limits,
            tuning_table,
            teachers,
            data,
            checked,
            archive,
            source,
        })
    }
}

fn json(key: &str, value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::data(key, e.to_string()))
}

fn host(tensor: &Tensor) -> Result<HostTensor> {
    let shape = tensor.shape().clone();
    Ok(match tensor.dtype() {
        crate::tensor::DType::I32 => HostTensor::I32(shape, tensor.to_vec()?),
        _ => HostTensor::F32(shape, tensor.to_f64()?.into_iter().map(|v| v as f32).collect()),
    })
}

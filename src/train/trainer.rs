//! The loop: a recipe becomes a model, a method, an optimizer and a stream of batches, and is run to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::{Checkpoint, Position};
use super::evaluate::{preprocessing, upload};
use super::progress::{Progress, Style, record};
use super::recipe::Recipe;
use super::run::RunDirectory;
use crate::data::{Augmentation, Dataset, DeviceBatch, Loader};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Pending};
use crate::methods::{Batch, Method, SimClr, SimClrConfig, Supervised};
use crate::models::{Backbone, BackboneOptions, Classifier, backbone};
use crate::nn::{Module, Parameters, state_dict};
use crate::optim::{self, Common, Optimizer, Schedule};

/// Losses are read this many steps late, so that the host never waits for the device.
const READ_BEHIND: usize = 2;
/// Steps between lines of metrics.
const METRICS_EVERY: u64 = 20;

/// What a recipe's method trains.
pub enum Learner {
    /// A classifier.
    Supervised(Supervised),
    /// An encoder with a projector.
    SimClr(SimClr<Box<dyn Backbone>>),
}

impl Learner {
    /// The method that `train` drives.
    pub fn method(&self) -> &dyn Method {
        match self {
            Learner::Supervised(method) => method,
            Learner::SimClr(method) => method,
        }
    }

    /// What is used after training: the classifier, or the encoder.
    pub fn network(&self) -> &dyn Module {
        match self {
            Learner::Supervised(method) => &method.model,
            Learner::SimClr(method) => &method.encoder,
        }
    }
}

/// The learner that `recipe` describes, for images of `dataset`, in the scope `params`.
///
/// # Errors
/// [`Error::Argument`] for an unknown method or model; out of memory.
pub fn learner(params: &Parameters, recipe: &Recipe, dataset: &Dataset) -> Result<Learner> {
    let options = BackboneOptions { channels: dataset.channels(), width: recipe.width, stem_stride: recipe.stem_stride, pixels: dataset.image_bytes() };
    let encoder = backbone(params, &recipe.model, options)?;
    match recipe.method.as_str() {
        "supervised" => {
            let model = Classifier::new(params, encoder, dataset.classes())?;
            Ok(Learner::Supervised(Supervised { model, label_smoothing: recipe.label_smoothing }))
        }
        "simclr" => {
            let config = SimClrConfig { hidden: recipe.projector_hidden, projection: recipe.projection, temperature: recipe.temperature };
            Ok(Learner::SimClr(SimClr::new(params, encoder, config)?))
        }
        other => Err(Error::argument("method", format!("there is no \"{other}\"; there are supervised, simclr"))),
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// All epochs are done; otherwise the run was interrupted and can be resumed.
    pub finished: bool,
    /// Where it stands.
    pub position: Position,
    /// The mean loss of the last epoch that was run.
    pub loss: f64,
    /// Seconds of this call.
    pub seconds: f64,
    /// Images that went through a step in this call.
    pub images: u64,
}

/// A run under way.
pub struct Trainer {
    gpu: Gpu,
    /// What is run.
    pub recipe: Recipe,
    /// The weights.
    pub params: Parameters,
    /// What is trained.
    pub learner: Learner,
    optimizer: Box<dyn Optimizer>,
    schedule: Schedule,
    augmentation: Augmentation,
    dataset: Arc<Dataset>,
    loader: Loader,
    position: Position,
    reads: VecDeque<(u64, u32, f32, Pending)>,
    epoch_losses: Vec<f64>,
}

impl Trainer {
    /// A run from its start.
    ///
    /// # Errors
    /// A recipe that names what does not exist; a data set smaller than a batch; out of memory.
    pub fn new(gpu: &Gpu, recipe: Recipe, dataset: Arc<Dataset>) -> Result<Self> {
        let loader = Loader::training(dataset.clone(), recipe.batch, recipe.seed)?;
        if loader.batches() == 0 {
            return Err(Error::data(dataset.name(), format!("holds {} images, fewer than a batch of {}", dataset.len(), recipe.batch)));
        }
        let params = Parameters::new(gpu, recipe.seed);
        let learner = learner(&params, &recipe, &dataset)?;
        let clip_norm = (recipe.clip_norm > 0.0).then_some(recipe.clip_norm);
        let common = Common { weight_decay: recipe.weight_decay, exclude_bias_and_norm: true, clip_norm, ..Default::default() };
        let optimizer = optim::named(&recipe.optimizer, &params, recipe.momentum, common)?;
        let steps = loader.batches() as u64 * u64::from(recipe.epochs);
        let schedule = Schedule::named(&recipe.schedule, recipe.learning_rate, steps)?;
        let augmentation = preprocessing(&recipe.augmentation, recipe.seed, &dataset)?;
        let position = Position::default();
        let (reads, epoch_losses) = (VecDeque::new(), Vec::new());
        Ok(Self { gpu: gpu.clone(), recipe, params, learner, optimizer, schedule, augmentation, dataset, loader, position, reads, epoch_losses })
    }

    /// A run that goes on from a checkpoint.
    ///
    /// # Errors
    /// As [`Self::new`]; [`Error::Data`] where the checkpoint does not fit.
    pub fn resume(gpu: &Gpu, checkpoint: &Checkpoint, dataset: Arc<Dataset>) -> Result<Self> {
        let mut trainer = Self::new(gpu, checkpoint.recipe.clone(), dataset)?;
        checkpoint.restore(&trainer.params, trainer.optimizer.as_mut(), trainer.learner.method())?;
        trainer.position = checkpoint.position;
        Ok(trainer)
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.loader.batches() as u64 * u64::from(self.recipe.epochs)
    }

    /// The state as a checkpoint.
    ///
    /// # Errors
    /// A lost device.
    pub fn checkpoint(&mut self) -> Result<Checkpoint> {
        Checkpoint::capture(self.position, &self.recipe, &self.params, self.optimizer.as_mut(), self.learner.method())
    }

    /// Runs to the end, or until `stop` is set; writes metrics and checkpoints where there is a directory.
    ///
    /// # Errors
    /// [`Error::NonFinite`] where the loss is not finite; those of the device and of writing files.
    pub fn run(&mut self, directory: Option<&RunDirectory>, style: Style, stop: &AtomicBool) -> Result<Outcome> {
        let begun = Instant::now();
        let first_step = self.position.step;
        let mut progress = Progress::new(style, &self.recipe.method.clone(), self.steps(), first_step, self.recipe.batch);
        let mut finished = true;
        'run: while self.position.epoch < self.recipe.epochs {
            self.epoch_losses.clear();
            let epoch_begun = (Instant::now(), self.position.step);
            for batch in self.loader.epoch_from(self.position.epoch, self.position.batch) {
                let batch = upload(&self.gpu, &batch?, &self.dataset)?;
                self.step(&batch)?;
                self.collect(READ_BEHIND, &mut progress, directory)?;
                if stop.load(Ordering::Relaxed) {
                    finished = false;
                    break 'run;
                }
                if self.position.step % self.recipe.checkpoint_every.max(1) == 0 {
                    self.save(directory)?;
                }
            }
            self.collect(0, &mut progress, directory)?;
            self.position = Position { epoch: self.position.epoch + 1, batch: 0, ..self.position };
            self.report_epoch(epoch_begun, &progress, directory)?;
            self.save(directory)?;
        }
        self.collect(0, &mut progress, directory)?;
        progress.finish();
        self.save(directory)?;
        if let Some(directory) = directory.filter(|_| finished) {
            state_dict::save(&self.params, &directory.weights())?;
        }
        let loss = self.epoch_losses.iter().sum::<f64>() / self.epoch_losses.len().max(1) as f64;
        let images = (self.position.step - first_step) * self.recipe.batch as u64;
        Ok(Outcome { finished, position: self.position, loss, seconds: begun.elapsed().as_secs_f64(), images })
    }

    /// Seconds of one step, over `count` of them after one that compiles; the weights are changed.
    ///
    /// # Errors
    /// Those of a step.
    pub fn measure_steps(&mut self, count: usize) -> Result<(f64, usize)> {
        let mut times = Vec::new();
        for batch in self.loader.epoch(0).take(count + 1) {
            let begun = Instant::now();
            let batch = upload(&self.gpu, &batch?, &self.dataset)?;
            self.step(&batch)?;
            self.gpu.synchronize()?;
            times.push(begun.elapsed().as_secs_f64());
        }
        self.reads.clear();
        let measured = times.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(&times);
        Ok((measured.iter().sum::<f64>() / measured.len().max(1) as f64, measured.len()))
    }

    /// One step: views, loss, gradients, update. Nothing in it waits for the device.
    fn step(&mut self, batch: &DeviceBatch) -> Result<()> {
        let before = self.gpu.counters();
        let method = self.learner.method();
        let views = (0..method.views()).map(|view| self.augmentation.apply(batch, self.position.epoch, view)).collect::<Result<Vec<_>>>()?;
        let loss = method.loss(&Batch { views, labels: batch.labels.clone() })?;
        let rate = self.schedule.rate(self.position.step);
        self.optimizer.step(&loss.backward()?, rate)?;
        method.after_update()?;
        self.position.step += 1;
        self.position.batch += 1;
        self.reads.push_back((self.position.step, self.position.epoch, rate, loss.read_later()?));
        let after = self.gpu.counters();
        log::info!(
            "{} step {}: {} dispatches, {} submits, {} bytes uploaded, {} buffers made so far, {} MiB of device memory at most",
            self.recipe.method,
            self.position.step,
            after.dispatches - before.dispatches,
            after.submits - before.submits,
            after.uploaded_bytes - before.uploaded_bytes,
            self.gpu.memory().allocations,
            self.gpu.memory().high_water >> 20
        );
        Ok(())
    }

    /// Reads losses until `behind` are still on their way.
    fn collect(&mut self, behind: usize, progress: &mut Progress, directory: Option<&RunDirectory>) -> Result<()> {
        while self.reads.len() > behind {
            let Some((step, epoch, rate, read)) = self.reads.pop_front() else { break };
            let loss = bytemuck::pod_collect_to_vec::<u8, f32>(&read.wait()?).first().copied().unwrap_or(f32::NAN);
            if !loss.is_finite() {
                return Err(Error::NonFinite {
                    operator: self.recipe.method.clone(),
                    message: format!("the loss of step {step} is {loss}; lower the learning rate ({rate}), or find the first operator with WGRAD_TRACE_NON_FINITE=1"),
                });
            }
            self.epoch_losses.push(f64::from(loss));
            progress.step(step, loss, rate);
            if let Some(directory) = directory.filter(|_| step % METRICS_EVERY == 0) {
                directory.append(&serde_json::json!({ "step": step, "epoch": epoch, "loss": loss, "learning_rate": rate }))?;
            }
        }
        Ok(())
    }

    fn report_epoch(&self, (begun, first): (Instant, u64), progress: &Progress, directory: Option<&RunDirectory>) -> Result<()> {
        let images = (self.position.step - first) as f64 * self.recipe.batch as f64;
        let loss = self.epoch_losses.iter().sum::<f64>() / self.epoch_losses.len().max(1) as f64;
        let rate = self.schedule.rate(self.position.step.saturating_sub(1));
        let metrics = record(self.position.step, self.position.epoch, loss as f32, rate, images / begun.elapsed().as_secs_f64().max(1e-9));
        progress.metrics(&metrics);
        directory.map_or(Ok(()), |d| d.append(&metrics))
    }

    fn save(&mut self, directory: Option<&RunDirectory>) -> Result<()> {
        match directory {
            Some(directory) => self.checkpoint()?.save(&directory.last_checkpoint()),
            None => Ok(()),
        }
    }
}

//! The loop: a recipe becomes a model, a method, an optimizer and a stream of batches, and is run
//! to its end.

mod looks;
mod records;
mod shards;
mod state;
mod views;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use records::Read;
use shards::Programs;
use views::Views;

use super::alarm::Alarm;
use super::checkpoint::{EpochLoss, Position};
use super::finetune;
use super::learner::learner;
use super::progress::{Progress, Style};
use super::recipe::Recipe;
use super::run::RunDirectory;
use super::teachers::teachers;
use super::validation::{Looks, Validator};
use super::watch::{Observed, PendingDiagnostics};
use crate::capture::Capture;
use crate::data::{Augmentation, Dataset, HostBatch, Loader, LoaderOptions, PackedBatch};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Precision, Program, ScalarCell};
use crate::methods::{Clock, Method, Teacher, TrainStep};
use crate::nn::Parameters;
use crate::optim::{Ema, GradScaler, Optimizer, Schedule};
use crate::parallel::{Alone, Shards};
use crate::tensor::Tensor;

/// Losses are read this many steps late, so that the host never waits for the device.
const READ_BEHIND: usize = 2;
/// Steps between lines of metrics, and looks at what is watched.
const METRICS_EVERY: u64 = 20;

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
    pub method: Box<dyn Method>,
    /// What is to be said of the weights that the run began from.
    pub notes: Vec<String>,
    /// A hash of each teacher's weights.
    teacher_hashes: Vec<String>,
    /// What the images are, in one line; empty until a checkpoint needs it.
    data: String,
    optimizer: Box<dyn Optimizer>,
    scaler: Option<GradScaler>,
    ema: Option<Ema>,
    schedule: Schedule,
    views: Views,
    /// A whole step of one shard.
    captured: Capture<(TrainStep, Option<Tensor>)>,
    /// Steps of several.
    programs: Programs,
    shards: Shards,
    /// What differs from step to step, as the captured step finds it.
    clock: Clock,
    learning_rate: ScalarCell,
    /// Layers that learn, where they are unfrozen one after another.
    unfrozen: Option<u32>,
    dataset: Arc<Dataset>,
    loader: Loader,
    position: Position,
    reads: VecDeque<Read>,
    epoch_loss: EpochLoss,
    alarm: Alarm,
    /// Who judges the network between epochs, and what they have said.
    validator: Option<Box<dyn Validator>>,
    looks: Looks,
    /// When the call under way began, and the seconds of those before it.
    since: (Instant, f64),
}

impl Trainer {
    /// A run from its start: from the recipe's weights, where it names a file.
    ///
    /// # Errors
    /// A recipe that names what does not exist; weights of another network; a data set smaller than
    /// a batch; out of memory.
    pub fn new(gpu: &Gpu, recipe: Recipe, dataset: Arc<Dataset>) -> Result<Self> {
        Self::build(gpu, recipe, dataset, None, true)
    }

    /// As [`Self::new`], taught by `teachers` instead of the runs that the recipe names.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_teachers(gpu: &Gpu, recipe: Recipe, dataset: Arc<Dataset>, teachers: Vec<Arc<Teacher>>) -> Result<Self> {
        Self::build(gpu, recipe, dataset, Some(teachers), true)
    }

    fn build(gpu: &Gpu, recipe: Recipe, dataset: Arc<Dataset>, teachers: Option<Vec<Arc<Teacher>>>, fresh: bool) -> Result<Self> {
        recipe.check()?;
        let dataset = recipe.labelled(dataset)?;
        let gpu = &gpu.with_precision(recipe.precision.name)?;
        let options = LoaderOptions {
            batch_size: recipe.batch,
            seed: recipe.seed,
            shuffle: true,
            drop_last: true,
            labelled: recipe.data.labelled_batch,
            shards: recipe.parallel.shards,
        };
        let shards = Shards::new(recipe.parallel.shards, Arc::new(Alone))?;
        let loader = Loader::new(dataset.clone(), options)?;
        let params = Parameters::new(gpu, recipe.seed);
        let steps_per_epoch = loader.batches() as u64;
        let steps = steps_per_epoch * u64::from(recipe.epochs);
        let clock = Clock { step: ScalarCell::default(), steps, steps_per_epoch };
        let teachers = teachers.map_or_else(|| self::teachers(gpu, &recipe, &dataset), Ok)?;
        let teacher_hashes = teachers.iter().map(|teacher| teacher.hash()).collect::<Result<Vec<_>>>()?;
        let method = learner(&params, &recipe, &dataset, clock.clone(), teachers)?;
        let heads = method.heads();
        // A dry device has no values, so none to begin from either.
        let fresh = fresh && !gpu.is_dry();
        let begin = || finetune::begin_from(&params, &recipe, &recipe.network(&dataset)?, &heads);
        let notes = (fresh && !recipe.finetune.weights.as_os_str().is_empty()).then(begin).transpose()?.unwrap_or_default();
        recipe.apply_to(&params, &heads)?;
        method.begin()?;
        let mut optimizer = recipe.optimizer.rule.build(&params, recipe.optimizer.options())?;
        let mixed = recipe.precision.name == Precision::Mixed;
        let scaler = mixed.then(|| GradScaler::new(gpu, recipe.precision.scaler)).transpose()?;
        scaler.as_ref().map_or(Ok(()), |scaler| optimizer.scale_gradients(scaler))?;
        let ema = (recipe.ema > 0.0).then(|| Ema::new(&params)).transpose()?;
        let [decay, decay_end] = [recipe.optimizer.weight_decay, recipe.optimizer.weight_decay_end];
        if decay_end > 0.0 {
            let decay = Schedule::Cosine { rate: decay, end: decay_end, steps };
            optimizer.schedule_weight_decay(clock.scalar(decay))?;
        }
        let schedule = recipe.schedule.over(recipe.optimizer.learning_rate, recipe.epochs, steps_per_epoch)?;
        let augmentations = recipe.views(method.views(), &dataset)?;
        // Random crops are taken from pictures as they are, where all views begin with one.
        let crops = dataset.has_many_sizes() && augmentations.iter().all(Augmentation::begins_with_crop);
        let loader = if crops { loader.uncropped() } else { loader };
        let position = Position::default();
        let (reads, epoch_loss) = (VecDeque::new(), EpochLoss::default());
        Ok(Self {
            gpu: gpu.clone(),
            recipe,
            params,
            method,
            notes,
            teacher_hashes,
            data: String::new(),
            optimizer,
            scaler,
            ema,
            schedule,
            views: Views { augmentations, epoch: ScalarCell::default() },
            captured: Capture::new(gpu),
            programs: Programs::new(gpu),
            shards,
            clock,
            learning_rate: ScalarCell::default(),
            unfrozen: None,
            dataset,
            loader,
            position,
            reads,
            epoch_loss,
            alarm: Alarm::default(),
            validator: None,
            looks: Looks::default(),
            since: (Instant::now(), 0.0),
        })
    }

    /// Where the run stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What has been seen of a collapse.
    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// The program that steps are replayed from, once there is one.
    pub fn program(&self) -> Option<&Program> {
        self.captured.program()
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.loader.batches() as u64 * u64::from(self.recipe.epochs)
    }

    /// Runs to the end, or until `stop`, which is asked after every step, says so; writes metrics
    /// and checkpoints where there is a directory.
    ///
    /// # Errors
    /// [`Error::NonFinite`] where the loss is not finite; those of the device and of writing files.
    pub fn run(&mut self, directory: Option<&RunDirectory>, style: Style, stop: &mut dyn FnMut(Position) -> bool) -> Result<Outcome> {
        let begun = Instant::now();
        let _held = directory.map(RunDirectory::hold).transpose()?;
        let first_step = self.position.step;
        let before = directory.map_or(Ok(None), RunDirectory::usage)?.filter(|spent| spent.steps <= first_step).unwrap_or_default();
        self.since = (begun, before.seconds);
        let mut progress = Progress::new(style, &self.recipe.method.name, self.steps(), first_step, self.recipe.batch);
        let finished = self.epochs(directory, &mut progress, stop);
        progress.finish();
        let finished = finished?;
        if let Some(directory) = directory.filter(|_| finished) {
            self.save_weights(&directory.weights())?;
        }
        if finished {
            progress.heard()?;
        }
        let images = (self.position.step - first_step) * self.recipe.batch as u64;
        Ok(Outcome { finished, position: self.position, loss: self.epoch_loss.mean(), seconds: begun.elapsed().as_secs_f64(), images })
    }

    /// The rest of the run; false where it was stopped.
    fn epochs(
        &mut self,
        directory: Option<&RunDirectory>,
        progress: &mut Progress,
        stop: &mut dyn FnMut(Position) -> bool,
    ) -> Result<bool> {
        let batches = self.loader.batches();
        while self.position.epoch < self.recipe.epochs && !self.has_stopped_early() {
            self.begin_epoch(self.position.epoch)?;
            if self.position.batch == 0 {
                self.epoch_loss = EpochLoss::default();
            }
            let epoch_begun = (Instant::now(), self.position.step);
            let skipped_before = self.optimizer.skipped()?;
            for batch in self.loader.shards_from(self.position.epoch, self.position.batch, self.shards.own()) {
                self.step(&batch?)?;
                self.collect(READ_BEHIND, progress, directory)?;
                if self.shards.group().any(stop(self.position))? {
                    self.save(progress, directory)?;
                    return Ok(false);
                }
                // The end of an epoch has a checkpoint of its own.
                if self.position.step.is_multiple_of(self.recipe.checkpoint_every) && self.position.batch < batches {
                    self.save(progress, directory)?;
                }
            }
            self.collect(0, progress, directory)?;
            self.position = Position { epoch: self.position.epoch + 1, batch: 0, ..self.position };
            let skipped = self.optimizer.skipped()?;
            // A loss scale that is still far above 1 is on its way down.
            let scale = self.scaler.as_ref().map_or(Ok(1.0), |scaler| scaler.value_later()?.wait())?;
            if skipped - skipped_before >= batches as u64 && scale <= 1.0 {
                // Losses may still be finite, but nothing is learnt any more.
                return Err(Error::NonFinite {
                    operator: self.recipe.method.name.clone(),
                    message: format!(
                        "no gradient of epoch {}, which ended with step {}, was finite; {}",
                        self.position.epoch,
                        self.position.step,
                        remedy(self.recipe.optimizer.learning_rate)
                    ),
                });
            }
            self.report_epoch(epoch_begun, skipped, progress, directory)?;
            self.validate(progress, directory)?;
            self.save(progress, directory)?;
        }
        Ok(true)
    }

    /// What is frozen in `epoch`, by the recipe and by the method.
    fn begin_epoch(&mut self, epoch: u32) -> Result<()> {
        let unfrozen = self.recipe.unfrozen(epoch);
        if let Some(layers) = unfrozen.filter(|_| unfrozen != self.unfrozen) {
            self.recipe.unfreeze(&self.params, &self.method.heads(), layers)?;
            self.unfrozen = unfrozen;
        }
        self.method.begin_epoch(epoch)
    }

    /// Seconds of the first step, which compiles kernels, and of one of `count` steps after it; the
    /// weights are changed.
    ///
    /// # Errors
    /// Those of a step.
    pub fn measure_steps(&mut self, count: usize) -> Result<(f64, f64)> {
        let mut times = Vec::new();
        self.begin_epoch(0)?;
        for batch in self.loader.shards_from(0, 0, self.shards.own()).take(count + 1) {
            let begun = Instant::now();
            self.step(&batch?)?;
            self.gpu.synchronize()?;
            times.push(begun.elapsed().as_secs_f64());
        }
        self.reads.clear();
        let first = times.first().copied().unwrap_or(0.0);
        // An epoch of a single batch has no later step.
        let later = times.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(&times);
        Ok((first, later.iter().sum::<f64>() / later.len().max(1) as f64))
    }

    /// Sets what varies from step to step.
    fn ready(&self) {
        // Images with labels come again within an epoch, and should look different then.
        let again = self.recipe.data.labelled_batch > 0;
        self.views.epoch.set(if again { self.position.step as u32 } else { self.position.epoch });
        self.clock.step.set(self.position.step);
        self.learning_rate.set(self.schedule.rate(self.position.step));
    }

    /// Makes the recorded step, of one shard, ready to run on `batch`; `None` where none is recorded.
    pub(super) fn stage(&mut self, batch: &HostBatch) -> Result<Option<&Program>> {
        self.ready();
        let batch = PackedBatch::upload(&self.gpu, batch)?;
        Ok(if self.captured.stage(&batch)? { self.captured.program() } else { None })
    }

    pub(super) fn loader(&self) -> &Loader {
        &self.loader
    }

    /// A step of one shard: views, loss, gradients, update.
    fn step_at_once(&mut self, batch: &PackedBatch) -> Result<(TrainStep, Option<Tensor>)> {
        let Self { captured, method, optimizer, scaler, ema, views, learning_rate, recipe, .. } = self;
        captured.run(batch, |batch| {
            let batch = views.of(batch)?;
            method.begin_step()?;
            let mut step = method.loss(&batch)?;
            step.loss_scale = scaler.as_ref().map(GradScaler::scale);
            optimizer.step(&method.gradients(&step)?, &*learning_rate)?;
            if let Some(ema) = ema {
                ema.update(recipe.ema)?;
            }
            method.after_update(&step)?;
            Ok((step, optimizer.gradient_norm()))
        })
    }

    /// One step, of this process's shards. Nothing in it waits for the device, where there is no
    /// other process.
    pub(super) fn step(&mut self, shards: &[HostBatch]) -> Result<()> {
        let before = self.gpu.counters();
        self.ready();
        let rate = self.learning_rate.get();
        let batches = shards.iter().map(|batch| PackedBatch::upload(&self.gpu, batch)).collect::<Result<Vec<_>>>()?;
        let (step, gradient_norm) = match batches.as_slice() {
            [batch] if self.shards.count() == 1 => self.step_at_once(batch)?,
            batches => self.step_over_shards(batches)?,
        };
        self.position.step += 1;
        self.position.batch += 1;
        let look = self.position.step.is_multiple_of(METRICS_EVERY).then(|| {
            let TrainStep { embeddings, teacher, queue, parts, loss_scale, .. } = step;
            let observed = Observed { embeddings, teacher, queue, gradient_norm, loss_scale, parts };
            Ok((PendingDiagnostics::at(&observed)?, self.method.metrics()))
        });
        let (loss, look) = (step.loss.read_later()?, look.transpose()?);
        let Position { step, epoch, .. } = self.position;
        self.reads.push_back(Read { step, epoch, learning_rate: rate, loss, look });
        let after = self.gpu.counters();
        log::info!(
            "{} step {}: {} dispatches, {} submits, {} bytes uploaded, {} buffers made so far, {} MiB of device memory at most",
            self.recipe.method.name,
            self.position.step,
            after.dispatches - before.dispatches,
            after.submits - before.submits,
            after.uploaded_bytes - before.uploaded_bytes,
            self.gpu.memory().allocations,
            self.gpu.memory().peak >> 20
        );
        Ok(())
    }
}

/// What helps against numbers that are not finite.
fn remedy(learning_rate: f32) -> String {
    format!("lower the learning rate ({learning_rate}), or find the first operator with WGRAD_TRACE_NON_FINITE=1")
}

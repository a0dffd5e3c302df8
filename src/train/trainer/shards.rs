//! A step over shards: what one shard gives is a captured program that is run once for each, the
//! sums over all shards are joined, and the update is a program of its own. Each process runs its
//! own shards, and all of them the update.

use std::sync::{Arc, Mutex, PoisonError};

use super::views::Views;
use super::{METRICS_EVERY, Trainer};
use crate::autograd::PackedGradients;
use crate::capture::{Capture, Inputs};
use crate::data::PackedBatch;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::methods::{Batch, Contrast, Method, TrainStep};
use crate::nn::{Joint, Mode, Parameters};
use crate::ops::exactly;
use crate::optim::{GradScaler, Optimizer};
use crate::parallel::{Group, Lockstep, Rows, Shards, Sums, mean};
use crate::tensor::{DType, Tensor};
use crate::train::changes::{check_agreement, data_line};

/// The programs of a step over shards.
pub(super) struct Programs {
    /// What a shard gives.
    shard: Capture<Shard>,
    /// Where the loss compares the whole batch: what it compares, of one shard.
    embed: Capture<Vec<Tensor>>,
    /// The loss of all of these, with its gradients of them.
    compare: Capture<(TrainStep, Vec<Tensor>)>,
    update: Capture<(TrainStep, Option<Tensor>)>,
}

impl Programs {
    pub fn new(gpu: &Gpu) -> Self {
        Self { shard: Capture::new(gpu), embed: Capture::new(gpu), compare: Capture::new(gpu), update: Capture::new(gpu) }
    }
}

/// What a shard gives.
#[derive(Clone)]
struct Shard {
    /// Its own step, where its loss is its own.
    step: Option<TrainStep>,
    /// Where the gradients of each of the method's losses lie in the first of the sums.
    gradients: Vec<Vec<PackedGradients>>,
    /// What is added up over the shards: gradients, running statistics, and the figures of its step.
    sums: Vec<Tensor>,
}

/// Counts of batches, by home.
type Counts = Vec<Vec<(usize, String, u64)>>;

/// Running statistics and counts, which every shard of a step begins with.
struct Statistics {
    homes: Vec<Parameters>,
    before: Vec<Tensor>,
    counts: Counts,
}

impl Statistics {
    fn of(homes: Vec<Parameters>) -> Result<Self> {
        let before = chunks(&homes).iter().map(Tensor::copy).collect::<Result<_>>()?;
        let counts = homes.iter().map(Parameters::counters).collect();
        Ok(Self { homes, before, counts })
    }

    /// Makes ready for `shard` of `shards`.
    fn begin(&self, shard: usize, shards: usize) -> Result<()> {
        self.homes.iter().for_each(|home| home.set_shard(shard, shards));
        self.set_counts(&self.counts);
        self.write(&self.before)
    }

    fn write(&self, values: &[Tensor]) -> Result<()> {
        chunks(&self.homes).iter().zip(values).try_for_each(|(chunk, values)| chunk.copy_from(values))
    }

    fn set_counts(&self, counts: &Counts) {
        for (home, counts) in self.homes.iter().zip(counts) {
            counts.iter().for_each(|(_, name, count)| home.set_counter(name, *count));
        }
    }
}

fn chunks(homes: &[Parameters]) -> Vec<Tensor> {
    homes.iter().flat_map(Parameters::statistics).collect()
}

/// A step's loss and its parts `[1 + parts]`.
fn figures(step: &TrainStep) -> Result<Tensor> {
    let all = std::iter::once(&step.loss).chain(step.parts.iter().map(|(_, part)| part));
    let rows = all.map(|scalar| scalar.detach().reshape(&[1])).collect::<Result<Vec<_>>>()?;
    Tensor::concat(&rows.iter().collect::<Vec<_>>(), 0)
}

/// `step` with the loss and parts of [`figures`].
fn with_figures(step: &TrainStep, figures: &Tensor) -> Result<TrainStep> {
    let scalar = |at: usize| figures.slice(0, at, at + 1)?.reshape::<isize>(&[]);
    let parts = step.parts.iter().zip(1..).map(|((name, _), at)| Ok((name.clone(), scalar(at)?))).collect::<Result<_>>()?;
    Ok(TrainStep { loss: scalar(0)?, parts, ..step.clone() })
}

/// The gradients of a loss by its `gradients` with respect to `embeddings`: those of the sum of the
/// products of both, in one walk of the tape.
fn backward_from(embeddings: &[Tensor], gradients: &[Tensor], of: &[Tensor]) -> Result<Vec<PackedGradients>> {
    let watched = embeddings.iter().zip(gradients).filter(|(z, _)| z.is_watched());
    let products = watched.map(|(z, g)| z.cast(DType::F32)?.mul(&g.cast(DType::F32)?)?.sum(&[], false));
    let sum = products.reduce(|a, b| a?.add(&b?)).transpose()?;
    let sum = sum.ok_or_else(|| Error::autograd("backward", "what the loss compares depends on no parameter that is trained"))?;
    sum.backward_in_buckets(None, false, of)
}

/// All rows, labels last. What is captured with the labels of one batch takes those of the next.
fn gathered(shards: &Shards, rows: &Rows) -> Result<Vec<Tensor>> {
    let mut all = shards.gather(rows)?;
    if let Some(labels) = all.last_mut() {
        *labels = labels.with_range(None)?;
    }
    Ok(all)
}

/// The loss of all that [`Contrast::embed`] gave of the whole batch, labels last, and its gradients.
fn compare(contrast: &dyn Contrast, scaler: Option<&GradScaler>, all: &[Tensor]) -> Result<(TrainStep, Vec<Tensor>)> {
    let Some((labels, embeddings)) = all.split_last() else { return Err(Error::argument("parallel", "nothing to compare")) };
    let watched: Vec<Tensor> = embeddings.iter().map(Tensor::watch).collect();
    let mut step = contrast.compare(&watched, labels)?;
    step.loss_scale = scaler.map(GradScaler::scale);
    let gradients = step.backward(&step.loss)?;
    let of = |z: &Tensor| gradients.get(z).cloned().map_or_else(|| Tensor::zeros(z.gpu(), z.shape(), z.dtype()), Ok);
    let of_all = watched.iter().map(of).collect::<Result<_>>()?;
    Ok((TrainStep { loss: step.loss.detach(), ..step }, of_all))
}

/// Rows of every image of the batch: those of `shard` among `shards`.
fn rows_of(shard: usize, shards: usize, all: &[Tensor]) -> Result<Vec<Tensor>> {
    let rows = |tensor: &Tensor| {
        let each = tensor.shape().dim(0) / shards;
        tensor.slice(0, shard * each, (shard + 1) * each)
    };
    all.iter().map(rows).collect()
}

/// What shards have given so far.
struct Given {
    sums: Sums,
    kept: Rows,
    /// What is looked at in this step, if it is.
    seen: Option<Rows>,
    first: Option<Shard>,
}

impl Given {
    /// Takes what a shard gives, but the sums that it has given already.
    fn take(&mut self, shard: Shard) -> Result<()> {
        shard.sums.iter().skip(self.sums.given()).try_for_each(|sum| self.sums.push(sum))?;
        self.sums.end_shard();
        if let Some(step) = &shard.step {
            self.kept.push(&step.kept.tensors())?;
            if let Some(seen) = &mut self.seen {
                seen.push(&[step.embeddings.as_slice(), step.teacher.as_slice()].concat())?;
            }
        }
        self.first.get_or_insert(shard);
        Ok(())
    }
}

/// What makes a shard's part of a step.
struct Work<'a> {
    method: &'a dyn Method,
    params: &'a Parameters,
    scaler: Option<&'a GradScaler>,
    views: &'a Views,
}

impl Work<'_> {
    /// What the loss compares of a batch, and its labels, last.
    fn embed(&self, contrast: &dyn Contrast, batch: &Batch) -> Result<Vec<Tensor>> {
        Ok([contrast.embed(batch)?, vec![batch.labels.clone()]].concat())
    }

    /// Loss and gradients of one shard; where the loss compares the whole batch, by its gradients of
    /// what it compares, which `gradients` gives for that. Sums begin with the gradients and end with
    /// the figures; between them stand the `statistics`.
    fn shard(
        &self,
        packed: &PackedBatch,
        statistics: Vec<Tensor>,
        gradients: impl FnOnce(&dyn Contrast, &[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Shard> {
        let batch = self.views.of(packed)?;
        let watched = self.params.all_in_home().iter().map(|p| p.tensor(Mode::Train)).collect::<Result<Vec<_>>>()?;
        let (step, gradients) = match self.method.contrast() {
            Some(contrast) => {
                let compared = self.embed(contrast, &batch)?;
                (None, vec![backward_from(&compared, &gradients(contrast, &compared)?, &watched)?])
            }
            None => {
                let mut step = self.method.loss(&batch)?;
                step.loss_scale = self.scaler.map(GradScaler::scale);
                let gradients = step.buckets_of_each(&self.method.losses(&step), &watched)?;
                (Some(step), gradients)
            }
        };
        let mut sums: Vec<Tensor> = gradients.iter().flatten().map(|packed| packed.values.clone()).chain(statistics).collect();
        sums.extend(step.as_ref().map(figures).transpose()?);
        Ok(Shard { step, gradients, sums })
    }
}

impl Trainer {
    /// The same run, shared by the processes of `group`, each of which has made it of the same recipe
    /// and images.
    ///
    /// # Errors
    /// As [`Shards::new`]; [`Error::Parallel`] naming a process that would not compute the same.
    pub fn shared_by(mut self, group: Arc<dyn Group>) -> Result<Self> {
        self.shards = Shards::new(self.recipe.parallel.shards, group)?;
        if self.shards.group().size() > 1 {
            let data = data_line(&self.recipe, &self.dataset);
            check_agreement(&**self.shards.group(), &self.gpu, &self.recipe, &data, self.position.step)?;
        }
        Ok(self)
    }

    /// One step, of which `batches` are the shards that this process computes. Gives the whole
    /// step, and the norm of its gradient.
    pub(super) fn step_over_shards(&mut self, batches: &[PackedBatch]) -> Result<(TrainStep, Option<Tensor>)> {
        let look = (self.position.step + 1).is_multiple_of(METRICS_EVERY);
        self.method.begin_step()?;
        let averages = self.method.averages().into_iter().map(|(_, home)| home);
        let statistics = Statistics::of(std::iter::once(&self.params).chain(averages).cloned().collect())?;
        let mut given = Given { sums: Sums::new(&self.shards), kept: Rows::default(), seen: look.then(Rows::default), first: None };
        let compared = match self.recipe.parallel.sync_batch_norm {
            true => self.together(&statistics, batches, &mut given)?,
            false => self.one_by_one(&statistics, batches, &mut given)?,
        };
        let Given { sums, kept, seen, first } = given;
        let Some(Shard { step, gradients, .. }) = first else { return Err(Error::argument("parallel", "this process has no shard")) };
        let mut sums = sums.finish()?;
        let kept = match &compared {
            // What compares the whole batch keeps the rows of all images.
            Some(whole) => whole.kept.tensors(),
            None => self.shards.gather(&kept)?,
        };
        let (whole, figures) = match (compared, step) {
            (Some(whole), _) => (whole.clone(), figures(&whole)?),
            (None, Some(step)) => {
                let mut rows = seen.map_or(Ok(Vec::new()), |seen| self.shards.gather(&seen))?;
                let teacher = if step.teacher.is_some() { rows.pop() } else { None };
                let figures = sums.pop().map_or_else(|| figures(&step), |sum| mean(&sum, self.shards.count()))?;
                (TrainStep { embeddings: rows, teacher, ..step }, figures)
            }
            (None, None) => return Err(Error::argument("parallel", "a shard without a loss")),
        };
        self.update(&statistics, &whole, &gradients, &(sums, vec![figures], kept))
    }

    /// Each shard after the other, by captured programs. Gives the step where its loss compares the
    /// images of the whole batch.
    fn one_by_one(&mut self, statistics: &Statistics, batches: &[PackedBatch], given: &mut Given) -> Result<Option<TrainStep>> {
        let Self { programs, method, params, scaler, views, shards, .. } = self;
        let work = Work { method: &**method, params, scaler: scaler.as_ref(), views };
        let (count, own) = (shards.count(), shards.own());
        let compared = match method.contrast() {
            None => None,
            Some(contrast) => {
                let mut rows = Rows::default();
                for (shard, packed) in own.clone().zip(batches) {
                    statistics.begin(shard, count)?;
                    let embed = |packed: &PackedBatch| {
                        let batch = views.of(packed)?;
                        params.unrecorded(|| work.embed(contrast, &batch))
                    };
                    rows.push(&programs.embed.run(packed, embed)?)?;
                }
                Some(programs.compare.run(&gathered(shards, &rows)?, |all| compare(contrast, scaler.as_ref(), all))?)
            }
        };
        for (shard, packed) in own.zip(batches) {
            statistics.begin(shard, count)?;
            let gradients = compared.as_ref().map_or(Ok(Vec::new()), |(_, all)| rows_of(shard, count, all))?;
            let inputs = (packed.clone(), gradients);
            let shard = |(packed, gradients): &(PackedBatch, Vec<Tensor>)| {
                work.shard(packed, chunks(&statistics.homes), |_, _| Ok(gradients.clone()))
            };
            // With others, a sum is on its way while the device goes on.
            let found = match shards.group().size() {
                1 => programs.shard.run(&inputs, shard)?,
                _ => programs
                    .shard
                    .run_in_parts(&inputs, shard, |shard, at| shard.sums.get(at).map_or(Ok(()), |sum| given.sums.push(sum)))?,
            };
            given.take(found)?;
        }
        Ok(compared.map(|(step, _)| step))
    }

    /// All shards side by side, so that batch norms see the whole batch: run as they are, because
    /// other processes take part within.
    fn together(&mut self, statistics: &Statistics, batches: &[PackedBatch], given: &mut Given) -> Result<Option<TrainStep>> {
        let Self { method, params, scaler, views, shards, .. } = self;
        let work = Work { method: &**method, params, scaler: scaler.as_ref(), views };
        let (count, first) = (shards.count(), shards.own().start);
        let homes = statistics.homes.clone();
        let lockstep = Lockstep::new(shards, move |shard| homes.iter().for_each(|home| home.set_shard(shard, count)));
        let compared = Mutex::new(None);
        let joint = |joint: Option<Arc<dyn Joint>>| statistics.homes.iter().for_each(|home| home.set_joint(joint.clone()));
        joint(Some(Arc::new(lockstep.clone())));
        let found = lockstep.run(|at| {
            let Some(packed) = batches.get(at) else { return Err(Error::argument("parallel", "a shard without images")) };
            work.shard(packed, Vec::new(), |contrast, own| {
                let all = lockstep.meet(own.iter().map(Tensor::detach).collect(), |brought| {
                    let mut rows = Rows::default();
                    brought.iter().try_for_each(|own| rows.push(own))?;
                    let (step, gradients) = compare(contrast, work.scaler, &gathered(shards, &rows)?)?;
                    *compared.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
                    Ok(gradients)
                })?;
                rows_of(first + at, count, &all)
            })
        });
        joint(None);
        found?.into_iter().try_for_each(|shard| given.take(shard))?;
        Ok(compared.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is done once a step, by the sums over all shards: gradients and running statistics.
    fn update(
        &mut self,
        statistics: &Statistics,
        step: &TrainStep,
        gradients: &[Vec<PackedGradients>],
        inputs: &(Vec<Tensor>, Vec<Tensor>, Vec<Tensor>),
    ) -> Result<(TrainStep, Option<Tensor>)> {
        let Self { programs, method, optimizer, scaler, ema, learning_rate, recipe, shards, .. } = self;
        let updated = programs.update.run(inputs, |(sums, figures, kept)| {
            let mut moved = sums.as_slice();
            // Shards have a loss each, whose mean counts, or are parts of one loss.
            let share = if method.contrast().is_some() { 1 } else { shards.count() };
            let mut parts = Vec::new();
            for buckets in gradients {
                let (of_loss, others) = moved.split_at_checked(buckets.len()).unwrap_or_default();
                let values = of_loss.iter().map(|sum| mean(sum, share)).collect::<Result<Vec<_>>>()?;
                parts.push(PackedGradients::unpack(buckets, &values));
                moved = others;
            }
            let moved = moved.iter().map(|sum| mean(sum, shards.count())).collect::<Result<Vec<_>>>()?;
            statistics.write(&moved)?;
            statistics.homes.iter().for_each(|home| home.bump_versions(true));
            let [figures] = exactly("parallel", figures)?;
            let mut step = with_figures(step, figures)?;
            step.kept = Inputs::with_tensors(&step.kept, kept)?;
            step.loss_scale = scaler.as_ref().map(GradScaler::scale);
            optimizer.step(&method.combine(&step, parts)?, &*learning_rate)?;
            if let Some(ema) = ema {
                ema.update(recipe.ema)?;
            }
            method.after_update(&step)?;
            Ok((step, optimizer.gradient_norm()))
        })?;
        let (updated, norm) = updated;
        Ok((TrainStep { embeddings: step.embeddings.clone(), teacher: step.teacher.clone(), ..updated }, norm))
    }
}

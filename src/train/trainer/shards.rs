//! A step over shards: what one shard gives is a captured program that is run once for each, the
//! sums over all shards are joined, and the update is a program of its own. Each process runs its
//! own shards, and all of them the update.

use super::{METRICS_EVERY, Trainer};
use crate::autograd::{Gradients, PackedGradients};
use crate::capture::{Capture, Inputs};
use crate::data::PackedBatch;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::methods::TrainStep;
use crate::nn::{Mode, Parameters};
use crate::ops::exactly;
use crate::optim::{GradScaler, Optimizer};
use crate::parallel::{Rows, Tree, mean};
use crate::tensor::{DType, Tensor};

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
    gradients: Vec<PackedGradients>,
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
fn backward_from(embeddings: &[Tensor], gradients: &[Tensor]) -> Result<Gradients> {
    let watched = embeddings.iter().zip(gradients).filter(|(z, _)| z.is_watched());
    let products = watched.map(|(z, g)| z.cast(DType::F32)?.mul(&g.cast(DType::F32)?)?.sum(&[], false));
    let sum = products.reduce(|a, b| a?.add(&b?)).transpose()?;
    sum.ok_or_else(|| Error::autograd("backward", "what the loss compares depends on no parameter that is trained"))?.backward()
}

impl Trainer {
    /// One step, of which `batches` are the shards that this process computes. Gives the whole
    /// step, and the norm of its gradient.
    pub(super) fn step_over_shards(&mut self, batches: &[PackedBatch]) -> Result<(TrainStep, Option<Tensor>)> {
        let look = (self.position.step + 1).is_multiple_of(METRICS_EVERY);
        self.method.begin_step()?;
        let averages = self.method.averages().into_iter().map(|(_, home)| home);
        let statistics = Statistics::of(std::iter::once(&self.params).chain(averages).cloned().collect())?;
        let compared = self.compared(&statistics, batches)?;
        let (count, own) = (self.shards.count(), self.shards.own());
        let (mut tree, mut kept, mut seen, mut first) = (Tree::default(), Rows::default(), Rows::default(), None);
        for (shard, packed) in own.zip(batches) {
            statistics.begin(shard, count)?;
            let rows = |gradient: &Tensor| {
                let each = gradient.shape().dim(0) / count;
                gradient.slice(0, shard * each, (shard + 1) * each)
            };
            let of_embeddings = compared.iter().flat_map(|(_, gradients)| gradients).map(rows).collect::<Result<Vec<_>>>()?;
            let found = self.shard(&statistics, &(packed.clone(), of_embeddings))?;
            tree.push(&found.sums)?;
            if let Some(step) = &found.step {
                kept.push(&Inputs::tensors(&step.kept))?;
                if look {
                    seen.push(&[step.embeddings.as_slice(), step.teacher.as_slice()].concat())?;
                }
            }
            first.get_or_insert(found);
        }
        let Some(Shard { step, gradients, .. }) = first else { return Err(Error::argument("parallel", "this process has no shard")) };
        let mut sums = self.shards.join(tree)?;
        let kept = self.shards.gather(&kept)?;
        let (whole, figures) = match (compared, step) {
            (Some((whole, _)), _) => (whole.clone(), figures(&whole)?),
            (None, Some(step)) => {
                let mut rows = if look { self.shards.gather(&seen)? } else { Vec::new() };
                let teacher = if step.teacher.is_some() { rows.pop() } else { None };
                let [figures] = exactly("parallel", &mean(&sums.split_off(sums.len().saturating_sub(1)), count)?)?.clone();
                (TrainStep { embeddings: rows, teacher, ..step }, figures)
            }
            (None, None) => return Err(Error::argument("parallel", "a shard without a loss")),
        };
        self.update(&statistics, &whole, &gradients, &(sums, vec![figures], kept))
    }

    /// Where the loss compares the images of the whole batch: the step, and the gradients of all
    /// that is compared.
    fn compared(&mut self, statistics: &Statistics, batches: &[PackedBatch]) -> Result<Option<(TrainStep, Vec<Tensor>)>> {
        let Self { programs, method, params, scaler, views, shards, .. } = self;
        let Some(contrast) = method.contrast() else { return Ok(None) };
        let mut rows = Rows::default();
        for (shard, packed) in shards.own().zip(batches) {
            statistics.begin(shard, shards.count())?;
            let embedded = programs.embed.run(packed, |packed| {
                let batch = views.of(packed)?;
                let embeddings = params.unrecorded(|| contrast.embed(&batch))?;
                Ok([embeddings, vec![batch.labels]].concat())
            })?;
            rows.push(&embedded)?;
        }
        let mut all = shards.gather(&rows)?;
        // What is captured with the labels of one batch takes those of the next.
        if let Some(labels) = all.last_mut() {
            *labels = labels.with_range(None)?;
        }
        let compared = programs.compare.run(&all, |all| {
            let Some((labels, embeddings)) = all.split_last() else { return Err(Error::argument("parallel", "nothing to compare")) };
            let watched: Vec<Tensor> = embeddings.iter().map(Tensor::watch).collect();
            let mut step = contrast.compare(&watched, labels)?;
            step.loss_scale = scaler.as_ref().map(GradScaler::scale);
            let gradients = step.backward(&step.loss)?;
            let of = |z: &Tensor| gradients.get(z).cloned().map_or_else(|| Tensor::zeros(z.gpu(), z.shape(), z.dtype()), Ok);
            let of_all = watched.iter().map(of).collect::<Result<_>>()?;
            Ok((TrainStep { loss: step.loss.detach(), ..step }, of_all))
        })?;
        Ok(Some(compared))
    }

    /// Loss and gradients of one shard; of a loss that compares the whole batch, by the gradients
    /// of what is compared.
    fn shard(&mut self, statistics: &Statistics, inputs: &(PackedBatch, Vec<Tensor>)) -> Result<Shard> {
        let Self { programs, method, params, scaler, views, .. } = self;
        programs.shard.run(inputs, |(packed, of_embeddings)| {
            let batch = views.of(packed)?;
            let (step, gradients) = match method.contrast() {
                Some(contrast) => (None, vec![backward_from(&contrast.embed(&batch)?, of_embeddings)?]),
                None => {
                    let mut step = method.loss(&batch)?;
                    step.loss_scale = scaler.as_ref().map(GradScaler::scale);
                    let gradients = step.backward_each(&method.losses(&step))?;
                    (Some(step), gradients)
                }
            };
            let watched = params.all_in_home().iter().map(|p| p.tensor(Mode::Train)).collect::<Result<Vec<_>>>()?;
            let gradients = gradients.iter().map(|gradients| gradients.pack(&watched)).collect::<Result<Vec<_>>>()?;
            let mut sums: Vec<Tensor> = gradients.iter().map(|packed| packed.values.clone()).chain(chunks(&statistics.homes)).collect();
            sums.extend(step.as_ref().map(figures).transpose()?);
            Ok(Shard { step, gradients, sums })
        })
    }

    /// What is done once a step, by the sums over all shards: gradients and running statistics.
    fn update(
        &mut self,
        statistics: &Statistics,
        step: &TrainStep,
        gradients: &[PackedGradients],
        inputs: &(Vec<Tensor>, Vec<Tensor>, Vec<Tensor>),
    ) -> Result<(TrainStep, Option<Tensor>)> {
        let Self { programs, method, optimizer, scaler, ema, learning_rate, recipe, shards, .. } = self;
        let updated = programs.update.run(inputs, |(sums, figures, kept)| {
            let (of_losses, moved) = sums.split_at_checked(gradients.len()).unwrap_or_default();
            // Shards have a loss each, whose mean counts, or are parts of one loss.
            let of_losses = if method.contrast().is_some() { of_losses.to_vec() } else { mean(of_losses, shards.count())? };
            let parts = gradients.iter().zip(&of_losses).map(|(packed, values)| packed.unpack(values)).collect();
            statistics.write(&mean(moved, shards.count())?)?;
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

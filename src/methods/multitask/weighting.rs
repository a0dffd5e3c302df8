//! How the losses of several tasks become one loss, or their gradients one gradient.

use serde::{Deserialize, Serialize};

use super::MultitaskConfig;
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Scalar};
use crate::methods::{Clock, TrainStep};
use crate::nn::{Init, Kind, Mode, Parameter, Parameters};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::{DType, Tensor};

/// The least weight that GradNorm leaves a task.
const LEAST_WEIGHT: f32 = 0.01;

/// How the losses L of K tasks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// The sum of `w L`, by given weights.
    Fixed,
    /// The sum of `exp(-s) L + s` by trained s (`log_var`), 0 at the start (Kendall, Gal and
    /// Cipolla 2018). Others have half of it, `L / (2 exp(s)) + s / 2`, and begin at -0.5; either
    /// has its optimum where `exp(s)` is the loss.
    Uncertainty,
    /// GradNorm (Chen et al. 2018): weights follow the norms of each task's gradient of the last
    /// shared layer's weight, so that a task that is behind (by its loss over its first one) has a
    /// larger one. A plain gradient step a step (the authors' have Adam), at least 0.01, then
    /// scaled to sum K.
    Gradnorm,
    /// Dynamic weight average (Liu, Johns and Davison 2019): K times the softmax of the ratios of
    /// the last two epochs' mean losses; 1 in the first two.
    Dwa,
    /// PCGrad (Yu et al. 2020): from a task's gradient of the trunk goes what points against
    /// another's, one after another in the order of the tasks (the authors draw an order for each
    /// task and step; of two tasks there is but one). Heads learn from their own task.
    Pcgrad,
}

/// The rule with its state.
pub(super) struct Weigher {
    rule: Rule,
    /// What all tasks share.
    trunk: Vec<Parameter>,
}

enum Rule {
    Fixed(Tensor),
    Uncertainty(Parameter),
    Gradnorm(Gradnorm),
    Dwa(Dwa),
    /// With the identity `[K, K]`.
    Pcgrad(Tensor),
}

/// All tensors `[K]` but for the identity.
struct Gradnorm {
    weights: Tensor,
    /// The losses of the first step.
    initial: Tensor,
    identity: Tensor,
    first: Flags,
    alpha: f32,
    rate: f32,
}

/// All tensors `[K]`.
struct Dwa {
    /// Of the epoch so far.
    sum: Tensor,
    /// Means of the last epoch, and of that before it.
    last: Tensor,
    before: Tensor,
    /// Whether an epoch ends with this step, and whether two are behind.
    flags: Flags,
    steps_per_epoch: u64,
    temperature: f32,
}

/// 0 or 1, by the step.
struct Flags {
    memory: Tensor,
    values: Vec<Scalar>,
}

impl Flags {
    fn new(gpu: &Gpu, clock: &Clock, rules: Vec<Box<dyn Fn(u64) -> bool + Send + Sync>>) -> Result<Self> {
        let memory = Tensor::zeros(gpu, [rules.len()], DType::F32)?;
        let values = rules.into_iter().map(|rule| clock.step.scalar().map(move |step| f32::from(u8::from(rule(step))))).collect();
        Ok(Self { memory, values })
    }

    fn write(&self) -> Result<()> {
        self.memory.write_scalars(&self.values)
    }

    fn get(&self, at: usize) -> Result<Tensor> {
        self.memory.slice(0, at, at + 1)
    }
}

/// One tensor `[K]` of K scalars.
pub(super) fn stack(parts: &[(String, Tensor)]) -> Result<Tensor> {
    let rows = parts.iter().map(|(_, part)| part.reshape(&[1])).collect::<Result<Vec<_>>>()?;
    Tensor::concat(&rows.iter().collect::<Vec<_>>(), 0)
}

impl Weigher {
    /// The parameter of `uncertainty`.
    pub const LOG_VAR: &'static str = "log_var";

    pub fn new(params: &Parameters, trunk: Vec<Parameter>, tasks: usize, config: &MultitaskConfig, clock: &Clock) -> Result<Self> {
        let gpu = params.gpu();
        let full = |value: f32| Tensor::from_slice(gpu, &vec![value; tasks], [tasks]);
        let identity = || {
            let values: Vec<f32> = (0..tasks * tasks).map(|i| if i % (tasks + 1) == 0 { 1.0 } else { 0.0 }).collect();
            Tensor::from_slice(gpu, &values, [tasks, tasks])
        };
        if !config.task_weights.is_empty() && config.weighting != Weighting::Fixed {
            return Err(Error::argument("task_weights", "they are for weighting = \"fixed\"; the others find their own"));
        }
        let rule = match config.weighting {
            Weighting::Fixed => Rule::Fixed(Tensor::from_slice(gpu, &fixed(&config.task_weights, tasks)?, [tasks])?),
            // No bias, but as little to be decayed.
            Weighting::Uncertainty => Rule::Uncertainty(params.parameter(Self::LOG_VAR, [tasks], Kind::Bias, Init::ZEROS)?),
            Weighting::Gradnorm => Rule::Gradnorm(Gradnorm {
                weights: full(1.0)?,
                initial: full(1.0)?,
                identity: identity()?,
                first: Flags::new(gpu, clock, vec![Box::new(|step| step == 0)])?,
                alpha: config.alpha,
                rate: config.weights_learning_rate,
            }),
            Weighting::Dwa => {
                let epoch = clock.steps_per_epoch.max(1);
                let flags: Vec<Box<dyn Fn(u64) -> bool + Send + Sync>> =
                    vec![Box::new(move |step| (step + 1).is_multiple_of(epoch)), Box::new(move |step| step / epoch >= 2)];
                Rule::Dwa(Dwa {
                    sum: full(0.0)?,
                    last: full(1.0)?,
                    before: full(1.0)?,
                    flags: Flags::new(gpu, clock, flags)?,
                    steps_per_epoch: epoch,
                    temperature: config.temperature,
                })
            }
            Weighting::Pcgrad => Rule::Pcgrad(identity()?),
        };
        Ok(Self { rule, trunk })
    }

    /// The loss to be learnt from, of those of the tasks `[K]`.
    pub fn total(&self, losses: &Tensor) -> Result<Tensor> {
        let weighted = match &self.rule {
            Rule::Fixed(weights) => losses.mul(weights)?,
            Rule::Uncertainty(log_var) => fuse([losses, &log_var.tensor(Mode::Train)?], |[l, s]| (-s.clone()).exp() * l + s)?,
            Rule::Gradnorm(rule) => rule.weighted(losses)?,
            Rule::Dwa(rule) => losses.mul(&rule.weights()?)?,
            Rule::Pcgrad(_) => losses.clone(),
        };
        weighted.sum(&[0], false)
    }

    /// What gradients are taken of: the step's loss, or that of each task.
    pub fn losses<'a>(&self, step: &'a TrainStep) -> Vec<&'a Tensor> {
        match &self.rule {
            Rule::Fixed(_) | Rule::Uncertainty(_) | Rule::Dwa(_) => vec![&step.loss],
            Rule::Gradnorm(_) | Rule::Pcgrad(_) => step.parts.iter().map(|(_, part)| part).collect(),
        }
    }

    /// The gradients that the optimizer is given, of those of [`Self::losses`].
    pub fn combine(&self, step: &TrainStep, parts: Vec<Gradients>) -> Result<Gradients> {
        match &self.rule {
            Rule::Fixed(_) | Rule::Uncertainty(_) | Rule::Dwa(_) => Ok(parts.into_iter().next().unwrap_or_default()),
            Rule::Gradnorm(rule) => rule.combine(step, parts, &self.watched(true)?),
            Rule::Pcgrad(identity) => {
                let trunk = self.watched(false)?;
                let shares = project(&Gradients::products(&parts, &trunk)?, identity)?;
                Gradients::weighted(&parts, &shares.sum(&[0], false)?, &trunk)
            }
        }
    }

    /// What is trained of the trunk, or only the `last` weight of a layer there.
    fn watched(&self, last: bool) -> Result<Vec<Tensor>> {
        let watched = self.trunk.iter().map(|parameter| parameter.tensor(Mode::Train)).collect::<Result<Vec<_>>>()?;
        let mut watched: Vec<Tensor> = watched.into_iter().filter(Tensor::is_watched).collect();
        if last && let Some(at) = watched.iter().rposition(|weight| weight.shape().rank() >= 2) {
            watched = watched.drain(at..=at).collect();
        }
        Ok(watched)
    }

    /// Moves what the next steps weigh by.
    pub fn after_update(&self, step: &TrainStep) -> Result<()> {
        match &self.rule {
            Rule::Dwa(rule) => rule.after_update(&losses(step)?),
            _ => Ok(()),
        }
    }

    /// The scope of what is trained here.
    pub fn head(&self) -> Option<&'static str> {
        matches!(self.rule, Rule::Uncertainty(_)).then_some(Self::LOG_VAR)
    }

    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |list: &[(&str, &Tensor)]| list.iter().map(|(name, tensor)| (name.to_string(), (*tensor).clone())).collect();
        match &self.rule {
            Rule::Gradnorm(rule) => named(&[("weights", &rule.weights), ("initial_losses", &rule.initial)]),
            Rule::Dwa(rule) => named(&[("sum", &rule.sum), ("last", &rule.last), ("before", &rule.before)]),
            _ => Vec::new(),
        }
    }
}

fn fixed(weights: &[f32], tasks: usize) -> Result<Vec<f32>> {
    if weights.is_empty() {
        return Ok(vec![1.0; tasks]);
    }
    if weights.len() != tasks || !weights.iter().all(|w| w.is_finite() && *w >= 0.0) {
        let message = format!("expected {tasks} numbers, the data set's own classes first, none below 0, found {weights:?}");
        return Err(Error::argument("task_weights", message));
    }
    Ok(weights.to_vec())
}

/// The losses of a step's tasks `[K]`, without a gradient.
fn losses(step: &TrainStep) -> Result<Tensor> {
    Ok(stack(&step.parts)?.detach())
}

impl Gradnorm {
    fn weighted(&self, losses: &Tensor) -> Result<Tensor> {
        // Of their own, because the weights move before anyone could walk back from here.
        losses.mul(&self.weights.copy()?)
    }

    /// The weighted sum of the tasks' gradients. The weights move by the norms of these, once the
    /// sum has been taken; not by norms that are not finite, for then the step is skipped.
    fn combine(&self, step: &TrainStep, mut parts: Vec<Gradients>, last: &[Tensor]) -> Result<Gradients> {
        let losses = losses(step)?;
        self.first.write()?;
        let initial = fuse([&self.initial, &losses, &self.first.get(0)?], |[initial, now, first]| &first * now + (1.0 - first) * initial)?;
        self.initial.copy_from(&initial)?;
        let scaled = Gradients::products(&parts, last)?.mul(&self.identity)?.sum(&[1], false)?.sqrt()?;
        let norms = step.loss_scale.as_ref().map_or(Ok(scaled.clone()), |scale| scaled.div(scale))?;
        let moved = self.moved(&norms, &losses)?;
        let moved = moved.isfinite()?.where_(&moved, &self.weights)?;
        let mut total = Gradients::default();
        for (part, at) in parts.iter_mut().zip(0..) {
            part.scale_by(&self.weights.slice(0, at, at + 1)?)?;
            total.accumulate(part)?;
        }
        self.weights.copy_from(&moved)?;
        Ok(total)
    }

    /// The weights after a step down the sum of `|w norm - mean(w norm) r^alpha|`, whose second
    /// term counts as constant.
    fn moved(&self, norms: &Tensor, losses: &Tensor) -> Result<Tensor> {
        let (alpha, rate) = (self.alpha, self.rate);
        let weighted = self.weights.mul(norms)?;
        let behind = losses.div(&self.initial)?;
        let (mean, mean_behind) = (weighted.mean(&[0], true)?, behind.mean(&[0], true)?);
        let moved =
            fuse([&self.weights, norms, &weighted, &mean, &behind, &mean_behind], |[w, norm, weighted, mean, behind, mean_behind]| {
                let above = weighted - mean * (behind / mean_behind.maximum(1e-12)).pair("pow", alpha);
                let sign = &above / (above.clone().map("abs") + 1e-30);
                (w - rate * (sign * norm)).maximum(LEAST_WEIGHT)
            })?;
        let tasks = moved.numel() as f32;
        fuse([&moved, &moved.sum(&[0], true)?], |[w, sum]| w * tasks / sum)
    }
}

impl Dwa {
    fn weights(&self) -> Result<Tensor> {
        self.flags.write()?;
        let ratio = fuse([&self.last, &self.before], |[last, before]| last / before.maximum(1e-12))?;
        let (soft, tasks) = (ratio.softmax_with_temperature(-1, self.temperature)?, ratio.numel() as f32);
        fuse([&soft, &self.flags.get(1)?], |[soft, begun]| &begun * (tasks * soft) + (1.0 - begun))
    }

    fn after_update(&self, losses: &Tensor) -> Result<()> {
        let (ends, share) = (self.flags.get(0)?, 1.0 / self.steps_per_epoch as f32);
        let sum = self.sum.add(losses)?;
        let before = fuse([&self.before, &self.last, &ends], |[before, last, ends]| &ends * last + (1.0 - ends) * before)?;
        let last = fuse([&self.last, &sum, &ends], |[last, sum, ends]| &ends * (share * sum) + (1.0 - ends) * last)?;
        self.before.copy_from(&before)?;
        self.last.copy_from(&last)?;
        self.sum.copy_from(&fuse([&sum, &ends], |[sum, ends]| (1.0 - ends) * sum)?)
    }
}

/// PCGrad from the inner products `[K, K]` of the tasks' gradients alone: row i says of how much of
/// each of them task i's consists afterwards.
fn project(products: &Tensor, identity: &Tensor) -> Result<Tensor> {
    let tasks = products.shape().dim(0);
    (0..tasks).try_fold(identity.clone(), |shares, other| {
        let column = products.slice(1, other, other + 1)?;
        let (square, along) = (column.slice(0, other, other + 1)?, shares.matmul(&column)?);
        let (own, this) = (identity.slice(1, other, other + 1)?, identity.slice(0, other, other + 1)?);
        fuse([&shares, &along, &square, &own, &this], |[shares, along, square, own, this]| {
            shares - (1.0 - own) * along.minimum(0.0) / square.maximum(1e-30) * this
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::tensor::random::{Purpose, Stream};

    type Rows = Vec<Vec<f64>>;

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// The paper's algorithm 1 with tasks in order, in float64.
    fn pcgrad(gradients: &Rows) -> Rows {
        let one = |(i, gradient): (usize, &Vec<f64>)| {
            let mut own = gradient.clone();
            for (_, other) in gradients.iter().enumerate().filter(|(j, _)| *j != i) {
                let along = dot(&own, other);
                if along < 0.0 {
                    own = own.iter().zip(other).map(|(a, b)| a - along / dot(other, other) * b).collect();
                }
            }
            own
        };
        gradients.iter().enumerate().map(one).collect()
    }

    #[test]
    fn projections_are_those_of_the_vectors() {
        let gpu = Gpu::new().unwrap();
        let mut stream = Stream::new(1, Purpose::Test);
        for tasks in [2, 2, 2, 3, 3, 3, 4, 5] {
            let rows: Rows = (0..tasks).map(|_| (0..6).map(|_| f64::from(stream.normal())).collect()).collect();
            let flat: Vec<f32> = rows.iter().flatten().map(|v| *v as f32).collect();
            let g = Tensor::from_slice(&gpu, &flat, [tasks, 6]).unwrap();
            let unit: Vec<f32> = (0..tasks * tasks).map(|i| f32::from(u8::from(i % (tasks + 1) == 0))).collect();
            let identity = Tensor::from_slice(&gpu, &unit, [tasks, tasks]).unwrap();
            let shares = project(&g.matmul_nt(&g).unwrap(), &identity).unwrap();
            let found = shares.matmul(&g).unwrap().to_f64().unwrap();
            for (found, expected) in found.iter().zip(pcgrad(&rows).iter().flatten()) {
                approx::assert_abs_diff_eq!(found, expected, epsilon = 1e-5);
            }
            if tasks == 2 {
                let found: Vec<&[f64]> = found.chunks(6).collect();
                assert!(dot(found[0], &rows[1]) > -1e-5 && dot(found[1], &rows[0]) > -1e-5);
            }
        }
    }
}

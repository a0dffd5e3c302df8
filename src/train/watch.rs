//! What is seen of a run: how far embeddings are from having collapsed, and the gradient's norm. A
//! look is a few operators on what a step has left behind, and copies to the host that are read
//! with the step's loss; steps that are not looked at cost nothing.

use serde_json::{Map, Value, json};

use super::spectrum::eigenvalues;
use crate::error::Result;
use crate::gpu::Pending;
use crate::methods::Queue;
use crate::tensor::{DType, Tensor};

/// Rows of a batch that the effective rank is found of, where there are more features: the host's
/// work grows with the cube.
const RANK_ROWS: usize = 256;

/// The difference of cosines from which on its parts say something.
const LEAST_MARGIN: f64 = 0.01;
/// The variance of a direction below which it is f32's.
const LEAST_VARIANCE: f64 = 1e-10;

/// What a step has left for a look.
#[derive(Clone, Default)]
pub struct Observed {
    /// Of the first and the second view of each image, `[N, D]`, any length; none, one or two.
    pub embeddings: Vec<Tensor>,
    /// A teacher's probabilities `[M, K]`.
    pub teacher: Option<Tensor>,
    /// The queue of earlier keys.
    pub queue: Option<Queue>,
    /// The gradient's norm, the first of a few numbers.
    pub gradient_norm: Option<Tensor>,
    /// The loss scale of mixed precision.
    pub loss_scale: Option<Tensor>,
    /// What the loss consists of, by name: scalars.
    pub parts: Vec<(String, Tensor)>,
}

/// Figures of one step; `None` for what the method has not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Diagnostics {
    /// The norm of all gradients, before clipping.
    pub gradient_norm: Option<f64>,
    /// The loss scale of mixed precision, behind the step.
    pub loss_scale: Option<f64>,
    /// The standard deviation of each feature of the normalised first embeddings over the batch,
    /// its mean over the features times sqrt(D) (Chen and He 2021, figure 2): 1 for directions
    /// spread evenly over the sphere, 0 where all are one.
    pub std: Option<f64>,
    /// exp of the entropy of the singular values of the first embeddings, which are divided by
    /// their sum: RankMe (Garrido et al. 2023, arXiv:2210.02885), but of rows that are normalised
    /// and centred, so that a direction that all have in common counts for nothing. 0 where there
    /// is no other. Of the first 256 rows where both sides are longer.
    pub effective_rank: Option<f64>,
    /// The most that it could be: the smaller side.
    pub full_rank: Option<usize>,
    /// The mean cosine of the two embeddings of one image.
    pub positive_similarity: Option<f64>,
    /// The mean cosine of first and second embeddings of different images of the batch.
    pub negative_similarity: Option<f64>,
    /// The mean cosine of first embeddings and the queue's keys.
    pub queue_similarity: Option<f64>,
    /// The part of what makes a key nearer than the queue's that all keys of the batch have,
    /// because they are of today: (negative - queue) / (positive - queue). 0 where a key's age does
    /// not matter, 1 where nothing else does; none where all are alike.
    pub queue_drift: Option<f64>,
    /// How many steps ago the oldest key of a full queue entered it.
    pub queue_age: Option<f64>,
    /// The mean entropy of the teacher's rows, in nats.
    pub teacher_entropy: Option<f64>,
    /// As part of ln K, the entropy of a teacher that says nothing.
    pub teacher_entropy_share: Option<f64>,
    /// The entropy of the teacher's mean row, as part of ln K: 0 where it says the same of all
    /// images.
    pub teacher_usage: Option<f64>,
    /// The mean Kullback-Leibler divergence of the student from the teacher: the loss less the
    /// teacher's entropy, where the loss is their cross entropy.
    pub teacher_divergence: Option<f64>,
    /// What the loss consists of, by name.
    pub parts: Vec<(String, f64)>,
    /// What the method itself counts.
    pub metrics: Vec<(&'static str, f64)>,
}

/// Figures on their way to the host.
#[must_use = "nothing is read before `figures`"]
pub struct PendingDiagnostics {
    rows: usize,
    gradient_norm: Option<Pending>,
    loss_scale: Option<Pending>,
    variance: Option<Pending>,
    gram: Option<Pending>,
    sums: Vec<Pending>,
    cosines: Option<Pending>,
    queue: Option<Pending>,
    queue_age: Option<f64>,
    teacher_rows: Option<Pending>,
    teacher_mean: Option<Pending>,
    parts: Vec<(String, Pending)>,
}

fn numbers(pending: Pending) -> Result<Vec<f64>> {
    Ok(bytemuck::pod_collect_to_vec::<u8, f32>(&pending.wait()?).into_iter().map(f64::from).collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// -sum p ln p; 0 ln 0 is 0.
fn entropy(probabilities: &[f64]) -> f64 {
    -probabilities.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}

/// The product of the shorter side with itself: its eigenvalues are the squares of the singular
/// values.
fn gram(x: &Tensor) -> Result<Tensor> {
    let (rows, features) = (x.shape().dim(0), x.shape().last());
    if features <= rows.min(RANK_ROWS) {
        return x.matmul_tn(x);
    }
    let few = x.slice(0, 0, rows.min(RANK_ROWS))?;
    few.matmul_nt(&few)
}

/// exp of the entropy of singular values, from the matrix of products.
fn effective_rank(gram: &[f64], rows: usize) -> (f64, usize) {
    let side = gram.len().isqrt();
    let values = eigenvalues(gram.chunks_exact(side.max(1)).map(<[f64]>::to_vec).collect());
    // Products in f32 are this inexact, and so are rows of length 1 less their mean: less of an
    // eigenvalue than this is none.
    let noise = (side as f64 * f64::from(f32::EPSILON) * values.last().copied().unwrap_or(0.0)).max(rows as f64 * LEAST_VARIANCE);
    let singular: Vec<f64> = values.into_iter().map(|v| if v <= noise { 0.0 } else { v.sqrt() }).collect();
    let sum: f64 = singular.iter().sum();
    let rank = if sum > 0.0 { entropy(&singular.iter().map(|s| s / sum).collect::<Vec<_>>()).exp() } else { 0.0 };
    (if sum.is_nan() { f64::NAN } else { rank }, side)
}

impl PendingDiagnostics {
    /// Looks at what a step has left, before the next step overwrites it. Does not wait.
    ///
    /// # Errors
    /// Embeddings that are no matrices of one shape; out of memory; a lost device.
    pub fn at(observed: &Observed) -> Result<Self> {
        let read = |tensor: &Tensor| tensor.read_later();
        let plain = |tensor: &Tensor| tensor.detach().cast(DType::F32);
        let unit = observed.embeddings.iter().take(2).map(|x| plain(x)?.l2_normalize(-1, 1e-12)).collect::<Result<Vec<_>>>()?;
        let (first, pair) = (unit.first(), unit.first().zip(unit.get(1)));
        let teacher = observed.teacher.as_ref().map(plain).transpose()?;
        let entropies = |p: &Tensor| p.mul(&p.clamp(1e-30, 1.0)?.log()?)?.sum(&[1], false)?.neg()?.read_later();
        Ok(Self {
            rows: first.map_or(0, |x| x.shape().dim(0)),
            gradient_norm: observed.gradient_norm.as_ref().map(read).transpose()?,
            loss_scale: observed.loss_scale.as_ref().map(read).transpose()?,
            variance: first.map(|x| x.var(&[0], true, false)?.read_later()).transpose()?,
            gram: first.map(|x| gram(&x.sub(&x.mean(&[0], true)?)?)?.read_later()).transpose()?,
            sums: unit.iter().map(|x| x.mean(&[0], false)?.read_later()).collect::<Result<_>>()?,
            cosines: pair.map(|(a, b)| a.mul(b)?.sum(&[1], false)?.read_later()).transpose()?,
            queue: observed.queue.as_ref().map(|q| plain(&q.keys)?.l2_normalize(-1, 1e-12)?.mean(&[0], false)?.read_later()).transpose()?,
            queue_age: observed.queue.as_ref().map(|queue| queue.age),
            teacher_rows: teacher.as_ref().map(entropies).transpose()?,
            teacher_mean: teacher.as_ref().map(|p| p.mean(&[0], false)?.read_later()).transpose()?,
            parts: observed.parts.iter().map(|(name, part)| Ok((name.clone(), part.read_later()?))).collect::<Result<_>>()?,
        })
    }

    /// The figures; waits for the step that was looked at. `loss` is its loss.
    ///
    /// # Errors
    /// A lost device; an earlier driver error.
    pub fn figures(self, loss: f64) -> Result<Diagnostics> {
        let mut figures = Diagnostics { queue_age: self.queue_age, ..Default::default() };
        if let Some(norm) = self.gradient_norm {
            figures.gradient_norm = numbers(norm)?.first().copied();
        }
        if let Some(scale) = self.loss_scale {
            figures.loss_scale = numbers(scale)?.first().copied();
        }
        if let Some(variance) = self.variance.map(numbers).transpose()? {
            let deviations: Vec<f64> = variance.iter().map(|v| v.max(0.0).sqrt()).collect();
            figures.std = Some(mean(&deviations) * (variance.len() as f64).sqrt());
        }
        if let Some(gram) = self.gram {
            let (rank, full) = effective_rank(&numbers(gram)?, self.rows.min(RANK_ROWS));
            (figures.effective_rank, figures.full_rank) = (Some(rank), Some(full));
        }
        let sums = self.sums.into_iter().map(numbers).collect::<Result<Vec<_>>>()?;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        if let (Some(cosines), [first, second]) = (self.cosines, sums.as_slice()) {
            let (n, positive) = (self.rows as f64, mean(&numbers(cosines)?));
            figures.positive_similarity = Some(positive);
            // The product of the means is the mean over all pairs, those of one image included.
            figures.negative_similarity = (n > 1.0).then(|| (n * dot(first, second) - positive) / (n - 1.0));
        }
        if let (Some(queue), Some(first)) = (self.queue, sums.first()) {
            let queue = dot(first, &numbers(queue)?);
            figures.queue_similarity = Some(queue);
            let margin = figures.positive_similarity.map(|positive| positive - queue).filter(|margin| *margin > LEAST_MARGIN);
            figures.queue_drift = figures.negative_similarity.zip(margin).map(|(negative, margin)| (negative - queue) / margin);
        }
        if let (Some(rows), Some(mean_row)) = (self.teacher_rows, self.teacher_mean) {
            let (entropies, mean_row) = (numbers(rows)?, numbers(mean_row)?);
            let (found, most) = (mean(&entropies), (mean_row.len() as f64).ln().max(f64::MIN_POSITIVE));
            figures.teacher_entropy = Some(found);
            figures.teacher_entropy_share = Some(found / most);
            figures.teacher_usage = Some(entropy(&mean_row) / most);
            figures.teacher_divergence = Some(loss - found);
        }
        let part = |(name, part): (String, Pending)| Ok((name, numbers(part)?.first().copied().unwrap_or(f64::NAN)));
        figures.parts = self.parts.into_iter().map(part).collect::<Result<_>>()?;
        Ok(figures)
    }
}

impl Diagnostics {
    fn named(&self) -> impl Iterator<Item = (&'static str, &'static str, f64)> {
        let own = [
            ("gradient_norm", "|g|", self.gradient_norm),
            ("loss_scale", "scale", self.loss_scale),
            ("embedding_std", "std", self.std),
            ("effective_rank", "rank", self.effective_rank),
            ("positive_similarity", "pos", self.positive_similarity),
            ("negative_similarity", "neg", self.negative_similarity),
            ("queue_similarity", "", self.queue_similarity),
            ("queue_drift", "drift", self.queue_drift),
            ("queue_age", "", self.queue_age),
            ("teacher_entropy", "entropy", self.teacher_entropy),
            ("teacher_entropy_share", "", self.teacher_entropy_share),
            ("teacher_usage", "usage", self.teacher_usage),
            ("teacher_divergence", "KL", self.teacher_divergence),
        ];
        own.into_iter().filter_map(|(name, short, value)| Some((name, short, value?)))
    }

    /// As fields of an object, to four digits: those that there are.
    pub fn to_json(&self) -> Map<String, Value> {
        let rounded = |value: f64| format!("{value:.3e}").parse::<f64>().unwrap_or(value);
        let own = self.named().map(|(name, _, value)| (name, value));
        let counted = own.chain(self.metrics.iter().copied()).map(|(name, value)| (name.to_string(), value));
        let parts = self.parts.iter().map(|(name, value)| (format!("loss_{name}"), *value));
        counted.chain(parts).map(|(name, value)| (name, json!(rounded(value)))).collect()
    }

    /// A few words for the progress line, with two spaces before each; empty where there is nothing
    /// to say.
    pub fn to_line(&self) -> String {
        let own = self.named().filter(|(_, short, _)| !short.is_empty()).map(|(_, short, value)| match value {
            value if value.abs() < 1e3 => format!("  {short} {value:.3}"),
            value => format!("  {short} {value:.0}"),
        });
        own.chain(self.parts.iter().map(|(name, value)| format!("  {name} {value:.3}"))).collect()
    }
}

//! How attention is run: scores, their softmax by a kernel that owns rows or, where these are too
//! long, by operators that share them.

use super::super::gemm::Gemm;
use super::{ScaledDotProductAttention, Sizes};
use crate::error::Result;
use crate::gpu::{Gpu, Launch, rounds};
use crate::ops::Backward;
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

kernels!(ATTENTION = "linear/attention");

impl Sizes {
    /// Rounds of one of `lanes` invocations that own a row: two walks over its keys.
    fn walk(&self, lanes: usize) -> usize {
        let keys = self.keys.div_ceil(lanes);
        rounds(keys.div_ceil(32), rounds(32, 0)) + rounds(keys, 0)
    }

    /// The weights of scores whose rows are too long for one invocation, and the statistics of
    /// these, by operators that share a row among many.
    fn long_weights(&self, scores: &Tensor, mask: Option<&Tensor>) -> Result<[Tensor; 2]> {
        let scores = scores.reshape(&[self.batch, self.heads, self.queries, self.keys])?;
        let number = |value: f32| Tensor::full(scores.gpu(), [1], value, DType::F32);
        let mask = mask.map(|mask| mask.reshape(&[self.batch, 1, 1, self.keys])).transpose()?;
        // What is added up is hidden by a score whose exponential is 0; a row that sees nothing has
        // weights, which are taken from it.
        let lowest = number(-1e30)?;
        let seen = mask.as_ref().map_or(Ok(scores.clone()), |mask| mask.where_(&scores, &lowest))?;
        let largest = seen.max(&[3], true)?;
        let stats = Tensor::concat(&[&largest, &seen.logsumexp(&[3], true)?.sub(&largest)?.exp()?], 3)?;
        let weights = seen.softmax(3)?;
        let weights = mask.as_ref().map_or(Ok(weights.clone()), |mask| mask.where_(&weights, &number(0.0)?))?;
        Ok([weights.reshape(&[self.matrices(), self.queries, self.keys])?, stats])
    }

    fn scale(&self) -> f32 {
        1.0 / (self.depth as f32).sqrt()
    }

    /// `[B * H, L, S]`, f32 whatever the inputs are: a rounding of f16 of a score is an error of its
    /// exponential, many units in the last place of what is stored in the end.
    fn square(&self, like: &Tensor) -> Result<Tensor> {
        Tensor::empty(like.gpu(), [self.matrices(), self.queries, self.keys], DType::F32)
    }

    fn scores(&self, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        let scores = self.square(q)?;
        let gemm = Gemm::nt(self.queries, self.keys, self.depth).alpha(self.scale());
        gemm.batched(self.matrices(), self.queries * self.depth, self.keys * self.depth).run(q, k, None, &scores)?;
        Ok(scores)
    }
}

impl ScaledDotProductAttention {
    /// Whether rows are too long for one invocation. Causal ones stay with the kernel: beyond the
    /// last query no key is seen.
    fn is_long(&self, sizes: &Sizes, gpu: &Gpu) -> bool {
        !self.causal && !gpu.capabilities().may_walk_exactly(sizes.walk(gpu.capabilities().schedule.row_lanes()))
    }

    fn launch(&self, sizes: &Sizes, scores: &Tensor, other: Option<&Tensor>, stats: &Tensor, mask: Option<&Tensor>) -> Result<()> {
        let entry = if other.is_some() { "backward" } else { "forward" };
        let lanes = scores.gpu().capabilities().schedule.row_lanes();
        let mut launch = Launch::new(scores.gpu(), &ATTENTION, entry)
            .define("BACKWARD", other.is_some())
            .define("MASK", mask.is_some())
            .define("LANES", lanes)
            .write(scores);
        launch = match other {
            Some(dp) => launch.write(dp).read(stats),
            None => launch.write(stats),
        };
        if let Some(mask) = mask {
            launch = launch.read(mask);
        }
        let (rows, per_batch) = (sizes.rows(), sizes.heads * sizes.queries);
        launch
            .params(params![rows, sizes.queries, sizes.keys, per_batch, self.causal, sizes.scale()])
            .walk(sizes.walk(lanes))
            .invocations(rows * lanes)
    }
}

/// y and what backward needs of each row, of the specs `outputs`.
pub(super) fn forward(
    attention: &ScaledDotProductAttention,
    sizes: &Sizes,
    [q, k, v]: [&Tensor; 3],
    mask: Option<&Tensor>,
    outputs: &[Spec],
) -> Result<Vec<Tensor>> {
    let [y, stats] = outputs else { return Ok(Vec::new()) };
    let y = Tensor::empty(q.gpu(), &y.shape, y.dtype)?;
    let scores = sizes.scores(q, k)?;
    let (weights, stats) = if attention.is_long(sizes, q.gpu()) {
        let [weights, stats] = sizes.long_weights(&scores, mask)?;
        (weights, stats)
    } else {
        let stats = Tensor::empty(q.gpu(), &stats.shape, stats.dtype)?;
        attention.launch(sizes, &scores, None, &stats, mask)?;
        (scores, stats)
    };
    Gemm::nn(sizes.queries, sizes.values, sizes.keys)
        .batched(sizes.matrices(), sizes.queries * sizes.keys, sizes.keys * sizes.values)
        .run(&weights, v, None, &y)?;
    Ok(vec![y, stats])
}

/// The gradients of q, k and v.
pub(super) fn backward(
    attention: &ScaledDotProductAttention,
    s: &Sizes,
    [q, k, v]: [&Tensor; 3],
    step: &Backward,
) -> Result<Vec<Option<Tensor>>> {
    let (stats, dy) = (step.output(1)?, step.cotangent(0)?);
    let mask = if step.input_count() > 3 { Some(step.input(3)?) } else { None };
    let (of_q, of_k) = (s.queries * s.depth, s.keys * s.depth);
    let (of_y, of_v, of_scores) = (s.queries * s.values, s.keys * s.values, s.queries * s.keys);
    let product = |gemm: Gemm, steps: [usize; 2], a: &Tensor, b: &Tensor, like: &Tensor| -> Result<Option<Tensor>> {
        let y = Tensor::empty(like.gpu(), like.shape(), like.dtype())?;
        let [a_step, b_step] = steps;
        gemm.batched(s.matrices(), a_step, b_step).run(a, b, None, &y)?;
        Ok(Some(y))
    };
    let mut weights = s.scores(q, k)?;
    let mut ds = s.square(q)?;
    Gemm::nt(s.queries, s.keys, s.values).batched(s.matrices(), of_y, of_v).run(&dy, v, None, &ds)?;
    if attention.is_long(s, q.gpu()) {
        [weights, _] = s.long_weights(&weights, mask)?;
        ds = weights.mul(&ds.sub(&weights.mul(&ds)?.sum(&[2], true)?)?)?.mul_scalar(s.scale())?;
    } else {
        attention.launch(s, &weights, Some(&ds), stats, mask)?;
    }
    let mut gradients = vec![None; step.input_count()];
    for (index, gradient) in gradients.iter_mut().enumerate().filter(|(index, _)| step.needs(*index)) {
        *gradient = match index {
            0 => product(Gemm::nn(s.queries, s.depth, s.keys), [of_scores, of_k], &ds, k, q)?,
            1 => product(Gemm::tn(s.keys, s.depth, s.queries), [of_scores, of_q], &ds, q, k)?,
            2 => product(Gemm::tn(s.keys, s.values, s.queries), [of_scores, of_y], &weights, &dy, v)?,
            _ => None,
        };
    }
    Ok(gradients)
}

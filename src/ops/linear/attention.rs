//! Scaled dot-product attention: batched products around a row-wise kernel. Scores `[B, H, L, S]` live only while they are used;
//! backward recomputes them, and their softmax from the second output: each row's maximum and sum.

use super::gemm::{self, Gemm};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Launch, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Backward, Cost, Operator, Saves, apply_one};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "scaled_dot_product_attention";
kernels!(ATTENTION = "linear/attention");

/// Attention. Inputs: q `[B, H, L, D]`, k `[B, H, S, D]`, v `[B, H, S, E]`, optionally mask `[B, S]` (i32; 0 hides a key).
#[derive(Debug, Clone, Copy, Default)]
pub struct ScaledDotProductAttention {
    /// A query sees the keys up to its own position only.
    pub causal: bool,
}

struct Sizes {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    depth: usize,
    values: usize,
}

impl Sizes {
    fn new(q: &Spec, k: &Spec, v: &Spec) -> Result<Self> {
        if !q.dtype.is_float() || q.dtype != k.dtype || q.dtype != v.dtype {
            return Err(Error::dtype(NAME, format!("q, k and v must be floats of one type, found {q}, {k} and {v}")));
        }
        let rule = || {
            let found = format!("found {}, {} and {}", q.shape, k.shape, v.shape);
            Error::shape(NAME, format!("expected q [B, H, L, D], k [B, H, S, D] and v [B, H, S, E] with D of at least 1, {found}"))
        };
        let (Some([batch, heads, queries, depth]), Some([kb, kh, keys, kd]), Some([vb, vh, vs, values])) =
            (q.shape.array(), k.shape.array(), v.shape.array())
        else {
            return Err(rule());
        };
        if [kb, kh, kd, vb, vh, vs] != [batch, heads, depth, batch, heads, keys] || depth == 0 {
            return Err(rule());
        }
        Ok(Self { batch, heads, queries, keys, depth, values })
    }

    fn matrices(&self) -> usize {
        self.batch * self.heads
    }

    fn rows(&self) -> usize {
        self.matrices() * self.queries
    }

    /// Rounds of an invocation that owns a row: two walks over its keys.
    fn walk(&self) -> usize {
        rounds(self.keys.div_ceil(32), rounds(32, 0)) + rounds(self.keys, 0)
    }

    /// The weights of scores whose rows are too long for one invocation, and the statistics of these, by operators that share a row among many.
    fn long_weights(&self, scores: &Tensor, mask: Option<&Tensor>) -> Result<[Tensor; 2]> {
        let scores = scores.reshape(&[self.batch, self.heads, self.queries, self.keys])?;
        let number = |value: f32| Tensor::full(scores.gpu(), [1], value, DType::F32)?.cast(scores.dtype());
        let mask = mask.map(|mask| mask.reshape(&[self.batch, 1, 1, self.keys])).transpose()?;
        // What is added up is hidden by a score whose exponential is 0; a row that sees nothing has weights, which are taken from it.
        let lowest = number(if scores.dtype() == DType::F16 { -6e4 } else { -1e30 })?;
        let seen = mask.as_ref().map_or(Ok(scores.clone()), |mask| mask.where_(&scores, &lowest))?;
        let exact = seen.cast(DType::F32)?;
        let largest = exact.max(&[3], true)?;
        let stats = Tensor::concat(&[&largest, &exact.logsumexp(&[3], true)?.sub(&largest)?.exp()?], 3)?;
        let weights = seen.softmax(3)?;
        let weights = mask.as_ref().map_or(Ok(weights.clone()), |mask| mask.where_(&weights, &number(0.0)?))?;
        Ok([weights.reshape(&[self.matrices(), self.queries, self.keys])?, stats])
    }

    fn scale(&self) -> f32 {
        1.0 / (self.depth as f32).sqrt()
    }

    /// `[B * H, L, S]` of the inputs' type.
    fn square(&self, like: &Tensor) -> Result<Tensor> {
        Tensor::empty(like.gpu(), [self.matrices(), self.queries, self.keys], like.dtype())
    }

    fn scores(&self, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        let scores = self.square(q)?;
        let gemm = Gemm::nt(self.queries, self.keys, self.depth).alpha(self.scale());
        gemm.batched(self.matrices(), self.queries * self.depth, self.keys * self.depth).run(q, k, None, &scores)?;
        Ok(scores)
    }
}

impl ScaledDotProductAttention {
    /// Whether rows are too long for one invocation. Causal ones stay with the kernel: beyond the last query no key is seen.
    fn is_long(&self, sizes: &Sizes, gpu: &Gpu) -> bool {
        !self.causal && !gpu.capabilities().may_walk_exactly(sizes.walk())
    }

    fn launch(&self, sizes: &Sizes, scores: &Tensor, other: Option<&Tensor>, stats: &Tensor, mask: Option<&Tensor>) -> Result<()> {
        let entry = if other.is_some() { "backward" } else { "forward" };
        let mut launch = Launch::new(scores.gpu(), &ATTENTION, entry)
            .storage(scores.dtype().storage())
            .define("BACKWARD", other.is_some())
            .define("MASK", mask.is_some())
            .write(scores);
        launch = match other {
            Some(dp) => launch.write(dp).read(stats),
            None => launch.write(stats),
        };
        if let Some(mask) = mask {
            launch = launch.read(mask);
        }
        let (rows, per_batch) = (sizes.rows(), sizes.heads * sizes.queries);
        launch.params(params![rows, sizes.queries, sizes.keys, per_batch, self.causal, sizes.scale()]).walk(sizes.walk()).invocations(rows)
    }
}

impl Operator for ScaledDotProductAttention {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let ([q, k, v] | [q, k, v, _]) = inputs else {
            return Err(Error::shape(NAME, format!("it takes q, k, v and maybe mask, {} inputs were given", inputs.len())));
        };
        let sizes = Sizes::new(q, k, v)?;
        if let Some(mask) = inputs.get(3) {
            if mask.dtype != DType::I32 {
                return Err(Error::dtype(NAME, format!("mask must be i32, found {}", mask.dtype)));
            }
            if *mask.shape != [sizes.batch, sizes.keys] {
                return Err(Error::shape(NAME, format!("mask must be [{}, {}], found {}", sizes.batch, sizes.keys, mask.shape)));
            }
        }
        Ok(vec![
            Spec::new([sizes.batch, sizes.heads, sizes.queries, sizes.values], q.dtype),
            Spec::f32([sizes.batch, sizes.heads, sizes.queries, 2]),
        ])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([q, k, v, mask @ ..], [y, stats]) = (inputs, outputs) else { return Ok(Vec::new()) };
        let sizes = Sizes::new(q.spec(), k.spec(), v.spec())?;
        let y = Tensor::empty(q.gpu(), &y.shape, y.dtype)?;
        let scores = sizes.scores(q, k)?;
        let (weights, stats) = if self.is_long(&sizes, q.gpu()) {
            let [weights, stats] = sizes.long_weights(&scores, mask.first().copied())?;
            (weights, stats)
        } else {
            let stats = Tensor::empty(q.gpu(), &stats.shape, stats.dtype)?;
            self.launch(&sizes, &scores, None, &stats, mask.first().copied())?;
            (scores, stats)
        };
        Gemm::nn(sizes.queries, sizes.values, sizes.keys)
            .batched(sizes.matrices(), sizes.queries * sizes.keys, sizes.keys * sizes.values)
            .run(&weights, v, None, &y)?;
        Ok(vec![y, stats])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (q, k, v, stats, dy) = (step.input(0)?, step.input(1)?, step.input(2)?, step.output(1)?, step.cotangent(0)?);
        let mask = if step.input_count() > 3 { Some(step.input(3)?) } else { None };
        let s = Sizes::new(q.spec(), k.spec(), v.spec())?;
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
        if self.is_long(&s, q.gpu()) {
            [weights, _] = s.long_weights(&weights, mask)?;
            ds = weights.mul(&ds.sub(&weights.mul(&ds)?.sum(&[2], true)?)?)?.mul_scalar(s.scale())?;
        } else {
            self.launch(&s, &weights, Some(&ds), stats, mask)?;
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

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1, 2, 3], outputs: vec![1] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        (0..inputs.len()).collect()
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let ([q, k, v] | [q, k, v, _]) = inputs else { return Ok(Vec::new()) };
        let mask = inputs.get(3);
        let (keys, depth) = (k.shape.dim(2), k.shape.dim(3));
        // (score, key) of every key that a query may see.
        let seen = |b: usize, h: usize, l: usize| -> Vec<(f64, usize)> {
            let score = |s: usize| (0..depth).map(|d| q.at(&[b, h, l, d]) * k.at(&[b, h, s, d])).sum::<f64>() / (depth as f64).sqrt();
            let shown = |s: &usize| mask.is_none_or(|m| m.at(&[b, *s]) != 0.0) && (!self.causal || *s <= l);
            (0..keys).filter(shown).map(|s| (score(s), s)).collect()
        };
        let largest = |scores: &[(f64, usize)]| scores.iter().fold(f64::NEG_INFINITY, |m, (score, _)| m.max(*score));
        let sum = |scores: &[(f64, usize)]| scores.iter().map(|(score, _)| (score - largest(scores)).exp()).sum::<f64>();
        let stats = Array::from_fn(q.shape.with(3, 2), |index| {
            let [b, h, l, which] = index else { return f64::NAN };
            let scores = seen(*b, *h, *l);
            if scores.is_empty() {
                0.0
            } else if *which == 0 {
                largest(&scores)
            } else {
                sum(&scores)
            }
        });
        let y = Array::from_fn(q.shape.with(3, v.shape.dim(3)), |index| {
            let [b, h, l, e] = index else { return f64::NAN };
            let (largest, sum) = (stats.at(&[*b, *h, *l, 0]), stats.at(&[*b, *h, *l, 1]));
            let scores = seen(*b, *h, *l);
            // A hidden key weighs 0.
            let weight = |s: usize| scores.iter().find(|(_, key)| *key == s).map_or(0.0, |(score, _)| (score - largest).exp() / sum);
            (0..keys).map(|s| weight(s) * v.at(&[*b, *h, s, *e])).sum()
        });
        Ok(vec![y, stats])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let streaming = Cost::streaming(inputs, outputs, 0.0);
        let [q, k, v, ..] = inputs else { return streaming };
        let scores = q.shape.iter().take(3).product::<usize>() as f64 * k.shape.dim(2) as f64;
        // Two products and about five operations a score; a causal one still computes all.
        Cost { flops: scores * (2.0 * (k.shape.last() + v.shape.last()) as f64 + 5.0), ..streaming }
    }
}

fn samples() -> Vec<Sample> {
    let sizes: [[usize; 6]; 7] = [
        [1, 1, 1, 1, 1, 1],
        [2, 3, 5, 7, 3, 3],
        [1, 2, 33, 33, 8, 8],
        [2, 1, 7, 5, 16, 4],
        [1, 1, 3, 65, 5, 2],
        [0, 2, 3, 3, 4, 4],
        [1, 1, 3, 0, 4, 4],
    ];
    let inputs = |[b, h, l, s, d, e]: [usize; 6]| vec![normal([b, h, l, d]), normal_with([b, h, s, d], 2.0, 0.0), normal([b, h, s, e])];
    let mut samples = Vec::new();
    for causal in [false, true] {
        for size @ [batch, _, _, keys, ..] in sizes {
            let operator = ScaledDotProductAttention { causal };
            samples.push(Sample::new(operator, inputs(size)));
            let mask = indices([batch, keys], 2);
            samples.push(Sample::new(operator, inputs(size).into_iter().chain([mask]).collect::<Vec<_>>()));
        }
        let operator = ScaledDotProductAttention { causal };
        samples.push(Sample::new(operator, [normal([1, 2, 5, 4]), Input::Same(0), Input::Same(0)]));
        // The second image's keys are all hidden.
        let hidden = Input::Values(Array::integers([2, 3], vec![1.0, 0.0, 1.0, 0.0, 0.0, 0.0]));
        samples.push(Sample::new(operator, [normal([2, 1, 3, 4]), normal([2, 1, 3, 4]), normal([2, 1, 3, 4]), hidden]));
    }
    samples
}

fn bad() -> Vec<Bad> {
    let operator = ScaledDotProductAttention::default();
    let x = || normal([2, 3, 5, 4]);
    vec![
        Bad::new(operator, [x(), x()], "2 inputs were given"),
        Bad::new(operator, [normal([3, 5, 4]), normal([3, 5, 4]), normal([3, 5, 4])], "expected q [B, H, L, D]"),
        Bad::new(operator, [x(), normal([2, 3, 5, 3]), x()], "expected q [B, H, L, D]"),
        Bad::new(operator, [x(), x(), normal([2, 3, 6, 4])], "expected q [B, H, L, D]"),
        Bad::new(operator, [x(), x(), indices([2, 3, 5, 4], 2)], "floats of one type"),
        Bad::new(operator, [x(), x(), x(), normal([2, 5])], "mask must be i32"),
        Bad::new(operator, [x(), x(), x(), indices([2, 4], 2)], "mask must be [2, 5], found [2, 4]"),
    ]
}

/// The line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["q", "k", "v", "mask"],
        outputs: &["y"],
        kernels: &[KERNELS, gemm::KERNELS],
        build: Box::new(|attributes| Ok(Box::new(ScaledDotProductAttention { causal: attributes.flag("causal")? }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Attention of the queries `self` `[B, H, L, D]` over keys k `[B, H, S, D]` with values v `[B, H, S, E]`:
    /// `softmax(q k^T / sqrt(D)) v`, `[B, H, L, E]` (Vaswani et al. 2017). `mask` `[B, S]` (i32) hides keys where it is 0; `causal` hides
    /// keys after the query's own position. A query that sees no key gives zeros.
    ///
    /// # Errors
    /// Shapes or types that do not fit; out of memory (the scores take `B H L S` elements).
    pub fn scaled_dot_product_attention(&self, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = [self, k, v].into_iter().chain(mask).collect();
        apply_one(ScaledDotProductAttention { causal }, &inputs)
    }
}

//! Scaled dot-product attention: batched products around a row-wise kernel. Scores `[B, H, L, S]`
//! live only while they are used; backward recomputes them, and their softmax from the second
//! output: each row's maximum and sum.

mod launch;
mod spec;

use super::gemm;
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one};
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "scaled_dot_product_attention";

/// Attention. Inputs: q `[B, H, L, D]`, k `[B, H, S, D]`, v `[B, H, S, E]`, optionally mask
/// `[B, S]` (i32; 0 hides a key).
#[derive(Debug, Clone, Copy, Default)]
pub struct ScaledDotProductAttention {
    /// A query sees the keys up to its own position only.
    pub causal: bool,
}

/// Sizes of the inputs, in the order of B, H, L, S, D, E.
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
        let [q, k, v, mask @ ..] = inputs else { return Ok(Vec::new()) };
        let sizes = Sizes::new(q.spec(), k.spec(), v.spec())?;
        launch::forward(self, &sizes, [q, k, v], mask.first().copied(), outputs)
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (q, k, v) = (step.input(0)?, step.input(1)?, step.input(2)?);
        launch::backward(self, &Sizes::new(q.spec(), k.spec(), v.spec())?, [q, k, v], step)
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

    fn autocast(&self) -> Autocast {
        Autocast::Half(3)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        spec::reference(self, inputs)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        spec::cost(inputs, outputs)
    }
}

/// The line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["q", "k", "v", "mask"],
        outputs: &["y"],
        kernels: &[launch::KERNELS, gemm::KERNELS],
        build: Box::new(|attributes| Ok(Box::new(ScaledDotProductAttention { causal: attributes.flag("causal")? }))),
        samples: Box::new(spec::samples),
        bad: Box::new(spec::bad),
    }
}

impl Tensor {
    /// Attention of the queries `self` `[B, H, L, D]` over keys k `[B, H, S, D]` with values v
    /// `[B, H, S, E]`: `softmax(q k^T / sqrt(D)) v`, `[B, H, L, E]` (Vaswani et al. 2017). `mask`
    /// `[B, S]` (i32) hides keys where it is 0; `causal` hides keys after the query's own position.
    /// A query that sees no key gives zeros.
    ///
    /// # Errors
    /// Shapes or types that do not fit; out of memory (the scores take `B H L S` elements).
    pub fn scaled_dot_product_attention(&self, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = [self, k, v].into_iter().chain(mask).collect();
        apply_one(ScaledDotProductAttention { causal }, &inputs)
    }
}

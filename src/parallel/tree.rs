//! Sums in one order.

use crate::autograd;
use crate::error::Result;
use crate::tensor::Tensor;

/// Adds up what shards give, one after the other, as a binary tree over them does: shard 0 and 1,
/// 2 and 3, these two sums, and so on. Floating-point sums depend on how they are grouped, and this
/// grouping does not change where the tree's branches lie on several processes.
#[derive(Default)]
pub struct Tree {
    /// Sums of `1 << level` shards, the levels falling.
    waiting: Vec<(u32, Vec<Tensor>)>,
}

impl Tree {
    /// Adds the next shard's tensors. What is given may be overwritten afterwards.
    ///
    /// # Errors
    /// Tensors of other shapes than those before; out of memory.
    pub fn push(&mut self, values: &[Tensor]) -> Result<()> {
        let (mut level, mut sum) = (0, None);
        while let Some((_, before)) = self.waiting.pop_if(|(of, _)| *of == level) {
            sum = Some(add(&before, sum.as_deref().unwrap_or(values))?);
            level += 1;
        }
        let sum = sum.map_or_else(|| values.iter().map(Tensor::copy).collect(), Ok)?;
        self.waiting.push((level, sum));
        Ok(())
    }

    /// The sums of all that was given, a power of two of shards.
    pub(super) fn finish(mut self) -> Vec<Tensor> {
        self.waiting.pop().map_or_else(Vec::new, |(_, sums)| sums)
    }
}

pub(super) fn add(a: &[Tensor], b: &[Tensor]) -> Result<Vec<Tensor>> {
    a.iter().zip(b).map(|(a, b)| autograd::sum(a, b)).collect()
}

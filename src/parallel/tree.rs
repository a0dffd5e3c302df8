//! Sums in one order.

use crate::autograd;
use crate::error::Result;
use crate::tensor::Tensor;

/// Adds up what shards give, one after the other, as a binary tree over them does: shard 0 and 1,
/// 2 and 3, these two sums, and so on. Floating-point sums depend on how they are grouped, and this
/// grouping does not change where the tree's branches lie on several processes.
#[derive(Default)]
pub(super) struct Tree {
    /// Sums of `1 << level` shards, the levels falling.
    waiting: Vec<(u32, Tensor)>,
}

impl Tree {
    /// Adds the next shard's. What is given may be overwritten afterwards.
    ///
    /// # Errors
    /// A tensor of another shape than those before; out of memory.
    pub fn push(&mut self, value: &Tensor) -> Result<()> {
        let (mut level, mut sum) = (0, None);
        while let Some((_, before)) = self.waiting.pop_if(|(of, _)| *of == level) {
            sum = Some(autograd::sum(&before, sum.as_ref().unwrap_or(value))?);
            level += 1;
        }
        let sum = sum.map_or_else(|| value.copy(), Ok)?;
        self.waiting.push((level, sum));
        Ok(())
    }

    /// The sum of all that was given, a power of two of shards.
    pub fn take(&mut self) -> Option<Tensor> {
        self.waiting.pop().map(|(_, sum)| sum)
    }
}

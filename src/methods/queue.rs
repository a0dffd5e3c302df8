//! A queue of embeddings from earlier steps, which serve as negatives (He et al. 2019,
//! arXiv:1911.05722).

use super::Queue;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

/// It begins as random directions and is filled from its first row on.
pub(super) struct KeyQueue {
    /// `[Q, D]`, rows of length 1.
    pub keys: Tensor,
    /// The row of the oldest key, i32 `[1]`.
    pub cursor: Tensor,
}

impl KeyQueue {
    /// A queue of `rows` keys of `width` numbers.
    pub fn new(gpu: &Gpu, rows: usize, width: usize, seed: u32) -> Result<Self> {
        if rows == 0 {
            return Err(Error::argument("queue", "it needs rows, as many as images in a batch at least"));
        }
        let mut stream = Stream::keyed(seed, Purpose::Initialise.key(), 0);
        let keys = stream.normals(gpu, [rows, width])?.l2_normalize(-1, 1e-12)?;
        let last = i32::try_from(rows).unwrap_or(i32::MAX) - 1;
        let cursor = Tensor::from_slice(gpu, &[0i32], [1])?.with_range(Some((0, last)))?;
        Ok(Self { keys, cursor })
    }

    /// What is watched of it where so many keys enter at each step.
    ///
    /// # Errors
    /// A queue that is no multiple of them.
    pub fn entered_by(&self, entering: usize) -> Result<Queue> {
        let rows = self.keys.shape().dim(0);
        if entering == 0 || !rows.is_multiple_of(entering) {
            let message = format!("{rows} keys must be a multiple of the {entering} that enter at each step");
            return Err(Error::argument("queue", message));
        }
        Ok(Queue { keys: self.keys.clone(), age: rows as f64 / entering as f64 })
    }

    /// The keys nearest to the rows of `z` `[N, D]` by cosine, `[N, D]`; the first where several
    /// are.
    pub fn nearest(&self, z: &Tensor) -> Result<Tensor> {
        self.keys.index_select(0, &z.similarity_matrix(&self.keys, 1.0)?.argmax(-1)?)
    }

    /// Replaces the oldest keys by `keys` `[N, D]`; N divides the queue.
    pub fn push(&self, keys: &Tensor) -> Result<()> {
        self.keys.queue_write_next(keys, &self.cursor)
    }
}

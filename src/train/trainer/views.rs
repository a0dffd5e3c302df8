//! What a step shows the network.

use crate::data::{Augmentation, PackedBatch};
use crate::error::Result;
use crate::gpu::ScalarCell;
use crate::methods::Batch;

/// How images become views.
pub(super) struct Views {
    /// One a view.
    pub augmentations: Vec<Augmentation>,
    /// The epoch, as a captured step finds it.
    pub epoch: ScalarCell<u32>,
}

impl Views {
    /// The views of a batch.
    pub fn of(&self, batch: &PackedBatch) -> Result<Batch> {
        let batch = batch.unpack()?;
        let views = self.augmentations.iter().zip(0..).map(|(view, number)| view.apply(&batch, &self.epoch, number));
        Ok(Batch { views: views.collect::<Result<_>>()?, labels: batch.labels, indices: batch.indices, epoch: (&self.epoch).into() })
    }
}

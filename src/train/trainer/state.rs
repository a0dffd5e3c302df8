//! What a run leaves and goes on from: checkpoints and weights.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::Trainer;
use crate::data::Dataset;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::io::Archive;
use crate::methods::Teacher;
use crate::nn::{Role, state_dict};
use crate::train::changes::data_line;
use crate::train::checkpoint::{Checkpoint, State};

impl Trainer {
    /// A run that goes on from a checkpoint, which holds all weights: the recipe's file is not
    /// looked at again.
    ///
    /// # Errors
    /// As [`Self::new`]; [`Error::Data`](crate::error::Error::Data) where the checkpoint does not fit.
    pub fn resume(gpu: &Gpu, checkpoint: &Checkpoint, dataset: Arc<Dataset>) -> Result<Self> {
        Self::resume_with(gpu, checkpoint, dataset, None)
    }

    /// As [`Self::resume`], taught by `teachers` instead of the runs that the recipe names.
    ///
    /// # Errors
    /// As [`Self::resume`]; [`Error::Data`](crate::error::Error::Data) where they are not those
    /// that the run began with.
    pub fn resume_with_teachers(gpu: &Gpu, checkpoint: &Checkpoint, dataset: Arc<Dataset>, teachers: Vec<Arc<Teacher>>) -> Result<Self> {
        Self::resume_with(gpu, checkpoint, dataset, Some(teachers))
    }

    fn resume_with(gpu: &Gpu, checkpoint: &Checkpoint, dataset: Arc<Dataset>, teachers: Option<Vec<Arc<Teacher>>>) -> Result<Self> {
        let mut trainer = Self::build(gpu, checkpoint.recipe.clone(), dataset, teachers, false)?;
        checkpoint.restore(trainer.state())?;
        trainer.position = checkpoint.position;
        trainer.epoch_loss = checkpoint.epoch_loss;
        trainer.alarm = checkpoint.alarm.clone();
        trainer.looks = checkpoint.validation;
        Ok(trainer)
    }

    /// The state as a checkpoint.
    ///
    /// # Errors
    /// A lost device.
    pub fn checkpoint(&mut self) -> Result<Checkpoint> {
        Checkpoint::capture((self.position, self.epoch_loss, self.alarm.clone(), self.looks), &self.recipe.clone(), self.state())
    }

    fn state(&mut self) -> State<'_> {
        if self.data.is_empty() {
            self.data = data_line(&self.recipe, &self.dataset);
        }
        let Self { params, ema, optimizer, method, teacher_hashes, data, .. } = self;
        State { params, ema: ema.as_ref(), optimizer: optimizer.as_mut(), method: &**method, teachers: teacher_hashes, data }
    }

    /// Writes the weights to use: the averaged ones where there is an average.
    ///
    /// # Errors
    /// A lost device; [`Error::Io`](crate::error::Error::Io).
    pub fn save_weights(&self, path: &Path) -> Result<()> {
        self.weights()?.save(path)
    }

    /// The weights to use.
    pub(super) fn weights(&self) -> Result<Archive> {
        let mut archive = state_dict::to_archive(&self.params)?;
        if let Some(ema) = &self.ema {
            // The file has the network's own running statistics (timm's `exclude_buffers`): they
            // are averages already.
            let averaged = state_dict::to_archive(ema.parameters())?.tensors;
            let values: BTreeSet<String> =
                self.params.slots().into_iter().filter(|s| matches!(s.role, Role::Value(_))).map(|s| s.name).collect();
            archive.tensors.extend(averaged.into_iter().filter(|(name, _)| values.contains(name)));
        }
        Ok(archive)
    }
}

//! Looks at images that are not learnt from, between epochs.

use super::Trainer;
use crate::error::Result;
use crate::train::progress::Progress;
use crate::train::run::RunDirectory;
use crate::train::validation::{Look, Looks, Validator};

impl Trainer {
    /// The same run, judged by `validator` at the end of every
    /// [`every`](crate::train::recipe::tables::ValidationTable::every)th epoch and of the last.
    #[must_use]
    pub fn judged_by(mut self, validator: Option<Box<dyn Validator>>) -> Self {
        self.validator = validator;
        self
    }

    /// What has been found of images that are not learnt from.
    pub fn looks(&self) -> Looks {
        self.looks
    }

    /// Whether the run ends because it learns nothing more of use.
    pub(super) fn has_stopped_early(&self) -> bool {
        let patience = self.recipe.validation.patience;
        patience > 0 && self.looks.worse >= patience
    }

    /// Judges the network behind an epoch, and keeps its weights where they are the best so far.
    pub(super) fn validate(&mut self, progress: &mut Progress, directory: Option<&RunDirectory>) -> Result<()> {
        let (epoch, table) = (self.position.epoch, self.recipe.validation);
        let due = epoch.is_multiple_of(table.every) || epoch == self.recipe.epochs;
        let Some(mut validator) = self.validator.take_if(|_| due) else { return Ok(()) };
        let averaged = self.ema.is_some().then(|| self.weights()).transpose()?;
        let judged = validator.judge(&self.gpu.plain(), self.method.network(), averaged);
        self.validator = Some(validator);
        let (now, averaged) = judged?;
        let look = Look { step: self.position.step, epoch, now, averaged };
        let best = self.looks.add(&look, table.min_delta.into());
        progress.look(&look, best);
        if let Some(directory) = directory {
            directory.append(&look.to_json(best))?;
            if best {
                self.save_weights(&directory.best_weights())?;
            }
        }
        if self.has_stopped_early() {
            progress.note(&format!("stopped early: {} looks were no better than that of epoch {}", self.looks.worse, self.looks.epoch));
        }
        Ok(())
    }
}

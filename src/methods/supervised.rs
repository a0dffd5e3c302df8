//! Learning from labels: cross entropy with label smoothing (Szegedy et al. 2016).

use super::{Batch, Method};
use crate::error::{Error, Result};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module};
use crate::tensor::Tensor;

/// A classifier and its loss.
pub struct Supervised {
    /// The model.
    pub model: Classifier<Box<dyn Backbone>>,
    /// Probability spread evenly over all classes.
    pub label_smoothing: f32,
}

impl Method for Supervised {
    fn name(&self) -> &'static str {
        "supervised"
    }

    fn views(&self) -> u32 {
        1
    }

    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let [images] = batch.views.as_slice() else {
            return Err(Error::argument(self.name(), format!("it takes 1 view, {} were given", batch.views.len())));
        };
        self.model.forward(images, Mode::Train)?.cross_entropy(&batch.labels, self.label_smoothing)
    }
}

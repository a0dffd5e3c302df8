//! SimCLR (Chen et al. 2020, arXiv:2002.05709): two views of an image attract, all others repel, by NT-Xent over a projector.

use super::{Batch, Method};
use crate::error::{Error, Result};
use crate::models::{Backbone, Projector};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::Tensor;

/// How SimCLR is set up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimClrConfig {
    /// Units of the projector's hidden layer.
    pub hidden: usize,
    /// Features that the loss compares.
    pub projection: usize,
    /// Divides the similarities.
    pub temperature: f32,
}

impl Default for SimClrConfig {
    fn default() -> Self {
        Self { hidden: 64, projection: 32, temperature: 0.5 }
    }
}

/// An encoder with a projector. Each view goes through the network on its own, so batch norm sees one view at a time.
pub struct SimClr<B> {
    /// What is kept after training.
    pub encoder: B,
    projector: Projector,
    temperature: f32,
}

impl<B: Backbone> SimClr<B> {
    /// Adds the projector (`proj`) to an encoder made in the scope `params`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, encoder: B, config: SimClrConfig) -> Result<Self> {
        let projector = Projector::new(&params.scope("proj"), encoder.features(), config.hidden, config.projection)?;
        Ok(Self { encoder, projector, temperature: config.temperature })
    }

    /// The projection of a batch of images: `[N, H, W, C]` to `[N, projection]`.
    ///
    /// # Errors
    /// Those of the model's operators.
    pub fn embed(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.projector.forward(&self.encoder.forward(images, mode)?, mode)
    }
}

impl<B: Backbone> Method for SimClr<B> {
    fn name(&self) -> &'static str {
        "simclr"
    }

    fn views(&self) -> u32 {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let [first, second] = batch.views.as_slice() else {
            return Err(Error::argument(self.name(), format!("it takes 2 views, {} were given", batch.views.len())));
        };
        let (z1, z2) = (self.embed(first, Mode::Train)?, self.embed(second, Mode::Train)?);
        z1.nt_xent(&z2, self.temperature)
    }
}

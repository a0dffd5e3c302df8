//! What a network is before it is made: a description whose fields may be changed.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use super::torchvision::Renames;
use super::{Backbone, Classifier};
use crate::error::Result;
use crate::nn::Parameters;
use crate::tensor::InputShape;

/// What may be changed about a named network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelOptions {
    /// Channels of the images.
    pub channels: usize,
    /// Multiplies the network's own width (of a ResNet: the channels of its stages).
    pub width: f64,
    /// Stride of the first convolution; `None` is the network's own. 1 suits images of 32 x 32 and
    /// less.
    pub stem_stride: Option<usize>,
    /// Height and width of the images, where the network depends on them; `None` is its own
    /// resolution.
    pub size: Option<[usize; 2]>,
    /// Tokens of the longest text, where it reads texts; `None` is its own.
    pub length: Option<usize>,
    /// Dropout before the classifier.
    pub drop_rate: f32,
    /// Stochastic depth of the last block; earlier ones have less, in proportion.
    pub drop_path: f32,
    /// Training keeps of each block its input alone, and runs it again on the way back.
    pub checkpoint_blocks: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            channels: 3,
            width: 1.0,
            stem_stride: None,
            size: None,
            length: None,
            drop_rate: 0.0,
            drop_path: 0.0,
            checkpoint_blocks: false,
        }
    }
}

/// A network's structure: the configuration that each family of networks has. What is not said
/// otherwise holds for networks that read images of any size.
pub trait Architecture: Any + Debug + Send + Sync {
    /// Makes the network in the scope `params`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    fn build(&self, params: &Parameters) -> Result<Box<dyn Backbone>>;

    /// What it reads: images of this side and so many channels.
    fn input(&self, side: usize, channels: usize) -> InputShape {
        InputShape::Image([side, side, channels])
    }

    /// The same with other eps and momentum in all batch norms; `None` where it has none.
    fn with_norm(&self, _eps: f32, _momentum: f32) -> Option<Arc<dyn Architecture>> {
        None
    }

    /// What torchvision calls its tensors; `None` where torchvision has no such network.
    fn torchvision(&self) -> Option<Renames> {
        None
    }
}

/// A named network.
#[derive(Debug, Clone)]
pub struct Model {
    /// Side of the images, or length of the texts, that it is meant for.
    pub resolution: usize,
    /// Its structure.
    pub architecture: Arc<dyn Architecture>,
    /// See [`ModelOptions::checkpoint_blocks`].
    pub checkpoint_blocks: bool,
}

impl Model {
    /// A network of this structure, meant for images of this side.
    pub fn new(resolution: usize, architecture: impl Architecture) -> Self {
        Self { resolution, architecture: Arc::new(architecture), checkpoint_blocks: false }
    }

    /// Its configuration, where it is of this family: to change a copy and make another network of
    /// it.
    pub fn config<C: Architecture>(&self) -> Option<&C> {
        let architecture: &dyn Any = &*self.architecture;
        architecture.downcast_ref()
    }

    /// Sets eps and momentum of all batch norms.
    #[must_use]
    pub fn with_norm(self, eps: f32, momentum: f32) -> Self {
        let architecture = self.architecture.with_norm(eps, momentum).unwrap_or(self.architecture);
        Self { architecture, ..self }
    }

    /// What it reads: images of this side and so many channels, or texts.
    pub fn input(&self, side: usize, channels: usize) -> InputShape {
        self.architecture.input(side, channels)
    }

    /// Makes the network in the scope `params`.
    ///
    /// # Errors
    /// As [`Architecture::build`]; checkpoints of a network that has no blocks.
    pub fn build(&self, params: &Parameters) -> Result<Box<dyn Backbone>> {
        let mut backbone = self.architecture.build(params)?;
        backbone.set_grad_checkpointing(self.checkpoint_blocks)?;
        Ok(backbone)
    }

    /// Makes the network with a classifier in the scope `params`.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn classifier(&self, params: &Parameters, classes: usize) -> Result<Classifier<Box<dyn Backbone>>> {
        Classifier::new(params, self.build(params)?, classes)
    }
}

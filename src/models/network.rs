//! A backbone with or without a classifier: what a finished run holds.

use super::{Backbone, Classifier};
use crate::error::Result;
use crate::nn::{Mode, Module, Parameters, Summary};
use crate::tensor::{Shape, Tensor};

/// Images `[N, H, W, C]` to logits `[N, classes]` where there is a classifier, else to features
/// `[N, D]`.
pub enum Network {
    /// Without a classifier.
    Encoder(Box<dyn Backbone>),
    /// With one.
    Classifier(Classifier<Box<dyn Backbone>>),
}

impl Network {
    /// Puts a classifier behind `backbone`, in the same scope, where there are `classes`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, backbone: Box<dyn Backbone>, classes: Option<usize>) -> Result<Self> {
        Ok(match classes {
            Some(classes) => Self::Classifier(Classifier::new(params, backbone, classes)?),
            None => Self::Encoder(backbone),
        })
    }

    /// Images to features.
    pub fn backbone(&self) -> &dyn Backbone {
        match self {
            Self::Encoder(backbone) => backbone,
            Self::Classifier(classifier) => &classifier.backbone,
        }
    }

    /// The classifier, where there is one.
    pub fn classifier(&self) -> Option<&Classifier<Box<dyn Backbone>>> {
        match self {
            Self::Encoder(_) => None,
            Self::Classifier(classifier) => Some(classifier),
        }
    }

    fn module(&self) -> &dyn Module {
        match self {
            Self::Encoder(backbone) => backbone,
            Self::Classifier(classifier) => classifier,
        }
    }
}

impl Module for Network {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.module().forward(x, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        self.module().summarize(input, summary)
    }

    fn fold(&mut self) -> Result<()> {
        match self {
            Self::Encoder(backbone) => backbone.fold(),
            Self::Classifier(classifier) => classifier.fold(),
        }
    }
}

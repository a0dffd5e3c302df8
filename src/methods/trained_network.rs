//! What is left of a method when it has been trained.

use crate::models::{Backbone, Classifier};
use crate::nn::Module;

/// The part of a method that is used after training.
#[derive(Clone, Copy)]
pub enum TrainedNetwork<'a> {
    /// Images to features.
    Encoder(&'a dyn Backbone),
    /// Images to logits.
    Classifier(&'a Classifier<Box<dyn Backbone>>),
}

impl<'a> TrainedNetwork<'a> {
    /// Images to features.
    pub fn encoder(self) -> &'a dyn Backbone {
        match self {
            Self::Encoder(encoder) => encoder,
            Self::Classifier(classifier) => &classifier.backbone,
        }
    }

    /// All of it.
    pub fn module(self) -> &'a dyn Module {
        match self {
            Self::Encoder(encoder) => encoder,
            Self::Classifier(classifier) => classifier,
        }
    }

    /// The scope of the classifier's head, where there is one.
    pub fn heads(self) -> Vec<&'static str> {
        match self {
            Self::Encoder(_) => Vec::new(),
            Self::Classifier(classifier) => vec![classifier.backbone.head()],
        }
    }
}

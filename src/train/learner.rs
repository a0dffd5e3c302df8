//! From a recipe to what is trained.

use super::recipe::Recipe;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::methods::{Method, SimClr, SimClrConfig, Supervised};
use crate::models::{Backbone, Classifier, Model, ModelOptions, model};
use crate::nn::{Module, Parameters};

/// What a recipe's method trains.
pub enum Learner {
    /// A classifier.
    Supervised(Supervised),
    /// An encoder with a projector.
    SimClr(SimClr<Box<dyn Backbone>>),
}

impl Learner {
    /// The method that `train` drives.
    pub fn method(&self) -> &dyn Method {
        match self {
            Learner::Supervised(method) => method,
            Learner::SimClr(method) => method,
        }
    }

    /// What is used after training: the classifier, or the encoder.
    pub fn network(&self) -> &dyn Module {
        match self {
            Learner::Supervised(method) => &method.model,
            Learner::SimClr(method) => &method.encoder,
        }
    }

    /// The scope of what lies behind the backbone: the classifier, or the projector.
    pub fn head(&self) -> &'static str {
        match self {
            Learner::Supervised(method) => method.model.backbone.head(),
            Learner::SimClr(_) => "proj",
        }
    }
}

impl Recipe {
    /// The network for images of `dataset`.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown one.
    pub fn network(&self, dataset: &Dataset) -> Result<Model> {
        let [height, width, channels] = self.input(dataset);
        let options = ModelOptions {
            channels,
            width: f64::from(self.width),
            stem_stride: (self.stem_stride > 0).then_some(self.stem_stride),
            size: Some([height, width]),
            drop_rate: self.drop_rate,
            drop_path: self.drop_path,
        };
        model(&self.model, options)
    }
}

/// The learner that `recipe` describes, for images of `dataset`, in the scope `params`.
///
/// # Errors
/// [`Error::Argument`] for an unknown method or model; out of memory.
pub fn learner(params: &Parameters, recipe: &Recipe, dataset: &Dataset) -> Result<Learner> {
    let encoder = recipe.network(dataset)?.architecture.build(params)?;
    match recipe.method.as_str() {
        "supervised" => {
            let model = Classifier::new(params, encoder, dataset.classes())?;
            Ok(Learner::Supervised(Supervised { model, label_smoothing: recipe.label_smoothing }))
        }
        "simclr" => {
            let config = SimClrConfig { hidden: recipe.projector_hidden, projection: recipe.projection, temperature: recipe.temperature };
            Ok(Learner::SimClr(SimClr::new(params, encoder, config)?))
        }
        other => Err(Error::argument("method", format!("there is no \"{other}\"; there are supervised, simclr"))),
    }
}

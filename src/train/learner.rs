//! From a recipe to what is trained.

use std::sync::Arc;

use super::methods::find;
use super::recipe::Recipe;
use crate::data::Dataset;
use crate::error::Result;
use crate::methods::{Clock, Method, MethodContext, TaskLabels, Teacher};
use crate::models::{Backbone, Model, ModelOptions, model};
use crate::nn::Parameters;
use crate::tensor::InputShape;

impl Recipe {
    /// The network for images of `dataset`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::error::Error::Argument) for an unknown one.
    pub fn network(&self, dataset: &Dataset) -> Result<Model> {
        let (channels, size, length) = match self.input(dataset) {
            InputShape::Image([height, width, channels]) => (channels, Some([height, width]), None),
            InputShape::Tokens(length) => (ModelOptions::default().channels, None, Some(length)),
        };
        let options = ModelOptions {
            channels,
            width: f64::from(self.model.width),
            stem_stride: (self.model.stem_stride > 0).then_some(self.model.stem_stride),
            size,
            length,
            drop_rate: self.model.drop_rate,
            drop_path: self.model.drop_path,
            checkpoint_blocks: self.memory.checkpoint_blocks,
        };
        model(&self.model.name, options)
    }

    /// The same, made in the scope `params`.
    ///
    /// # Errors
    /// As [`Self::network`]; out of memory.
    pub fn encoder(&self, params: &Parameters, dataset: &Dataset) -> Result<Box<dyn Backbone>> {
        self.network(dataset)?.build(params)
    }
}

/// The learner that `recipe` describes, for images of `dataset`, in the scope `params`, taught by
/// `teachers`.
///
/// # Errors
/// [`Error::Argument`](crate::error::Error::Argument) for an unknown method, model or setting; out
/// of memory.
pub fn learner(
    params: &Parameters,
    recipe: &Recipe,
    dataset: &Dataset,
    clock: Clock,
    teachers: Vec<Arc<Teacher>>,
) -> Result<Box<dyn Method>> {
    let network = recipe.network(dataset)?;
    let tasks = dataset.tasks(&recipe.data.tasks)?;
    let context = MethodContext {
        clock,
        classes: dataset.classes(),
        input: recipe.input(dataset),
        seed: recipe.seed,
        shards: recipe.parallel.shards,
        labels: dataset.labels().into(),
        tasks: tasks.into_iter().map(|task| TaskLabels { name: task.name, classes: task.classes.len(), labels: task.labels }).collect(),
        teachers,
    };
    find(&recipe.method.name)?.make(params, &|params| network.build(params), &recipe.method.settings, &context)
}

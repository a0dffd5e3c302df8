//! Judging the network of a run under way by images that it does not learn from.

use std::sync::Arc;

use super::outputs::{evaluate, outputs};
use super::probe::{Features, Neighbours};
use crate::data::{Augmentation, Dataset};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::io::Archive;
use crate::methods::TrainedNetwork;
use crate::models::{Backbone, Network};
use crate::train::Recipe;
use crate::train::validation::{Validator, Verdict};

/// Labelled images that vote, where a method learns features alone.
const VOTERS: usize = 10_000;

/// Top-1, top-5 and loss of a classifier, or how many images have most of their nearest neighbours
/// of their own class, where a method learns features alone.
pub struct Validation {
    recipe: Recipe,
    /// What is judged by.
    images: Arc<Dataset>,
    /// What is learnt from, with true labels.
    train: Arc<Dataset>,
    preprocessing: Augmentation,
}

impl Validation {
    /// By the images of `dataset`, the whole training split, that `recipe` holds out; `None` where it
    /// holds out none.
    ///
    /// # Errors
    /// A class with a single image; those of the preprocessing.
    pub fn new(recipe: &Recipe, dataset: &Arc<Dataset>) -> Result<Option<Self>> {
        let Some(images) = recipe.held_out(dataset)? else { return Ok(None) };
        let train = recipe.chosen(dataset.clone())?;
        let preprocessing = recipe.preprocessing("none", 0, &train)?;
        Ok(Some(Self { recipe: recipe.clone(), images, train, preprocessing }))
    }

    fn verdict(&self, gpu: &Gpu, network: TrainedNetwork) -> Result<Verdict> {
        let TrainedNetwork::Classifier(classifier) = network else { return self.neighbours(gpu, network.encoder()) };
        let found = evaluate(gpu, classifier, &self.images, &self.preprocessing)?;
        let mut figures = vec![("top_1", found.accuracy()), ("loss", found.loss())];
        if self.images.classes() > 5 {
            figures.insert(1, ("top_5", found.top_5()));
        }
        Ok(Verdict { score: found.accuracy(), figures })
    }

    fn neighbours(&self, gpu: &Gpu, encoder: &dyn Backbone) -> Result<Verdict> {
        let features = |images: &Arc<Dataset>| {
            let rows = outputs(gpu, encoder, images, &self.preprocessing, 0)?;
            Ok(Features::new(rows, images.len()))
        };
        let voters = Arc::new(self.train.thinned(VOTERS)?);
        let (labelled, judged) = (features(&voters)?, features(&self.images)?);
        let (labelled, judged) = ((&labelled, voters.labels()), (&judged, self.images.labels()));
        let accuracy = Neighbours::DINO.accuracy(gpu, labelled, judged, self.images.classes())?;
        Ok(Verdict { score: accuracy, figures: vec![("knn", accuracy)] })
    }
}

impl Validator for Validation {
    fn judge(&mut self, gpu: &Gpu, network: TrainedNetwork, averaged: Option<Archive>) -> Result<(Verdict, Option<Verdict>)> {
        let now = self.verdict(gpu, network)?;
        let Some(weights) = averaged else { return Ok((now, None)) };
        let (_, averaged) = self.recipe.network_with(gpu, &self.train, weights, "averaged weights")?;
        let averaged = self.verdict(
            gpu,
            match &averaged {
                Network::Encoder(backbone) => TrainedNetwork::Encoder(backbone),
                Network::Classifier(classifier) => TrainedNetwork::Classifier(classifier),
            },
        )?;
        Ok((now, Some(averaged)))
    }
}

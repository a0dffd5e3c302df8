//! Learning from labels: cross entropy with label smoothing (Szegedy et al. 2016); images whose
//! labels are hidden do not count.

use serde::{Deserialize, Serialize};

use super::{Batch, Build, HIDDEN, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Result, require_share};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};
use crate::ops::loss::cross_entropy::CrossEntropyFuncOptions;

/// How labels are learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisedConfig {
    /// Probability spread evenly over all classes.
    pub label_smoothing: f32,
}

impl Default for SupervisedConfig {
    fn default() -> Self {
        Self { label_smoothing: 0.1 }
    }
}

/// A classifier and its loss.
pub struct Supervised {
    model: Classifier<Box<dyn Backbone>>,
    options: CrossEntropyFuncOptions,
}

impl MethodFactory for Supervised {
    const CARD: MethodCard = MethodCard {
        name: "supervised",
        title: "Supervised learning",
        text: "Learn a classifier from labels",
        supervision: Supervision::Supervised,
        family: "classification",
        year: 1986,
        authors: "Rumelhart, Hinton, Williams",
        paper: "Learning representations by back-propagating errors; label smoothing: Szegedy et al. 2016, arXiv:1512.00567",
        related: &["distillation", "supcon"],
    };

    const MIN_BATCH: usize = 1;

    type Config = SupervisedConfig;

    fn new(params: &Parameters, build: Build, config: SupervisedConfig, context: &MethodContext) -> Result<Self> {
        require_share(Self::CARD.name, "label_smoothing", config.label_smoothing)?;
        let model = Classifier::new(params, build(params)?, context.classes)?;
        let ignore_index = context.labels.contains(&HIDDEN).then_some(HIDDEN);
        Ok(Self { model, options: CrossEntropyFuncOptions { label_smoothing: config.label_smoothing, ignore_index } })
    }
}

impl Method for Supervised {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        Ok(TrainStep::new(self.model.forward(images, Mode::Train)?.cross_entropy_with(&batch.labels, &self.options)?, []))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }
}

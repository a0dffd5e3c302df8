//! Learning from labels: cross entropy with label smoothing (Szegedy et al. 2016), perhaps of
//! images that are mixed by mixup or CutMix; images whose labels are hidden do not count.

use serde::{Deserialize, Serialize};

use super::mixing::Mixing;
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
    /// mixup (Zhang et al. 2018): lambda is drawn from Beta(`mixup`, `mixup`) for each step; 0 for
    /// none. As in timm, an image is mixed with that at its place from the batch's end.
    pub mixup: f32,
    /// CutMix (Yun et al. 2019), likewise: lambda is the share that a box of the other image leaves.
    pub cutmix: f32,
    /// The chance of a step to mix at all.
    pub mixup_prob: f32,
    /// The chance of CutMix where a step may do either.
    pub mixup_switch_prob: f32,
}

impl Default for SupervisedConfig {
    fn default() -> Self {
        Self { label_smoothing: 0.1, mixup: 0.0, cutmix: 0.0, mixup_prob: 1.0, mixup_switch_prob: 0.5 }
    }
}

/// A classifier and its loss.
pub struct Supervised {
    model: Classifier<Box<dyn Backbone>>,
    options: CrossEntropyFuncOptions,
    mixing: Option<Mixing>,
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
        paper: "Learning representations by back-propagating errors; label smoothing: Szegedy et al. 2016, arXiv:1512.00567; mixup: Zhang et al. 2018, arXiv:1710.09412; CutMix: Yun et al. 2019, arXiv:1905.04899",
        related: &["distillation", "supcon"],
    };

    const MIN_BATCH: usize = 1;

    type Config = SupervisedConfig;

    fn new(params: &Parameters, build: Build, config: SupervisedConfig, context: &MethodContext) -> Result<Self> {
        require_share(Self::CARD.name, "label_smoothing", config.label_smoothing)?;
        let mixing = Mixing::new(Self::CARD.name, &config, context)?;
        let model = Classifier::new(params, build(params)?, context.classes)?;
        let ignore_index = context.labels.contains(&HIDDEN).then_some(HIDDEN);
        Ok(Self { model, options: CrossEntropyFuncOptions { label_smoothing: config.label_smoothing, ignore_index }, mixing })
    }
}

impl Method for Supervised {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let loss = match &self.mixing {
            Some(mixing) => {
                let (mixed, targets) = mixing.mix(images, &batch.labels)?;
                self.model.forward(&mixed, Mode::Train)?.soft_cross_entropy(&targets)?
            }
            None => self.model.forward(images, Mode::Train)?.cross_entropy_with(&batch.labels, &self.options)?,
        };
        Ok(TrainStep::new(loss, []))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }
}

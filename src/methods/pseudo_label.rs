//! Pseudo-labels (Lee 2013): what the network itself thinks is likeliest is the label of an image
//! without one. The loss is the paper's equation 15: mean cross entropy of the images with labels,
//! plus alpha(t) times that of the others, each against the network's answer of this very step. Lee
//! counts t in absolute epochs (100 to 600, alpha 3 at the end); here it is the part of the run.
//!
//! Images with and without labels go through the network in one pass, so batch norm sees both.

use serde::{Deserialize, Serialize};

use super::aligned_teacher::known_cross_entropy;
use super::unlabelled::{PseudoLabels, ScheduledWeight, share, unlabelled_rows};
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result, require_not_negative};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};

/// How pseudo-labels are learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PseudoLabelConfig {
    /// The weight of pseudo-labels at the end, the paper's alpha.
    pub weight: f32,
    /// The part of the run before which it is 0.
    pub from: f32,
    /// The part from which on it is whole; it rises in a straight line in between.
    pub to: f32,
    /// PseudoLabels with a smaller probability are not learnt from; the paper has no such
    /// threshold: 0.
    pub threshold: f32,
}

impl Default for PseudoLabelConfig {
    fn default() -> Self {
        Self { weight: 3.0, from: 0.1, to: 0.6, threshold: 0.0 }
    }
}

impl PseudoLabelConfig {
    /// The weight at a part of the run, 0 to 1.
    pub fn at(&self, part: f32) -> f32 {
        let risen = (part - self.from) / (self.to - self.from);
        if part >= self.to { self.weight } else { self.weight * risen.clamp(0.0, 1.0) }
    }
}

/// A classifier that believes itself more and more.
pub struct PseudoLabel {
    model: Classifier<Box<dyn Backbone>>,
    targets: PseudoLabels,
    weight: ScheduledWeight,
}

impl MethodFactory for PseudoLabel {
    const CARD: MethodCard = MethodCard {
        name: "pseudo_label",
        title: "Pseudo-Label",
        text: "The network's own answers are the labels of images without",
        supervision: Supervision::SemiSupervised,
        family: "self-training",
        year: 2013,
        authors: "Lee",
        paper: "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks, ICML 2013 workshop",
        related: &["fixmatch", "mean_teacher", "supervised"],
    };

    type Config = PseudoLabelConfig;

    fn new(params: &Parameters, build: Build, config: PseudoLabelConfig, context: &MethodContext) -> Result<Self> {
        require_not_negative(Self::CARD.name, "weight", config.weight)?;
        let (from, to) = (share("from", config.from)?, share("to", config.to)?);
        if from > to {
            return Err(Error::argument("from", format!("expected at most `to`, {to}, found {from}")));
        }
        let model = Classifier::new(params, build(params)?, context.classes)?;
        let targets = PseudoLabels::new(params.gpu(), context.classes, config.threshold)?;
        let steps = context.clock.steps.max(1) as f32;
        let weight = ScheduledWeight::new(params.gpu(), context.clock.step.scalar().map(move |step| config.at(step as f32 / steps)))?;
        Ok(Self { model, targets, weight })
    }
}

impl Method for PseudoLabel {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let logits = self.model.forward(images, Mode::Train)?;
        let labelled = known_cross_entropy(&logits, &batch.labels)?;
        let unlabelled = unlabelled_rows(&batch.labels)?;
        let targets = self.targets.of(&logits)?.mul(&unlabelled)?;
        // The operator's mean is over all rows; that of those without labels is wanted. Where there
        // are none, it is 0.
        let rows = unlabelled.mean(&[0, 1], false)?.clamp(f32::EPSILON, 1.0)?;
        let unlabelled = logits.soft_cross_entropy(&targets)?.div(&rows)?;
        let loss = labelled.add(&self.weight.times(&unlabelled)?)?;
        let parts = vec![("labelled".into(), labelled.detach()), ("unlabelled".into(), unlabelled.detach())];
        Ok(TrainStep { parts, ..TrainStep::new(loss, []) })
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("unlabelled_weight", self.weight.value())]
    }
}

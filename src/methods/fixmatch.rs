//! FixMatch (Sohn et al. 2020, arXiv:2001.07685): what the network is sure of on a weak view is the
//! label of a strong view. The loss is the mean cross entropy of the weak views whose label is
//! known, plus the weight times the mean over all images of the strong views' cross entropy against
//! the weak view's answer, which counts 0 where that is less sure than the threshold. Images with
//! labels are among these, as in the paper, whose unlabelled set holds them, too. The recipe's
//! `labelled_batch` and `batch` give the paper's mu: (batch - labelled_batch) / labelled_batch.
//!
//! All views go through the network in one pass, so batch norm sees weak and strong ones together,
//! as in the authors' code.

use serde::{Deserialize, Serialize};

use super::aligned_teacher::known_cross_entropy;
use super::unlabelled::PseudoLabels;
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Result, require_not_negative};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::Tensor;

/// How FixMatch is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixMatchConfig {
    /// The least probability of an answer that is learnt from.
    pub threshold: f32,
    /// The weight of strong views.
    pub weight: f32,
}

impl Default for FixMatchConfig {
    fn default() -> Self {
        Self { threshold: 0.95, weight: 1.0 }
    }
}

/// A classifier that teaches itself on what it is sure of.
pub struct FixMatch {
    model: Classifier<Box<dyn Backbone>>,
    targets: PseudoLabels,
    weight: f32,
}

impl MethodFactory for FixMatch {
    const CARD: MethodCard = MethodCard {
        name: "fixmatch",
        title: "FixMatch",
        text: "Sure answers on weak views are the labels of strong views",
        supervision: Supervision::SemiSupervised,
        family: "self-training",
        year: 2020,
        authors: "Sohn, Berthelot, Li, Zhang, Carlini and others",
        paper: "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence, arXiv:2001.07685",
        related: &["pseudo_label", "mean_teacher"],
    };

    type Config = FixMatchConfig;

    fn new(params: &Parameters, build: Build, config: FixMatchConfig, context: &MethodContext) -> Result<Self> {
        require_not_negative(Self::CARD.name, "weight", config.weight)?;
        let model = Classifier::new(params, build(params)?, context.classes)?;
        let targets = PseudoLabels::new(params.gpu(), context.classes, config.threshold)?;
        Ok(Self { model, targets, weight: config.weight })
    }
}

impl Method for FixMatch {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [weak, strong] = batch.exactly(self.name())?;
        let n = weak.shape().dim(0);
        let logits = self.model.forward(&Tensor::concat(&[weak, strong], 0)?, Mode::Train)?;
        let (weak, strong) = (logits.slice(0, 0, n)?, logits.slice(0, n, 2 * n)?);
        let labelled = known_cross_entropy(&weak, &batch.labels)?;
        let targets = self.targets.of(&weak)?;
        let unlabelled = strong.soft_cross_entropy(&targets)?;
        let loss = labelled.add(&unlabelled.mul_scalar(self.weight)?)?;
        let sure = targets.sum(&[1], false)?.mean(&[0], false)?;
        let parts = vec![("labelled".into(), labelled.detach()), ("unlabelled".into(), unlabelled.detach()), ("sure".into(), sure)];
        Ok(TrainStep { parts, ..TrainStep::new(loss, []) })
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }
}

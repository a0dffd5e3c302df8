//! Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384): two students learn from the labels
//! and from each other, `CE + KL(other || own)` each, at temperature 1. Both are updated at once,
//! where the paper's code takes turns; a student does not move the other's answers. The first is
//! kept.

use serde::{Deserialize, Serialize};

use super::aligned_teacher::known_cross_entropy;
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Result, require_not_negative, require_positive};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};

/// How students learn from each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MutualConfig {
    /// Divides the logits of both.
    pub temperature: f32,
    /// The other's weight beside the labels'.
    pub weight: f32,
}

impl Default for MutualConfig {
    fn default() -> Self {
        Self { temperature: 1.0, weight: 1.0 }
    }
}

/// Two students.
pub struct Mutual {
    student: Classifier<Box<dyn Backbone>>,
    peer: Classifier<Box<dyn Backbone>>,
    config: MutualConfig,
}

impl Mutual {
    const PEER: &'static str = "peer";
}

impl MethodFactory for Mutual {
    const CARD: MethodCard = MethodCard {
        name: "mutual",
        title: "Deep mutual learning",
        text: "Two students learn from the labels and from each other",
        supervision: Supervision::Distillation,
        family: "online",
        year: 2017,
        authors: "Zhang, Xiang, Hospedales, Lu",
        paper: "Deep Mutual Learning, arXiv:1706.00384",
        related: &["distillation", "self_distillation"],
    };

    const HEADS: &'static [&'static str] = &[Self::PEER];

    type Config = MutualConfig;

    fn new(params: &Parameters, build: Build, config: MutualConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        require_not_negative(Self::CARD.name, "weight", config.weight)?;
        let make = |params: &Parameters| Classifier::new(params, build(params)?, context.classes);
        Ok(Self { student: make(params)?, peer: make(&params.scope(Self::PEER))?, config })
    }
}

impl Method for Mutual {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let MutualConfig { temperature, weight } = self.config;
        let (own, other) = (self.student.forward(images, Mode::Train)?, self.peer.forward(images, Mode::Train)?);
        let hard = known_cross_entropy(&own, &batch.labels)?.add(&known_cross_entropy(&other, &batch.labels)?)?;
        let soft = own.distillation_kl(&other.detach(), temperature)?.add(&other.distillation_kl(&own.detach(), temperature)?)?;
        let loss = hard.add(&soft.mul_scalar(weight)?)?;
        Ok(TrainStep { parts: vec![("hard".into(), hard), ("soft".into(), soft)], ..TrainStep::new(loss, []) })
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.student)
    }

    fn heads(&self) -> Vec<&str> {
        vec![self.student.backbone.head(), Self::PEER]
    }
}

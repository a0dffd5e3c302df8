//! Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv:1503.02531):
//! `(1 - soft_weight) CE + soft_weight T^2 KL(teacher || student)`, both of them means over the
//! batch. The divergence has the factor T^2 and is a sum over classes (`batchmean`); torchdistill
//! and RepDistiller have the same, timm's default is T = 1. Hidden labels do not count: at a soft
//! weight of 1, or where no label is known, the teacher alone speaks.

use serde::{Deserialize, Serialize};

use super::aligned_teacher::{AlignedTeacher, known_cross_entropy};
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result, require_positive};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};

/// How a teacher's logits are learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillationConfig {
    /// Divides the logits of both.
    pub temperature: f32,
    /// The teacher's part of the loss; the labels' is the rest.
    pub soft_weight: f32,
}

impl Default for DistillationConfig {
    fn default() -> Self {
        Self { temperature: 4.0, soft_weight: 0.9 }
    }
}

/// A student and its teacher.
pub struct Distillation {
    student: Classifier<Box<dyn Backbone>>,
    teacher: AlignedTeacher,
    config: DistillationConfig,
}

impl MethodFactory for Distillation {
    const CARD: MethodCard = MethodCard {
        name: "distillation",
        title: "Knowledge distillation",
        text: "Learn a teacher's softened answers, and labels where they are known",
        supervision: Supervision::Distillation,
        family: "logits",
        year: 2015,
        authors: "Hinton, Vinyals, Dean",
        paper: "Distilling the Knowledge in a Neural Network, arXiv:1503.02531; born again: Furlanello et al. 2018, arXiv:1805.04770",
        related: &["decoupled_distillation", "self_distillation", "mutual", "supervised"],
    };

    type Config = DistillationConfig;

    fn uses_labels(config: &DistillationConfig) -> bool {
        config.soft_weight < 1.0
    }

    fn new(params: &Parameters, build: Build, config: DistillationConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        if !(0.0..=1.0).contains(&config.soft_weight) {
            return Err(Error::argument("soft_weight", format!("expected 0 to 1, found {}", config.soft_weight)));
        }
        let teacher = AlignedTeacher::new(Self::CARD.name, context)?;
        Ok(Self { student: Classifier::new(params, build(params)?, context.classes)?, teacher, config })
    }
}

impl Method for Distillation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let DistillationConfig { temperature, soft_weight } = self.config;
        let logits = self.student.forward(images, Mode::Train)?;
        let soft = logits.distillation_kl(&self.teacher.logits(images, batch)?, temperature)?;
        let weighted = soft.mul_scalar(soft_weight)?;
        if soft_weight == 1.0 {
            return Ok(TrainStep::new(weighted, []));
        }
        let hard = known_cross_entropy(&logits, &batch.labels)?;
        let loss = weighted.add(&hard.mul_scalar(1.0 - soft_weight)?)?;
        Ok(TrainStep { parts: vec![("soft".into(), soft), ("hard".into(), hard)], ..TrainStep::new(loss, []) })
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.student)
    }
}

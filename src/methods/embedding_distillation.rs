//! Self-supervised distillation by regression (SimReg; Navaneet et al. 2022, arXiv:2201.05131): a
//! student's features, behind a linear `regressor`, become a teacher's, which may have learnt
//! without labels. The loss is the mean squared error of rows of length 1, 2 - 2 cos, mean over the
//! batch; the paper finds regressors of several layers better. No label is looked at.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::aligned_teacher::{REGRESSOR, only_teacher};
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, Teacher, TrainStep, TrainedNetwork};
use crate::error::Result;
use crate::models::Backbone;
use crate::nn::{Linear, Mode, Module, Parameters};

/// It has no settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddingDistillationConfig {}

/// A student and its teacher.
pub struct EmbeddingDistillation {
    student: Box<dyn Backbone>,
    regressor: Linear,
    teacher: Arc<Teacher>,
}

impl MethodFactory for EmbeddingDistillation {
    const CARD: MethodCard = MethodCard {
        name: "embedding_distillation",
        title: "Embedding distillation",
        text: "Learn a teacher's features without any label",
        supervision: Supervision::Distillation,
        family: "features",
        year: 2022,
        authors: "Navaneet, Koohpayegani, Tejankar, Pirsiavash",
        paper: "SimReg: Regression as a Simple Yet Effective Tool for Self-supervised Knowledge Distillation, arXiv:2201.05131",
        related: &["feature_distillation", "contrastive_distillation", "byol"],
    };

    const TEACHER_LOGITS: bool = false;

    const HEADS: &'static [&'static str] = &[REGRESSOR];

    type Config = EmbeddingDistillationConfig;

    fn uses_labels(_config: &EmbeddingDistillationConfig) -> bool {
        false
    }

    fn new(params: &Parameters, build: Build, _: EmbeddingDistillationConfig, context: &MethodContext) -> Result<Self> {
        let teacher = only_teacher(Self::CARD.name, context)?;
        let student = build(params)?;
        let regressor = Linear::new(params, REGRESSOR, student.features(), teacher.network().backbone().features())?;
        Ok(Self { student, regressor, teacher })
    }
}

impl Method for EmbeddingDistillation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let embedding = self.regressor.forward(&self.student.forward(images, Mode::Train)?, Mode::Train)?;
        let wanted = self.teacher.features(images)?;
        Ok(TrainStep::new(embedding.byol_loss(&wanted)?, []))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.student)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }
}

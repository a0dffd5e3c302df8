//! Contrastive representation distillation (Tian, Krishnan and Isola 2019, arXiv:1910.10699) in its
//! InfoNCE form: the student's embedding of an image should be nearer to the teacher's features of
//! it than to those of the images before it, which a queue holds. It differs from the authors'
//! code, which draws 16384 negatives of other classes from a memory of all images, estimates by
//! NCE, learns projections of both networks and adds the other direction: here negatives are of any
//! class, the teacher's features are projected by nobody, and only the student has a `regressor`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::aligned_teacher::{REGRESSOR, known_cross_entropy, only_teacher};
use super::queue::KeyQueue;
use super::{Batch, Build, Kept, Method, MethodCard, MethodContext, MethodFactory, Supervision, Teacher, TrainStep, TrainedNetwork};
use crate::error::{Result, require_not_negative, require_positive};
use crate::models::{Backbone, Classifier};
use crate::nn::{Linear, Mode, Module, Parameters};
use crate::tensor::Tensor;

/// How embeddings are contrasted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveDistillationConfig {
    /// Divides the similarities.
    pub temperature: f32,
    /// The teacher's weight beside the labels'.
    pub weight: f32,
    /// The teacher's features in the queue.
    pub queue: usize,
}

impl Default for ContrastiveDistillationConfig {
    fn default() -> Self {
        Self { temperature: 0.07, weight: 0.8, queue: 4096 }
    }
}

/// A classifier, and a queue of what its teacher said of earlier images.
pub struct ContrastiveDistillation {
    student: Classifier<Box<dyn Backbone>>,
    teacher: Arc<Teacher>,
    regressor: Linear,
    queue: KeyQueue,
    config: ContrastiveDistillationConfig,
}

impl MethodFactory for ContrastiveDistillation {
    const CARD: MethodCard = MethodCard {
        name: "contrastive_distillation",
        title: "Contrastive representation distillation",
        text: "Embed each image nearer to the teacher's features of it than to those of others",
        supervision: Supervision::Distillation,
        family: "contrastive",
        year: 2019,
        authors: "Tian, Krishnan, Isola",
        paper: "Contrastive Representation Distillation, arXiv:1910.10699",
        related: &["feature_distillation", "embedding_distillation", "moco"],
    };

    const TEACHER_LOGITS: bool = false;

    const HEADS: &'static [&'static str] = &[REGRESSOR];

    type Config = ContrastiveDistillationConfig;

    fn new(params: &Parameters, build: Build, config: ContrastiveDistillationConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        require_not_negative(Self::CARD.name, "weight", config.weight)?;
        let teacher = only_teacher(Self::CARD.name, context)?;
        let student = Classifier::new(params, build(params)?, context.classes)?;
        let width = teacher.network().backbone().features();
        let regressor = Linear::new(params, REGRESSOR, student.backbone.features(), width)?;
        let queue = KeyQueue::new(params.gpu(), config.queue, width, context.seed)?;
        Ok(Self { student, teacher, regressor, queue, config })
    }
}

impl Method for ContrastiveDistillation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let [features, logits] = self.student.features_and_logits(images, Mode::Train)?;
        let wanted = self.teacher.features(images)?.l2_normalize(-1, 1e-12)?;
        let embedding = self.regressor.forward(&features, Mode::Train)?;
        let contrast = embedding.info_nce_queue(&wanted, &self.queue.keys, self.config.temperature)?;
        let hard = known_cross_entropy(&logits, &batch.labels)?;
        let loss = hard.add(&contrast.mul_scalar(self.config.weight)?)?;
        let parts = vec![("hard".into(), hard), ("contrast".into(), contrast)];
        Ok(TrainStep { parts, kept: Kept::new(wanted), ..TrainStep::new(loss, []) })
    }

    fn after_update(&self, step: &TrainStep) -> Result<()> {
        self.queue.push(step.kept.get::<Tensor>()?)
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.student)
    }

    fn heads(&self) -> Vec<&str> {
        vec![self.student.backbone.head(), REGRESSOR]
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        vec![("negatives".into(), self.queue.keys.clone()), ("cursor".into(), self.queue.cursor.clone())]
    }
}

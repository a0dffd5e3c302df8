//! Self-distillation by an average of one's own weights: the teacher is the student's moving
//! average (Tarvainen and Valpola 2017, arXiv:1703.01780), and its softened logits for the same
//! view are learnt beside the labels: `CE + soft_weight T^2 KL(teacher || student)`. Teachers over
//! time in general: "temporal self-distillation". The average moves behind the optimizer's update;
//! its batch norms see the batch.

use serde::{Deserialize, Serialize};

use super::aligned_teacher::known_cross_entropy;
use super::{
    Batch, Build, EmaTeacher, EmaTeacherConfig, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork,
};
use crate::error::{Result, require_positive, require_share};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};

/// How a student teaches itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfDistillationConfig {
    /// Divides the logits of both.
    pub temperature: f32,
    /// The teacher's weight beside the labels'.
    pub soft_weight: f32,
    /// The average.
    pub teacher: EmaTeacherConfig,
}

impl Default for SelfDistillationConfig {
    fn default() -> Self {
        Self { temperature: 2.0, soft_weight: 1.0, teacher: EmaTeacherConfig { momentum: 0.99, momentum_end: 0.999 } }
    }
}

/// A student and its average.
pub struct SelfDistillation {
    student: Classifier<Box<dyn Backbone>>,
    teacher: EmaTeacher<Classifier<Box<dyn Backbone>>>,
    config: SelfDistillationConfig,
}

impl MethodFactory for SelfDistillation {
    const CARD: MethodCard = MethodCard {
        name: "self_distillation",
        title: "Self-distillation",
        text: "Learn from labels and from one's own average over time",
        supervision: Supervision::Distillation,
        family: "online",
        year: 2017,
        authors: "Tarvainen, Valpola",
        paper: "Mean teachers are better role models, arXiv:1703.01780, with all labels and softened logits",
        related: &["mean_teacher", "mutual", "distillation", "byol"],
    };

    type Config = SelfDistillationConfig;

    fn new(params: &Parameters, build: Build, config: SelfDistillationConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        require_share(Self::CARD.name, "soft_weight", config.soft_weight)?;
        let make = |params: &Parameters| Classifier::new(params, build(params)?, context.classes);
        let student = make(params)?;
        Ok(Self { student, teacher: EmaTeacher::new(params, config.teacher, &context.clock, make)?, config })
    }
}

impl Method for SelfDistillation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let SelfDistillationConfig { temperature, soft_weight, .. } = self.config;
        let logits = self.student.forward(images, Mode::Train)?;
        let soft = logits.distillation_kl(&self.teacher.network.forward(images, Mode::Train)?, temperature)?;
        let hard = known_cross_entropy(&logits, &batch.labels)?;
        let loss = hard.add(&soft.mul_scalar(soft_weight)?)?;
        Ok(TrainStep { parts: vec![("hard".into(), hard), ("soft".into(), soft)], ..TrainStep::new(loss, []) })
    }

    fn after_update(&self, _step: &TrainStep) -> Result<()> {
        self.teacher.update()
    }

    fn begin(&self) -> Result<()> {
        self.teacher.reset()
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.student)
    }

    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        vec![("teacher", self.teacher.parameters())]
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("teacher_momentum", self.teacher.momentum())]
    }
}

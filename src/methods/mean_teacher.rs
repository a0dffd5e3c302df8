//! Mean teacher (Tarvainen and Valpola 2017, arXiv:1703.01780): the network and its moving average
//! should say the same of two views of an image. The loss is the mean cross entropy of the rows
//! whose label is known, plus the weight times the squared error of the two softmaxes, its mean
//! over all rows and classes (the authors' `softmax_mse_loss`), those with labels included. The
//! weight rises as exp(-5 (1 - t)^2).
//!
//! The student sees the first view of all images in one pass, the teacher the second, each on the
//! batch statistics of its own pass; the average moves after the optimizer's update. What a run
//! keeps is the student: set the recipe's `ema` to the same momentum to keep the average, as the
//! paper does.

use serde::{Deserialize, Serialize};

use super::aligned_teacher::known_cross_entropy;
use super::unlabelled::{ScheduledWeight, share};
use super::{
    Batch, Build, EmaTeacher, EmaTeacherConfig, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork,
};
use crate::error::{Result, require_not_negative};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};

/// How a mean teacher is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeanTeacherConfig {
    /// The weight of the squared error once it is whole; the paper's is 100 on CIFAR-10.
    pub consistency: f32,
    /// The part of the run over which it rises; 0: it is whole from the start.
    pub ramp_up: f32,
    /// The average.
    pub teacher: EmaTeacherConfig,
}

impl Default for MeanTeacherConfig {
    fn default() -> Self {
        Self { consistency: 100.0, ramp_up: 0.3, teacher: EmaTeacherConfig { momentum: 0.99, momentum_end: 0.99 } }
    }
}

impl MeanTeacherConfig {
    /// The weight at a part of the run, 0 to 1.
    pub fn at(&self, part: f32) -> f32 {
        let left = if part < self.ramp_up { 1.0 - part / self.ramp_up } else { 0.0 };
        self.consistency * (-5.0 * left * left).exp()
    }
}

/// A classifier and its average.
pub struct MeanTeacher {
    model: Classifier<Box<dyn Backbone>>,
    teacher: EmaTeacher<Classifier<Box<dyn Backbone>>>,
    weight: ScheduledWeight,
}

impl MethodFactory for MeanTeacher {
    const CARD: MethodCard = MethodCard {
        name: "mean_teacher",
        title: "Mean Teacher",
        text: "Say of every image what the average network says of another view",
        supervision: Supervision::SemiSupervised,
        family: "consistency",
        year: 2017,
        authors: "Tarvainen, Valpola",
        paper: "Mean teachers are better role models, arXiv:1703.01780",
        related: &["pseudo_label", "fixmatch", "byol"],
    };

    type Config = MeanTeacherConfig;

    fn new(params: &Parameters, build: Build, config: MeanTeacherConfig, context: &MethodContext) -> Result<Self> {
        require_not_negative(Self::CARD.name, "consistency", config.consistency)?;
        share("ramp_up", config.ramp_up)?;
        let classifier = |params: &Parameters| Classifier::new(params, build(params)?, context.classes);
        let model = classifier(params)?;
        let teacher = EmaTeacher::new(params, config.teacher, &context.clock, classifier)?;
        let steps = context.clock.steps.max(1) as f32;
        let weight = ScheduledWeight::new(params.gpu(), context.clock.step.scalar().map(move |step| config.at(step as f32 / steps)))?;
        Ok(Self { model, teacher, weight })
    }
}

impl Method for MeanTeacher {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [first, second] = batch.exactly(self.name())?;
        let logits = self.model.forward(first, Mode::Train)?;
        let said = self.teacher.network.forward(second, Mode::Train)?.softmax(-1)?;
        let labelled = known_cross_entropy(&logits, &batch.labels)?;
        let consistency = logits.softmax(-1)?.mse_loss(&said)?;
        let loss = labelled.add(&self.weight.times(&consistency)?)?;
        let parts = vec![("labelled".into(), labelled.detach()), ("consistency".into(), consistency.detach())];
        Ok(TrainStep { parts, ..TrainStep::new(loss, []) })
    }

    fn after_update(&self, _step: &TrainStep) -> Result<()> {
        self.teacher.update()
    }

    fn begin(&self) -> Result<()> {
        self.teacher.reset()
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }

    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        vec![("teacher", self.teacher.parameters())]
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("consistency_weight", self.weight.value()), ("teacher_momentum", self.teacher.momentum())]
    }
}

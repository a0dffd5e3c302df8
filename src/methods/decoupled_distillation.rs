//! Decoupled knowledge distillation (Zhao et al. 2022, arXiv:2203.08679): what the teacher says of
//! the true class against all others (TCKD), and of the others among themselves (NCKD), weighed
//! apart; plain distillation is TCKD + (1 - p_t) NCKD. The loss is `CE + T^2 (alpha TCKD + beta
//! NCKD)`, means over the batch. The binary distribution comes from logsumexp differences, and the
//! others are gathered: the authors' code takes the logarithm of a sum of probabilities, which
//! underflows, and masks the true class by -1000.

use serde::{Deserialize, Serialize};

use super::aligned_teacher::AlignedTeacher;
use super::{Batch, Build, HIDDEN, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result, require_not_negative, require_positive};
use crate::gpu::Scalar;
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::Tensor;

/// How the parts are weighed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoupledDistillationConfig {
    /// Divides the logits of both.
    pub temperature: f32,
    /// The weight of the true class against the others.
    pub alpha: f32,
    /// The weight of the others among themselves.
    pub beta: f32,
    /// Epochs over which the teacher's part rises to its weight, in even steps of one.
    pub warm_up_epochs: u32,
}

impl Default for DecoupledDistillationConfig {
    fn default() -> Self {
        Self { temperature: 4.0, alpha: 1.0, beta: 8.0, warm_up_epochs: 0 }
    }
}

/// A student and its teacher.
pub struct DecoupledDistillation {
    student: Classifier<Box<dyn Backbone>>,
    teacher: AlignedTeacher,
    /// The classes other than each, i32 `[C, C - 1]`.
    others: Tensor,
    /// The share of its weight that the teacher's part has at present, and where the device finds
    /// it.
    rise: Scalar,
    risen: Tensor,
    config: DecoupledDistillationConfig,
}

impl MethodFactory for DecoupledDistillation {
    const CARD: MethodCard = MethodCard {
        name: "decoupled_distillation",
        title: "Decoupled knowledge distillation",
        text: "Weigh a teacher's word on the true class and on all others apart",
        supervision: Supervision::Distillation,
        family: "logits",
        year: 2022,
        authors: "Zhao, Cui, Song, Qiu, Liang",
        paper: "Decoupled Knowledge Distillation, arXiv:2203.08679",
        related: &["distillation"],
    };

    type Config = DecoupledDistillationConfig;

    fn new(params: &Parameters, build: Build, config: DecoupledDistillationConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        require_not_negative(Self::CARD.name, "alpha", config.alpha)?;
        require_not_negative(Self::CARD.name, "beta", config.beta)?;
        let name = Self::CARD.name;
        if context.labels.contains(&HIDDEN) {
            let message = "it needs the label of every image, and some are hidden; `distillation` does without";
            return Err(Error::argument(name, message));
        }
        if context.classes < 2 {
            return Err(Error::argument(name, "it needs two classes at least"));
        }
        let teacher = AlignedTeacher::new(name, context)?;
        let student = Classifier::new(params, build(params)?, context.classes)?;
        let classes = i32::try_from(context.classes).unwrap_or(i32::MAX);
        let others: Vec<i32> = (0..classes).flat_map(|class| (0..classes).filter(move |other| *other != class)).collect();
        let others = Tensor::from_slice(params.gpu(), &others, [context.classes, context.classes - 1])?;
        let (each, epochs) = (context.clock.steps_per_epoch.max(1), config.warm_up_epochs.max(1));
        let rise = context.clock.step.scalar().map(move |step| ((step / each + 1) as f32 / epochs as f32).min(1.0));
        let risen = Tensor::zeros(params.gpu(), [1], crate::tensor::DType::F32)?;
        Ok(Self { student, teacher, others, rise, risen, config })
    }
}

/// TCKD and NCKD with the factor T^2, of `student` and `teacher` logits `[N, C]` for `labels`
/// `[N]`; `others` `[C, C - 1]` are the classes other than each.
///
/// # Errors
/// Those of the operators.
pub fn decoupled(student: &Tensor, teacher: &Tensor, labels: &Tensor, others: &Tensor, temperature: f32) -> Result<[Tensor; 2]> {
    let target = labels.reshape(&[labels.numel(), 1])?;
    let others = others.index_select(0, labels)?;
    let [student_rest, teacher_rest] = [student.gather(1, &others)?, teacher.gather(1, &others)?];
    // The true class's logit and the others' logsumexp: their softmax is the binary distribution.
    let binary = |logits: &Tensor, rest: &Tensor| {
        let rest = rest.mul_scalar(1.0 / temperature)?.logsumexp(&[1], true)?;
        Tensor::concat(&[&logits.gather(1, &target)?.mul_scalar(1.0 / temperature)?, &rest], 1)
    };
    let binary = binary(student, &student_rest)?.distillation_kl(&binary(teacher, &teacher_rest)?, 1.0)?;
    Ok([binary.mul_scalar(temperature * temperature)?, student_rest.distillation_kl(&teacher_rest, temperature)?])
}

impl Method for DecoupledDistillation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let DecoupledDistillationConfig { temperature, alpha, beta, warm_up_epochs } = self.config;
        let (logits, taught) = (self.student.forward(images, Mode::Train)?, self.teacher.logits(images, batch)?);
        let [target, rest] = decoupled(&logits, &taught, &batch.labels, &self.others, temperature)?;
        let mut soft = target.mul_scalar(alpha)?.add(&rest.mul_scalar(beta)?)?;
        if warm_up_epochs > 0 {
            self.risen.write_scalars(std::slice::from_ref(&self.rise))?;
            soft = soft.mul(&self.risen.reshape::<isize>(&[])?)?;
        }
        let hard = logits.cross_entropy(&batch.labels, 0.0)?;
        let parts = vec![("target".into(), target), ("rest".into(), rest), ("hard".into(), hard.clone())];
        Ok(TrainStep { parts, ..TrainStep::new(hard.add(&soft)?, []) })
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.student)
    }
}

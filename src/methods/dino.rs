//! DINO (Caron et al. 2021, arXiv:2104.14294): a student matches the sharpened, centred outputs of
//! its own average on other views. The teacher sees the first two views, which are the global ones;
//! the student sees all, each on its own (batch norm sees one view at a time, where the authors'
//! code joins views of one size); a view is not matched with itself. The loss is the mean over
//! these pairs.

use serde::{Deserialize, Serialize};

use super::{
    Batch, Build, Clock, EmaTeacher, EmaTeacherConfig, Embedder, Kept, Method, MethodCard, MethodContext, MethodFactory, Supervision,
    TrainStep, TrainedNetwork,
};
use crate::error::{Error, Result, require_positive, require_share};
use crate::gpu::Scalar;
use crate::models::{HeadActivation, MlpConfig, Prototypes};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::{DType, Tensor};

/// How DINO is set up. The authors' numbers for large images in brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DinoConfig {
    /// Features to what the prototypes see (3 layers, 2048 hidden, 256 outputs, `init_std` 0.02; no
    /// batch norm on transformers. On a small convolutional network it is needed: its features are
    /// nearly alike at first).
    pub projector: MlpConfig,
    /// Outputs (65536); 0 for none: the projector's outputs are matched as they are, not
    /// normalised.
    pub prototypes: usize,
    /// Prototypes are of length 1; else their lengths are trained (`norm_last_layer`).
    pub normalize_last_layer: bool,
    /// Epochs in which the prototypes stay as they are.
    pub freeze_last_layer_epochs: u32,
    /// Divides the student's outputs.
    pub student_temperature: f32,
    /// Divides the teacher's; above 0.07 it is unstable.
    pub teacher_temperature: f32,
    /// That in the first epoch.
    pub teacher_temperature_start: f32,
    /// Epochs from there to `teacher_temperature`, in equal steps, both included.
    pub teacher_warm_up_epochs: u32,
    /// What the centre keeps of itself.
    pub center_momentum: f32,
    /// False is the negative control: one output wins for all images.
    pub centering: bool,
    /// How the teacher follows (0.996 to 1).
    pub teacher: EmaTeacherConfig,
}

impl Default for DinoConfig {
    fn default() -> Self {
        let activation = HeadActivation::Gelu;
        Self {
            projector: MlpConfig { layers: 3, hidden: 256, outputs: 64, activation, ..MlpConfig::hidden_norm() },
            prototypes: 256,
            normalize_last_layer: true,
            freeze_last_layer_epochs: 1,
            student_temperature: 0.1,
            teacher_temperature: 0.04,
            teacher_temperature_start: 0.04,
            teacher_warm_up_epochs: 0,
            center_momentum: 0.9,
            centering: true,
            teacher: EmaTeacherConfig::default(),
        }
    }
}

impl DinoConfig {
    /// The teacher's temperature at each step: the authors' `linspace` over the epochs of the
    /// warm-up, then constant.
    pub fn temperature(&self, clock: &Clock) -> Scalar {
        let Self { teacher_temperature: end, teacher_temperature_start: start, teacher_warm_up_epochs: epochs, .. } = *self;
        let steps = clock.steps_per_epoch.max(1);
        clock.step.scalar().map(move |step| {
            let epoch = step / steps;
            if epoch >= u64::from(epochs) {
                return end;
            }
            start + (end - start) * epoch as f32 / epochs.saturating_sub(1).max(1) as f32
        })
    }
}

/// An encoder, a projector (`proj`) and prototypes (`last_layer`).
struct Network {
    embedder: Embedder,
    prototypes: Option<Prototypes>,
}

impl Network {
    const LAST: &'static str = "last_layer";

    fn new(params: &Parameters, build: Build, config: &DinoConfig) -> Result<Self> {
        let embedder = Embedder::new(params, build, &config.projector)?;
        let last = params.scope(Self::LAST);
        let make = || Prototypes::new(&last, config.projector.outputs, config.prototypes, config.normalize_last_layer);
        Ok(Self { embedder, prototypes: (config.prototypes > 0).then(make).transpose()? })
    }

    /// Embeddings and logits; prototypes learn in [`Mode::Train`].
    fn run(&self, images: &Tensor, prototypes: Mode) -> Result<(Tensor, Tensor)> {
        let z = self.embedder.embed(images, Mode::Train)?;
        let logits = self.prototypes.as_ref().map_or(Ok(z.clone()), |layer| layer.forward(&z, prototypes))?;
        Ok((z, logits))
    }
}

/// The pairs of a teacher's and a student's view that are matched: `2 V - 2` of V views.
pub fn pairs(views: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..views.min(2)).flat_map(move |teacher| (0..views).filter(move |student| *student != teacher).map(move |student| (teacher, student)))
}

/// The centre moves after it was used, and the teacher after the optimizer.
pub struct Dino {
    params: Parameters,
    student: Network,
    teacher: EmaTeacher<Network>,
    /// Moving average of the teacher's logits, `[K]`.
    center: Tensor,
    temperature: Scalar,
    /// Whether the prototypes stay as they are.
    prototypes_frozen: bool,
    config: DinoConfig,
}

impl MethodFactory for Dino {
    const CARD: MethodCard = MethodCard {
        name: "dino",
        title: "DINO",
        text: "Match the average network's sharpened outputs on other views",
        supervision: Supervision::SelfSupervised,
        family: "self-distillation",
        year: 2021,
        authors: "Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin",
        paper: "Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294",
        related: &["byol", "moco_v3"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR, Network::LAST];

    type Config = DinoConfig;

    fn new(params: &Parameters, build: Build, config: DinoConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "student_temperature", config.student_temperature)?;
        require_positive(Self::CARD.name, "teacher_temperature", config.teacher_temperature)?;
        require_positive(Self::CARD.name, "teacher_temperature_start", config.teacher_temperature_start)?;
        require_share(Self::CARD.name, "center_momentum", config.center_momentum)?;
        let student = Network::new(params, build, &config)?;
        let teacher = EmaTeacher::new(params, config.teacher, &context.clock, |average| Network::new(average, build, &config))?;
        let outputs = if config.prototypes > 0 { config.prototypes } else { config.projector.outputs };
        let center = Tensor::zeros(params.gpu(), [outputs], DType::F32)?;
        let temperature = config.temperature(&context.clock);
        Ok(Self { params: params.clone(), student, teacher, center, temperature, prototypes_frozen: false, config })
    }
}

impl Method for Dino {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [first, second, ..] = batch.views.as_slice() else {
            return Err(Error::argument(self.name(), format!("it takes two views or more, {} were given", batch.views.len())));
        };
        // The prototypes wait without a gradient, as in the authors' code; what is frozen is the
        // user's matter.
        let prototypes = if self.prototypes_frozen { Mode::Eval } else { Mode::Train };
        let students = batch.views.iter().map(|view| self.student.run(view, prototypes)).collect::<Result<Vec<_>>>()?;
        let teachers = [self.teacher.network.run(first, Mode::Eval)?.1, self.teacher.network.run(second, Mode::Eval)?.1];
        let mut terms = Vec::new();
        for (teacher, student) in pairs(students.len()) {
            let (Some(teacher), Some((_, student))) = (teachers.get(teacher), students.get(student)) else { continue };
            terms.push(student.dino_loss(teacher, &self.center, self.config.student_temperature, self.temperature.clone())?);
        }
        let scale = 1.0 / terms.len() as f32;
        let sum = terms.into_iter().map(Ok).reduce(|a, b| a?.add(&b?));
        let Some(sum) = sum.transpose()? else { return Err(Error::argument(self.name(), "no views are matched")) };
        let [t1, t2] = &teachers;
        let logits = Tensor::concat(&[t1, t2], 0)?;
        let teacher = logits.sub(&self.center)?.softmax_with_temperature(-1, self.temperature.clone())?;
        let embeddings: Vec<Tensor> = students.into_iter().take(2).map(|(z, _)| z).collect();
        Ok(TrainStep { teacher: Some(teacher), kept: Kept::new(logits), ..TrainStep::new(sum.mul_scalar(scale)?, embeddings) })
    }

    fn after_update(&self, step: &TrainStep) -> Result<()> {
        if self.config.centering {
            self.center.center_update(step.kept.get::<Tensor>()?, self.config.center_momentum)?;
        }
        self.teacher.update()
    }

    fn begin(&self) -> Result<()> {
        self.teacher.reset()
    }

    fn begin_epoch(&mut self, epoch: u32) -> Result<()> {
        let frozen = epoch < self.config.freeze_last_layer_epochs;
        if frozen != std::mem::replace(&mut self.prototypes_frozen, frozen) {
            self.params.gpu().invalidate_programs();
        }
        Ok(())
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.student.embedder.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        std::iter::once(Embedder::PROJECTOR).chain(self.student.prototypes.as_ref().map(|_| Network::LAST)).collect()
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        vec![("center".into(), self.center.clone())]
    }

    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        vec![("teacher", self.teacher.parameters())]
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("teacher_momentum", self.teacher.momentum()), ("teacher_temperature", self.temperature.get().into())]
    }

    fn collapse_hint(&self) -> &'static str {
        "where all outputs are alike, lower teacher_temperature; where one output wins, keep centering and lower center_momentum"
    }
}

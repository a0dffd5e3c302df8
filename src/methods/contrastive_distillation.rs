//! Contrastive representation distillation (Tian, Krishnan and Isola 2019, arXiv:1910.10699) in its InfoNCE form: the student's embedding of an image
//! should be nearer to the teacher's features of it than to those of the images before it, which a queue holds. It differs from the authors' code,
//! which draws 16384 negatives of other classes from a memory of all images, estimates by NCE, learns projections of both networks and adds the other
//! direction: here negatives are of any class, the teacher's features are projected by nobody, and only the student has a `regressor`.

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::aligned_teacher::{hard, only};
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Step, Supervision, Teacher, TrainedNetwork};
use crate::error::{Error, Result, require_not_negative, require_positive};
use crate::models::{Backbone, Classifier};
use crate::nn::{Linear, Mode, Module, Parameters};
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

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

/// The queue begins as random directions and is filled from its first row on.
pub struct ContrastiveDistillation {
    student: Classifier<Box<dyn Backbone>>,
    teacher: Rc<Teacher>,
    regressor: Linear,
    /// `[queue, D]`, of length 1.
    queue: Tensor,
    /// The row that the oldest features lie in, i32 `[1]`.
    cursor: Tensor,
    fresh: RefCell<Option<Tensor>>,
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

    const LOGITS: bool = false;

    type Config = ContrastiveDistillationConfig;

    fn new(params: &Parameters, build: Build, config: ContrastiveDistillationConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        require_not_negative(Self::CARD.name, "weight", config.weight)?;
        let last = i32::try_from(config.queue).unwrap_or(i32::MAX) - 1;
        if last < 0 {
            return Err(Error::argument("queue", "it needs rows, as many as images in a batch at least"));
        }
        let teacher = only(Self::CARD.name, context)?;
        let student = Classifier::new(params, build(params)?, context.classes)?;
        let width = teacher.network().backbone().features();
        let regressor = Linear::new(params, "regressor", student.backbone.features(), width)?;
        let mut stream = Stream::keyed(context.seed, Purpose::Initialise.key(), 0);
        let queue = stream.normals(params.gpu(), [config.queue, width])?.l2_normalize(-1, 1e-12)?;
        let cursor = Tensor::from_slice(params.gpu(), &[0i32], [1])?.with_range(Some((0, last)))?;
        Ok(Self { student, teacher, regressor, queue, cursor, fresh: RefCell::default(), config })
    }
}

impl Method for ContrastiveDistillation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<Step> {
        let [images] = batch.exactly(self.name())?;
        let [features, logits] = self.student.features_and_logits(images, Mode::Train)?;
        let wanted = self.teacher.features(images)?.l2_normalize(-1, 1e-12)?;
        let embedding = self.regressor.forward(&features, Mode::Train)?;
        let contrast = embedding.info_nce_queue(&wanted, &self.queue, self.config.temperature)?;
        let hard = hard(&logits, &batch.labels)?;
        let loss = hard.add(&contrast.mul_scalar(self.config.weight)?)?;
        self.fresh.replace(Some(wanted));
        Ok(Step { parts: vec![("hard".into(), hard), ("contrast".into(), contrast)], ..Step::new(loss, []) })
    }

    fn after_update(&self) -> Result<()> {
        self.fresh.take().map_or(Ok(()), |features| self.queue.queue_write_next(&features, &self.cursor))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.student)
    }

    fn heads(&self) -> Vec<&'static str> {
        vec![self.student.backbone.head(), "regressor"]
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        // Not `queue`: what is watched of one, how like it is to the keys, says nothing where its network never changes.
        vec![("negatives".into(), self.queue.clone()), ("cursor".into(), self.cursor.clone())]
    }
}

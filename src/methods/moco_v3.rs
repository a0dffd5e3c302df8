//! MoCo v3 (Chen, Xie and He 2021, arXiv:2104.02057): no queue; the keys of the batch are the
//! negatives, and a predictor stands behind the queries. The loss of each direction is cross
//! entropy times `2 temperature`, both added.

use serde::{Deserialize, Serialize};

use super::info_nce::info_nce;
use super::{
    Batch, Build, Contrast, EmaTeacher, EmaTeacherConfig, Embedder, Method, MethodCard, MethodContext, MethodFactory, Supervision,
    TrainStep, TrainedNetwork,
};
use crate::error::{Result, require_positive};
use crate::models::{LastNorm, Mlp, MlpConfig};
use crate::nn::{Mode, Module, Parameters};
use crate::ops::exactly;
use crate::tensor::Tensor;

/// How MoCo v3 is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MocoV3Config {
    /// Divides the similarities.
    pub temperature: f32,
    /// Features to embeddings.
    pub projector: MlpConfig,
    /// Embeddings to predictions; its `outputs` are the projector's.
    pub predictor: MlpConfig,
    /// The key network.
    pub teacher: EmaTeacherConfig,
}

impl Default for MocoV3Config {
    fn default() -> Self {
        let last_norm = LastNorm::Fixed;
        let projector = MlpConfig { last_norm, ..MlpConfig::hidden_norm() };
        let predictor = MlpConfig { last_norm, ..MlpConfig::predictor() };
        Self { temperature: 0.2, projector, predictor, teacher: EmaTeacherConfig::default() }
    }
}

/// The key network moves before the keys are computed, as in the authors' code.
pub struct MocoV3 {
    network: Embedder,
    predictor: Mlp,
    keys: EmaTeacher,
    temperature: f32,
}

impl MethodFactory for MocoV3 {
    const CARD: MethodCard = MethodCard {
        name: "moco_v3",
        title: "MoCo v3",
        text: "Keys of the batch, and a predictor",
        supervision: Supervision::SelfSupervised,
        family: "contrastive",
        year: 2021,
        authors: "Chen, Xie, He",
        paper: "An Empirical Study of Training Self-Supervised Vision Transformers, arXiv:2104.02057",
        related: &["moco", "byol"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR, Embedder::PREDICTOR];

    type Config = MocoV3Config;

    fn new(params: &Parameters, build: Build, config: MocoV3Config, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        let network = Embedder::new(params, build, &config.projector)?;
        let predictor = Mlp::predict(&params.scope(Embedder::PREDICTOR), config.projector.outputs, &config.predictor)?;
        let keys = EmaTeacher::new(params, config.teacher, &context.clock, |average| Embedder::new(average, build, &config.projector))?;
        Ok(Self { network, predictor, keys, temperature: config.temperature })
    }
}

impl MocoV3 {
    /// Cross entropy with the query's own key as the class, times `2 temperature`.
    fn one_way(&self, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        info_nce(q, k, self.temperature)?.mul_scalar(2.0 * self.temperature)
    }
}

impl Contrast for MocoV3 {
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        let [first, second] = batch.exactly(self.name())?;
        let (z1, z2) = (self.network.embed(first, Mode::Train)?, self.network.embed(second, Mode::Train)?);
        let (q1, q2) = (self.predictor.forward(&z1, Mode::Train)?, self.predictor.forward(&z2, Mode::Train)?);
        let (k1, k2) = (self.keys.network.embed(first, Mode::Train)?, self.keys.network.embed(second, Mode::Train)?);
        Ok(vec![q1, q2, k1, k2, z1, z2])
    }

    fn compare(&self, embeddings: &[Tensor], _: &Tensor) -> Result<TrainStep> {
        let [q1, q2, k1, k2, z1, z2] = exactly(self.name(), embeddings)?;
        let loss = self.one_way(q1, k2)?.add(&self.one_way(q2, k1)?)?;
        Ok(TrainStep::new(loss, [z1.clone(), z2.clone()]))
    }
}

impl Method for MocoV3 {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        self.compare(&self.embed(batch)?, &batch.labels)
    }

    fn contrast(&self) -> Option<&dyn Contrast> {
        Some(self)
    }

    fn begin_step(&self) -> Result<()> {
        self.keys.update()
    }

    fn begin(&self) -> Result<()> {
        self.keys.reset()
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.network.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }

    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        vec![("teacher", self.keys.parameters())]
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("teacher_momentum", self.keys.momentum())]
    }

    fn collapse_hint(&self) -> &'static str {
        "lower the learning rate or raise teacher.momentum"
    }
}

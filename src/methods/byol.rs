//! BYOL (Grill et al. 2020, arXiv:2006.07733): each view predicts what an average of the network
//! makes of the other. The loss is DeepMind's: mean over the batch of `2 - 2 cos`, both directions
//! added, in 0..=8. (lightly's is a quarter of it: learning rates do not carry over.)

use serde::{Deserialize, Serialize};

use super::{
    Batch, Build, EmaTeacher, EmaTeacherConfig, Embedder, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep,
    TrainedNetwork,
};
use crate::error::Result;
use crate::models::{Mlp, MlpConfig};
use crate::nn::{Mode, Module, Parameters};

/// How BYOL is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ByolConfig {
    /// Features to embeddings.
    pub projector: MlpConfig,
    /// Embeddings to predictions; its `outputs` are the projector's.
    pub predictor: MlpConfig,
    /// The target network.
    pub teacher: EmaTeacherConfig,
}

impl Default for ByolConfig {
    fn default() -> Self {
        Self { projector: MlpConfig::hidden_norm(), predictor: MlpConfig::predictor(), teacher: EmaTeacherConfig::default() }
    }
}

/// The target runs on batch statistics of its own, follows after the optimizer's update, and has no
/// predictor.
pub struct Byol {
    network: Embedder,
    predictor: Mlp,
    target: EmaTeacher,
}

impl MethodFactory for Byol {
    const CARD: MethodCard = MethodCard {
        name: "byol",
        title: "BYOL",
        text: "Each view predicts the average network's other",
        supervision: Supervision::SelfSupervised,
        family: "self-distillation",
        year: 2020,
        authors: "Grill, Strub, Altche, Tallec, Richemond and others",
        paper: "Bootstrap your own latent, arXiv:2006.07733",
        related: &["simsiam", "moco_v3", "dino"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR, Embedder::PREDICTOR];

    type Config = ByolConfig;

    fn new(params: &Parameters, build: Build, config: ByolConfig, context: &MethodContext) -> Result<Self> {
        let network = Embedder::new(params, build, &config.projector)?;
        let predictor = Mlp::predict(&params.scope(Embedder::PREDICTOR), config.projector.outputs, &config.predictor)?;
        let target = EmaTeacher::new(params, config.teacher, &context.clock, |average| Embedder::new(average, build, &config.projector))?;
        Ok(Self { network, predictor, target })
    }
}

impl Method for Byol {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [first, second] = batch.exactly(self.name())?;
        let (z1, z2) = (self.network.embed(first, Mode::Train)?, self.network.embed(second, Mode::Train)?);
        let (p1, p2) = (self.predictor.forward(&z1, Mode::Train)?, self.predictor.forward(&z2, Mode::Train)?);
        let (t1, t2) = (self.target.network.embed(first, Mode::Train)?, self.target.network.embed(second, Mode::Train)?);
        let loss = p1.byol_loss(&t2)?.add(&p2.byol_loss(&t1)?)?;
        Ok(TrainStep::new(loss, [z1, z2]))
    }

    fn after_update(&self, _step: &TrainStep) -> Result<()> {
        self.target.update()
    }

    fn begin(&self) -> Result<()> {
        self.target.reset()
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.network.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }

    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        vec![("teacher", self.target.parameters())]
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("teacher_momentum", self.target.momentum())]
    }

    fn collapse_hint(&self) -> &'static str {
        "raise teacher.momentum, lower the learning rate, and keep the batch norms of projector and predictor"
    }
}

//! NNCLR (Dwibedi et al. 2021, arXiv:2104.14548): the positive of a view is the nearest neighbour of
//! the other one among earlier embeddings, the support set. Negatives are the predictions for the
//! batch's other images, as in the paper and in solo-learn (lightly contrasts within a view, too);
//! the loss is the mean of both directions. The first view's embeddings enter the set behind the
//! step.

use serde::{Deserialize, Serialize};

use super::info_nce::info_nce;
use super::queue::KeyQueue;
use super::{
    Batch, Build, Contrast, Embedder, Kept, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork,
};
use crate::error::{Result, require_positive};
use crate::models::{Mlp, MlpConfig};
use crate::nn::{Mode, Module, Parameters};
use crate::ops::exactly;
use crate::tensor::Tensor;

/// How NNCLR is set up. The authors' numbers for large images in brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NnClrConfig {
    /// Divides the similarities (0.1).
    pub temperature: f32,
    /// Features to embeddings (3 layers, 2048 hidden, 256 outputs, batch norm behind the last).
    pub projector: MlpConfig,
    /// Embeddings to predictions (4096 hidden); its `outputs` are the projector's.
    pub predictor: MlpConfig,
    /// Embeddings in the support set (98304).
    pub queue: usize,
}

impl Default for NnClrConfig {
    fn default() -> Self {
        Self { temperature: 0.1, projector: MlpConfig::hidden_norm(), predictor: MlpConfig::predictor(), queue: 2048 }
    }
}

/// An encoder with a predictor and a support set.
pub struct NnClr {
    network: Embedder,
    predictor: Mlp,
    support: KeyQueue,
    temperature: f32,
}

impl MethodFactory for NnClr {
    const CARD: MethodCard = MethodCard {
        name: "nnclr",
        title: "NNCLR",
        text: "The neighbour of a view among earlier images attracts the other view",
        supervision: Supervision::SelfSupervised,
        family: "contrastive",
        year: 2021,
        authors: "Dwibedi, Aytar, Tompson, Sermanet, Zisserman",
        paper: "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations, arXiv:2104.14548",
        related: &["simclr", "moco"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR, Embedder::PREDICTOR];

    type Config = NnClrConfig;

    fn new(params: &Parameters, build: Build, config: NnClrConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        let network = Embedder::new(params, build, &config.projector)?;
        let predictor = Mlp::predict(&params.scope(Embedder::PREDICTOR), config.projector.outputs, &config.predictor)?;
        let support = KeyQueue::new(params.gpu(), config.queue, config.projector.outputs, context.seed)?;
        Ok(Self { network, predictor, support, temperature: config.temperature })
    }
}

impl Contrast for NnClr {
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        let embeddings = self.network.embed_each(batch.exactly::<2>(self.name())?)?;
        let predictions = embeddings.iter().map(|z| self.predictor.forward(z, Mode::Train)).collect::<Result<Vec<_>>>()?;
        Ok([embeddings, predictions].concat())
    }

    fn compare(&self, embeddings: &[Tensor], _: &Tensor) -> Result<TrainStep> {
        let [z1, z2, p1, p2] = exactly(self.name(), embeddings)?;
        let queue = Some(self.support.entered_by(z1.shape().dim(0))?);
        let one_way = |z: &Tensor, p: &Tensor| info_nce(&self.support.nearest(&z.detach())?, p, self.temperature);
        let loss = one_way(z1, p2)?.add(&one_way(z2, p1)?)?.mul_scalar(0.5)?;
        let kept = Kept::new(z1.detach().l2_normalize(-1, 1e-12)?);
        Ok(TrainStep { queue, kept, ..TrainStep::new(loss, [z1.clone(), z2.clone()]) })
    }
}

impl Method for NnClr {
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

    fn after_update(&self, step: &TrainStep) -> Result<()> {
        self.support.push(step.kept.get::<Tensor>()?)
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.network.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        vec![("queue".into(), self.support.keys.clone()), ("cursor".into(), self.support.cursor.clone())]
    }

    fn collapse_hint(&self) -> &'static str {
        "lower the learning rate; neighbours must be of the present network's making: shorten the queue"
    }
}

//! SimSiam (Chen and He 2020, arXiv:2011.10566): each view predicts the other, which stands still.
//! Neither negatives nor an average: the stop-gradient alone keeps it from collapsing.

use serde::{Deserialize, Serialize};

use super::{Batch, Build, Embedder, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::Result;
use crate::models::{Mlp, MlpConfig};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::Tensor;

/// How SimSiam is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimSiamConfig {
    /// Features to embeddings.
    pub projector: MlpConfig,
    /// Embeddings to predictions; its `outputs` are the projector's.
    pub predictor: MlpConfig,
    /// False is the negative control: both sides move, and all embeddings become one.
    pub stop_gradient: bool,
}

impl Default for SimSiamConfig {
    fn default() -> Self {
        Self { projector: MlpConfig::default(), predictor: MlpConfig::predictor(), stop_gradient: true }
    }
}

/// The loss is `-(cos(p1, z2) + cos(p2, z1)) / 2`, in -1..=1.
pub struct SimSiam {
    network: Embedder,
    predictor: Mlp,
    stop_gradient: bool,
}

impl MethodFactory for SimSiam {
    const CARD: MethodCard = MethodCard {
        name: "simsiam",
        title: "SimSiam",
        text: "Each view predicts the other, which stands still",
        supervision: Supervision::SelfSupervised,
        family: "self-distillation",
        year: 2020,
        authors: "Chen, He",
        paper: "Exploring Simple Siamese Representation Learning, arXiv:2011.10566",
        related: &["byol", "simclr"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR, Embedder::PREDICTOR];

    type Config = SimSiamConfig;

    fn new(params: &Parameters, build: Build, config: SimSiamConfig, _: &MethodContext) -> Result<Self> {
        let network = Embedder::new(params, build, &config.projector)?;
        let predictor = Mlp::predict(&params.scope(Embedder::PREDICTOR), config.projector.outputs, &config.predictor)?;
        Ok(Self { network, predictor, stop_gradient: config.stop_gradient })
    }
}

impl Method for SimSiam {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [first, second] = batch.exactly(self.name())?;
        let (z1, z2) = (self.network.embed(first, Mode::Train)?, self.network.embed(second, Mode::Train)?);
        let similarity = |from: &Tensor, to: &Tensor| {
            let to = if self.stop_gradient { to.detach() } else { to.clone() };
            self.predictor.forward(from, Mode::Train)?.cosine_similarity(&to, 1e-8)?.mean(&[0], false)
        };
        let loss = similarity(&z1, &z2)?.add(&similarity(&z2, &z1)?)?.mul_scalar(-0.5)?;
        Ok(TrainStep::new(loss, [z1, z2]))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.network.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }

    fn collapse_hint(&self) -> &'static str {
        "the target must not move with the loss (stop_gradient), and the predictor needs its batch norm and a rate that does not decay too early"
    }
}

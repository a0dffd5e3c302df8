//! SimCLR (Chen et al. 2020, arXiv:2002.05709): two views of an image attract, all others repel, by
//! NT-Xent over a projector. The loss is the paper's mean over 2N anchors, half of what the
//! authors' TensorFlow code returns.

use serde::{Deserialize, Serialize};

use super::{Batch, Build, Contrast, Embedder, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Result, require_positive};
use crate::models::MlpConfig;
use crate::nn::Parameters;
use crate::ops::exactly;
use crate::tensor::Tensor;

/// How SimCLR is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimClrConfig {
    /// Divides the similarities.
    pub temperature: f32,
    /// What the loss sees.
    pub projector: MlpConfig,
}

impl Default for SimClrConfig {
    fn default() -> Self {
        Self { temperature: 0.5, projector: MlpConfig::default() }
    }
}

/// Each view goes through the network on its own, so batch norm sees one view at a time.
pub struct SimClr {
    network: Embedder,
    temperature: f32,
}

impl MethodFactory for SimClr {
    const CARD: MethodCard = MethodCard {
        name: "simclr",
        title: "SimCLR",
        text: "Two views of an image attract, all others repel",
        supervision: Supervision::SelfSupervised,
        family: "contrastive",
        year: 2020,
        authors: "Chen, Kornblith, Norouzi, Hinton",
        paper: "A Simple Framework for Contrastive Learning of Visual Representations, arXiv:2002.05709",
        related: &["moco", "supcon", "byol"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR];

    type Config = SimClrConfig;

    fn new(params: &Parameters, build: Build, config: SimClrConfig, _: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        Ok(Self { network: Embedder::new(params, build, &config.projector)?, temperature: config.temperature })
    }
}

impl Contrast for SimClr {
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        self.network.embed_each(batch.exactly::<2>(self.name())?)
    }

    fn compare(&self, embeddings: &[Tensor], _: &Tensor) -> Result<TrainStep> {
        let [z1, z2] = exactly(self.name(), embeddings)?;
        Ok(TrainStep::new(z1.nt_xent(z2, self.temperature)?, embeddings))
    }
}

impl Method for SimClr {
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

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.network.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }

    fn collapse_hint(&self) -> &'static str {
        "lower the learning rate or the temperature, and see that the two views differ"
    }
}

//! SupCon (Khosla et al. 2020, arXiv:2004.11362): all views of a class attract. The loss is the
//! paper's L_out: outside the logarithm, mean over each anchor's positives, mean over 2N anchors.

use serde::{Deserialize, Serialize};

use super::{Batch, Build, Contrast, Embedder, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Result, require_positive};
use crate::models::MlpConfig;
use crate::nn::Parameters;
use crate::ops::exactly;
use crate::tensor::Tensor;

/// How SupCon is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupConConfig {
    /// Divides the similarities.
    pub temperature: f32,
    /// What the loss sees.
    pub projector: MlpConfig,
}

impl Default for SupConConfig {
    fn default() -> Self {
        Self { temperature: 0.1, projector: MlpConfig::default() }
    }
}

/// SimCLR with labels.
pub struct SupCon {
    network: Embedder,
    temperature: f32,
}

impl MethodFactory for SupCon {
    const CARD: MethodCard = MethodCard {
        name: "supcon",
        title: "SupCon",
        text: "All views of a class attract",
        supervision: Supervision::Supervised,
        family: "contrastive",
        year: 2020,
        authors: "Khosla, Teterwak, Wang, Sarna, Tian and others",
        paper: "Supervised Contrastive Learning, arXiv:2004.11362",
        related: &["simclr", "supervised"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR];

    type Config = SupConConfig;

    fn new(params: &Parameters, build: Build, config: SupConConfig, _: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        Ok(Self { network: Embedder::new(params, build, &config.projector)?, temperature: config.temperature })
    }
}

impl Contrast for SupCon {
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        self.network.embed_each(batch.exactly::<2>(self.name())?)
    }

    fn compare(&self, embeddings: &[Tensor], labels: &Tensor) -> Result<TrainStep> {
        let [z1, z2] = exactly(self.name(), embeddings)?;
        let labels = Tensor::concat(&[labels, labels], 0)?;
        let loss = Tensor::concat(&[z1, z2], 0)?.supcon_loss(&labels, self.temperature)?;
        Ok(TrainStep::new(loss, embeddings))
    }
}

impl Method for SupCon {
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
        "lower the learning rate, and see that the labels have more than one class"
    }
}

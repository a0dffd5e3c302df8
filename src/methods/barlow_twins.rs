//! Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230): the cross-correlation of two views'
//! features, over the batch, shall be the identity. The loss is the paper's sum over its elements,
//! which grows with the embeddings' width, times what solo-learn calls `scale_loss`.

use serde::{Deserialize, Serialize};

use super::covariance::{full_precision, off_diagonal_squares};
use super::{Batch, Build, Contrast, Embedder, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Result, require_not_negative, require_positive};
use crate::models::MlpConfig;
use crate::nn::Parameters;
use crate::ops::elementwise::fuse::fuse;
use crate::ops::exactly;
use crate::tensor::Tensor;

/// Keeps the division by a feature's deviation finite, as batch norm's does.
const EPS: f32 = 1e-5;

/// How Barlow Twins is set up. The authors' numbers for large images in brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BarlowTwinsConfig {
    /// Weight of the elements beside the diagonal.
    pub lambda_param: f32,
    /// Multiplies the loss (1; solo-learn has 0.1 on CIFAR).
    pub scale_loss: f32,
    /// What the loss sees: wide embeddings (3 layers, 8192 hidden and outputs).
    pub projector: MlpConfig,
}

impl Default for BarlowTwinsConfig {
    fn default() -> Self {
        Self {
            lambda_param: 5e-3,
            scale_loss: 1.0,
            projector: MlpConfig { layers: 3, hidden: 256, outputs: 256, ..MlpConfig::hidden_norm() },
        }
    }
}

/// Each view goes through the network on its own, so batch norm sees one view at a time.
pub struct BarlowTwins {
    network: Embedder,
    lambda_param: f32,
    scale_loss: f32,
}

impl MethodFactory for BarlowTwins {
    const CARD: MethodCard = MethodCard {
        name: "barlow_twins",
        title: "Barlow Twins",
        text: "Features of two views correlate each with itself alone",
        supervision: Supervision::SelfSupervised,
        family: "redundancy reduction",
        year: 2021,
        authors: "Zbontar, Jing, Misra, LeCun, Deny",
        paper: "Barlow Twins: Self-Supervised Learning via Redundancy Reduction, arXiv:2103.03230",
        related: &["vicreg", "simclr"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR];

    type Config = BarlowTwinsConfig;

    fn new(params: &Parameters, build: Build, config: BarlowTwinsConfig, _: &MethodContext) -> Result<Self> {
        require_not_negative(Self::CARD.name, "lambda_param", config.lambda_param)?;
        require_positive(Self::CARD.name, "scale_loss", config.scale_loss)?;
        let network = Embedder::new(params, build, &config.projector)?;
        Ok(Self { network, lambda_param: config.lambda_param, scale_loss: config.scale_loss })
    }
}

/// Features `[N, D]` of mean 0 and variance 1 over the batch.
fn standardized(z: &Tensor) -> Result<Tensor> {
    let z = full_precision(z)?;
    let (mean, var) = (z.mean(&[0], true)?, z.var(&[0], false, true)?);
    fuse([&z, &mean, &var], |[z, mean, var]| (z - mean) / (var + EPS).sqrt())
}

impl Contrast for BarlowTwins {
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        self.network.embed_each(batch.exactly::<2>(self.name())?)
    }

    fn compare(&self, embeddings: &[Tensor], _: &Tensor) -> Result<TrainStep> {
        let [z1, z2] = exactly(self.name(), embeddings)?;
        let (z1, z2) = (standardized(z1)?, standardized(z2)?);
        let rows = z1.shape().dim(0).max(1) as f32;
        let correlation = z1.matmul_tn(&z2)?.mul_scalar(1.0 / rows)?;
        let diagonal = z1.mul(&z2)?.mean(&[0], false)?;
        let on_diagonal = diagonal.add_scalar(-1.0)?.square()?.sum(&[], false)?;
        let off_diagonal = off_diagonal_squares(&correlation, &diagonal)?;
        let loss = on_diagonal.add(&off_diagonal.mul_scalar(self.lambda_param)?)?.mul_scalar(self.scale_loss)?;
        let parts = vec![("on_diagonal".into(), on_diagonal), ("off_diagonal".into(), off_diagonal)];
        Ok(TrainStep { parts, ..TrainStep::new(loss, embeddings) })
    }
}

impl Method for BarlowTwins {
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
        "lower the learning rate: the loss is a sum over the embeddings' features; raise lambda_param where their rank is low"
    }
}

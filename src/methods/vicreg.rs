//! VICReg (Bardes et al. 2021, arXiv:2105.04906): two views are alike (invariance), each feature
//! keeps a deviation of 1 over the batch (variance), and different ones do not vary together
//! (covariance). As in the authors' code the variance term is the mean of both views', and the
//! covariance term their sum.

use serde::{Deserialize, Serialize};

use super::covariance::{full_precision, off_diagonal_squares};
use super::{Batch, Build, Contrast, Embedder, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Result, require_not_negative};
use crate::models::MlpConfig;
use crate::nn::Parameters;
use crate::ops::elementwise::fuse::fuse;
use crate::ops::exactly;
use crate::tensor::Tensor;

/// Added to a variance before its root, whose slope is so finite at 0.
const EPS: f32 = 1e-4;

/// How VICReg is set up. The authors' numbers for large images in brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VicRegConfig {
    /// Weight of the invariance term.
    pub lambda_param: f32,
    /// Weight of the variance term.
    pub mu_param: f32,
    /// Weight of the covariance term.
    pub nu_param: f32,
    /// What the loss sees: wide embeddings (3 layers, 8192 hidden and outputs).
    pub projector: MlpConfig,
}

impl Default for VicRegConfig {
    fn default() -> Self {
        let projector = MlpConfig { layers: 3, hidden: 256, outputs: 256, ..MlpConfig::hidden_norm() };
        Self { lambda_param: 25.0, mu_param: 25.0, nu_param: 1.0, projector }
    }
}

/// Each view goes through the network on its own, so batch norm sees one view at a time.
pub struct VicReg {
    network: Embedder,
    weights: [f32; 3],
}

impl MethodFactory for VicReg {
    const CARD: MethodCard = MethodCard {
        name: "vicreg",
        title: "VICReg",
        text: "Two views are alike, and features vary, each on its own",
        supervision: Supervision::SelfSupervised,
        family: "redundancy reduction",
        year: 2021,
        authors: "Bardes, Ponce, LeCun",
        paper: "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, arXiv:2105.04906",
        related: &["barlow_twins", "simsiam"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR];

    type Config = VicRegConfig;

    fn new(params: &Parameters, build: Build, config: VicRegConfig, _: &MethodContext) -> Result<Self> {
        let VicRegConfig { lambda_param, mu_param, nu_param, projector } = config;
        for (key, weight) in [("lambda_param", lambda_param), ("mu_param", mu_param), ("nu_param", nu_param)] {
            require_not_negative(Self::CARD.name, key, weight)?;
        }
        Ok(Self { network: Embedder::new(params, build, &projector)?, weights: [lambda_param, mu_param, nu_param] })
    }
}

/// What a view's features `[N, D]` lack of a deviation of 1, as a mean over them, and the squares of
/// their covariances, as a sum over all pairs of two, divided by D.
fn variance_and_covariance(z: &Tensor) -> Result<[Tensor; 2]> {
    let [rows, features] = z.shape().array().unwrap_or_default();
    let var = z.var(&[0], true, false)?;
    let lacking = fuse([&var], |[var]| (1.0 - (var + EPS).sqrt()).relu())?.mean(&[], false)?;
    let centred = z.sub(&z.mean(&[0], true)?)?;
    let covariance = centred.matmul_tn(&centred)?.mul_scalar(1.0 / (rows as f32 - 1.0))?;
    Ok([lacking, off_diagonal_squares(&covariance, &var)?.mul_scalar(1.0 / features as f32)?])
}

impl Contrast for VicReg {
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        self.network.embed_each(batch.exactly::<2>(self.name())?)
    }

    fn compare(&self, embeddings: &[Tensor], _: &Tensor) -> Result<TrainStep> {
        let [z1, z2] = exactly(self.name(), embeddings)?;
        let (z1, z2) = (full_precision(z1)?, full_precision(z2)?);
        let [[v1, c1], [v2, c2]] = [variance_and_covariance(&z1)?, variance_and_covariance(&z2)?];
        let (invariance, variance, covariance) = (z1.mse_loss(&z2)?, v1.add(&v2)?.mul_scalar(0.5)?, c1.add(&c2)?);
        let [of_invariance, of_variance, of_covariance] = self.weights;
        let loss = invariance.mul_scalar(of_invariance)?.add(&variance.mul_scalar(of_variance)?)?;
        let loss = loss.add(&covariance.mul_scalar(of_covariance)?)?;
        let parts = vec![("invariance".into(), invariance), ("variance".into(), variance), ("covariance".into(), covariance)];
        Ok(TrainStep { parts, ..TrainStep::new(loss, embeddings) })
    }
}

impl Method for VicReg {
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
        "raise mu_param, the weight of the variance, beside lambda_param; raise nu_param where only the rank is low"
    }
}

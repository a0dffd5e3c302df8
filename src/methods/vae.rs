//! Variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114), with a factor for its prior
//! (Higgins et al. 2017).

use serde::{Deserialize, Serialize};

use super::autoencoder::{Codec, input_and_target};
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result};
use crate::gpu::Scalar;
use crate::models::ImageDecoderConfig;
use crate::nn::Parameters;
use crate::ops::augment::Draws;
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::Tensor;

/// How a variational autoencoder is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaeConfig {
    /// Numbers of a code.
    pub latent: usize,
    /// Weighs the prior; 1 is the bound itself.
    pub beta: f32,
    /// Codes to images.
    pub decoder: ImageDecoderConfig,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self { latent: 32, beta: 1.0, decoder: ImageDecoderConfig::default() }
    }
}

/// The loss is `(sum of (x - y)^2 / 2 over an image's values + beta * KL, summed over its latents)
/// / values`, the mean over the batch: the negative evidence bound of a normal likelihood of
/// variance 1, without its constant, a pixel. Both sums are divided by the same number, so beta
/// means what it does in the papers.
pub struct Vae {
    codec: Codec,
    latent: usize,
    beta: f32,
    draws: Draws,
}

impl Vae {
    /// The KL divergence of normal distributions from the standard one, `sum of (mu^2 + e^v - v -
    /// 1) / 2` over latents, of means and log variances `[N, D]`: the mean over the batch.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn divergence(mu: &Tensor, log_variance: &Tensor) -> Result<Tensor> {
        let each = fuse([mu, log_variance], |[mu, v]| (mu.clone() * mu + v.clone().exp() - v - 1.0) * 0.5)?;
        each.sum(&[1], false)?.mean(&[0], false)
    }

    /// Codes of these distributions, `mu + e^(v / 2) * noise`: noise follows from seed, epoch and
    /// place in the data set.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn sample(&self, mu: &Tensor, log_variance: &Tensor, indices: &Tensor, epoch: &Scalar<u32>) -> Result<Tensor> {
        let noise = indices.normal_noise(self.latent, Draws { epoch: epoch.clone(), ..self.draws.clone() })?;
        fuse([mu, log_variance, &noise], |[mu, v, noise]| mu + (v * 0.5).exp() * noise)
    }
}

impl MethodFactory for Vae {
    const CARD: MethodCard = MethodCard {
        name: "vae",
        title: "VAE",
        text: "The same with codes that are distributions",
        supervision: Supervision::SelfSupervised,
        family: "generative",
        year: 2013,
        authors: "Kingma, Welling",
        paper: "Auto-Encoding Variational Bayes, arXiv:1312.6114",
        related: &["autoencoder"],
    };

    const HEADS: &'static [&'static str] = &Codec::HEADS;

    type Config = VaeConfig;

    fn new(params: &Parameters, build: Build, config: VaeConfig, context: &MethodContext) -> Result<Self> {
        if !(0.0..=1e6).contains(&config.beta) {
            return Err(Error::argument("beta", format!("expected 0 to 1000000, found {}", config.beta)));
        }
        let codec = Codec::new(
            params,
            build,
            context.input.image(Self::CARD.name)?,
            [config.latent, config.latent.saturating_mul(2)],
            &config.decoder,
        )?;
        Ok(Self { codec, latent: config.latent, beta: config.beta, draws: Draws { seed: context.seed, ..Draws::default() } })
    }
}

impl Method for Vae {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let (given, wanted) = input_and_target(batch, self.name())?;
        let codes = self.codec.encode(&given)?;
        let (mu, log_variance) = (codes.slice(1, 0, self.latent)?, codes.slice(1, self.latent, 2 * self.latent)?);
        let error = self.codec.decode(&self.sample(&mu, &log_variance, &batch.indices, &batch.epoch)?)?.mse_loss(&wanted)?;
        let prior = self.beta * wanted.shape().dim(0) as f32 / wanted.numel().max(1) as f32;
        let loss = fuse([&error, &Self::divergence(&mu, &log_variance)?], |[error, kl]| error * 0.5 + kl * prior)?;
        Ok(TrainStep::new(loss, [mu]))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.codec.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }

    fn collapse_hint(&self) -> &'static str {
        "the codes say nothing of the images (posterior collapse): lower beta, or the learning rate"
    }
}

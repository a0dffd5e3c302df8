//! Autoencoders: an image through a code of few numbers and back. The plain one, on request
//! denoising (Vincent et al. 2008): it is given a noisy image and gives back the clean one.

use serde::{Deserialize, Serialize};

use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result};
use crate::models::{Backbone, ImageDecoder, ImageDecoderConfig};
use crate::nn::{Linear, Mode, Module, Parameters};
use crate::ops::augment::Draws;
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::{DType, Tensor};

/// How an autoencoder is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Numbers of a code.
    pub latent: usize,
    /// Standard deviation of the noise that is added to what the encoder sees, in units of the
    /// normalised image; 0 for none.
    pub noise: f32,
    /// Codes to images.
    pub decoder: ImageDecoderConfig,
}

impl Default for AutoencoderConfig {
    fn default() -> Self {
        Self { latent: 64, noise: 0.0, decoder: ImageDecoderConfig::default() }
    }
}

/// An encoder, a linear layer (`latent`) from its maps to codes, and a decoder (`decoder`). The
/// code is made from the maps and not from their means, the features: these hold too little of
/// where things are.
pub(super) struct Codec {
    pub(super) encoder: Box<dyn Backbone>,
    latent: Linear,
    decoder: ImageDecoder,
}

impl Codec {
    pub(super) const HEADS: [&'static str; 2] = ["latent", "decoder"];

    /// For codes that `numbers` are computed for.
    pub(super) fn new(
        params: &Parameters,
        build: Build,
        [h, w, c]: [usize; 3],
        [latent, numbers]: [usize; 2],
        decoder: &ImageDecoderConfig,
    ) -> Result<Self> {
        if latent == 0 {
            return Err(Error::argument("latent", "a code needs numbers, found 0"));
        }
        let [latent_scope, decoder_scope] = Self::HEADS;
        let encoder = build(params)?;
        let maps = encoder.forward_features(&Tensor::zeros(params.gpu(), [1, h, w, c], DType::F32)?, Mode::Eval)?;
        Ok(Self {
            latent: Linear::new(params, latent_scope, maps.numel(), numbers)?,
            decoder: ImageDecoder::new(&params.scope(decoder_scope), latent, [h, w, c], decoder)?,
            encoder,
        })
    }

    pub(super) fn encode(&self, images: &Tensor) -> Result<Tensor> {
        let maps = self.encoder.forward_features(images, Mode::Train)?;
        self.latent.forward(&maps.reshape(&[maps.shape().dim(0) as isize, -1])?, Mode::Train)
    }

    pub(super) fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        self.decoder.forward(codes, Mode::Train)
    }
}

/// What is encoded, and what is to come out: the same view, or, of two, the first and the second.
/// An image without augmentation as the second makes it an augmented autoencoder (Sundermeyer et
/// al. 2018, arXiv:1902.01275): the code then holds what augmentation leaves as it is.
pub(super) fn input_and_target(batch: &Batch, method: &str) -> Result<(Tensor, Tensor)> {
    match batch.views.as_slice() {
        [images] => Ok((images.clone(), images.clone())),
        [given, wanted] if given.shape() == wanted.shape() => Ok((given.clone(), wanted.clone())),
        views => Err(Error::argument(method, format!("it takes one view, or two of the same size, {} were given", views.len()))),
    }
}

/// The loss is the mean squared error of all values.
pub struct Autoencoder {
    codec: Codec,
    noise: f32,
    draws: Draws,
}

impl MethodFactory for Autoencoder {
    const CARD: MethodCard = MethodCard {
        name: "autoencoder",
        title: "Autoencoder",
        text: "An image, or what augmentation left of it, through a short code and back",
        supervision: Supervision::SelfSupervised,
        family: "generative",
        year: 2006,
        authors: "Hinton, Salakhutdinov",
        paper: "Reducing the Dimensionality of Data with Neural Networks; augmented: Sundermeyer et al. 2018, arXiv:1902.01275",
        related: &["vae", "mae"],
    };

    const HEADS: &'static [&'static str] = &Codec::HEADS;

    type Config = AutoencoderConfig;

    fn new(params: &Parameters, build: Build, config: AutoencoderConfig, context: &MethodContext) -> Result<Self> {
        if !(0.0..=1e3).contains(&config.noise) {
            return Err(Error::argument("noise", format!("expected 0 to 1000, found {}", config.noise)));
        }
        let codec = Codec::new(params, build, context.input.image(Self::CARD.name)?, [config.latent; 2], &config.decoder)?;
        Ok(Self { codec, noise: config.noise, draws: Draws { seed: context.seed, ..Draws::default() } })
    }
}

impl Method for Autoencoder {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let (mut given, wanted) = input_and_target(batch, self.name())?;
        if self.noise > 0.0 {
            let draws = Draws { epoch: batch.epoch.clone(), ..self.draws.clone() };
            let values = given.numel() / given.shape().dim(0).max(1);
            let noise = batch.indices.normal_noise(values, draws)?.reshape(given.shape())?;
            given = fuse([&given, &noise], |[x, noise]| x + noise * self.noise)?;
        }
        let codes = self.codec.encode(&given)?;
        Ok(TrainStep::new(self.codec.decode(&codes)?.mse_loss(&wanted)?, [codes]))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.codec.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }
}

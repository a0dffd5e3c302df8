//! Masked autoencoder (He et al. 2021, arXiv:2111.06377): most patches are hidden, the encoder sees
//! the others only, and a light decoder says what the hidden ones hold.

use serde::{Deserialize, Serialize};

use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result, require_share};
use crate::gpu::Scalar;
use crate::models::{Backbone, Vit, VitBlock, VitConfig, check_depth};
use crate::nn::{Init, Kind, LayerNorm, Linear, Mode, Module, Parameter, Parameters};
use crate::ops::augment::Draws;
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::Tensor;

/// How a masked autoencoder is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaeConfig {
    /// The share of patches that are hidden; of what is left, the encoder sees the whole number
    /// below.
    pub mask_ratio: f32,
    /// Each patch of the target gets mean 0 and variance 1, by its own (unbiased) variance + 1e-6.
    pub normalize_target: bool,
    /// Features of the decoder's tokens; a multiple of 4.
    pub decoder_features: usize,
    /// The decoder's blocks.
    pub decoder_depth: usize,
    /// Its attention heads.
    pub decoder_heads: usize,
}

impl Default for MaeConfig {
    fn default() -> Self {
        Self { mask_ratio: 0.75, normalize_target: true, decoder_features: 32, decoder_depth: 1, decoder_heads: 2 }
    }
}

/// The loss is the mean squared error of hidden patches alone.
///
/// Tokens are never put back in their order, because neither blocks nor the loss care: the decoder
/// takes what is seen before what is hidden, each with its position (fixed sines and cosines, as
/// the authors'). The encoder's positions are the network's own, learnt ones.
pub struct Mae {
    encoder: Box<dyn Backbone>,
    embed: Linear,
    mask: Parameter,
    /// `[patches, decoder_features]`
    positions: Tensor,
    blocks: Vec<VitBlock>,
    norm: LayerNorm,
    pixels: Linear,
    draws: Draws,
    config: MaeConfig,
    /// Patches that stay, and all.
    counts: [usize; 2],
}

/// Rows `[N, L, D]` of each image by their places, i32 `[N, K]`: `[N, K, D]`.
pub(super) fn pick(rows: &Tensor, places: &Tensor) -> Result<Tensor> {
    let wrong = || Error::shape("mae", format!("places {} must be [N, K]", places.shape()));
    let ([n, k], d) = (places.shape().array().ok_or_else(wrong)?, rows.shape().last());
    rows.gather(1, &places.reshape(&[n, k, 1])?.expand(&[n, k, d])?)
}

/// Positions in a grid as sines and cosines: a quarter of the features each for sines and cosines
/// of column and row, at wavelengths from 2 pi to 10,000 times that (the authors'
/// `get_2d_sincos_pos_embed`).
fn sines(rows: usize, columns: usize, features: usize) -> Vec<f32> {
    let quarter = features / 4;
    let wave = |place: usize, i: usize| place as f64 / 10_000f64.powf(i as f64 / quarter as f64);
    let one = |place: usize| (0..2 * quarter).map(move |i| if i < quarter { wave(place, i).sin() } else { wave(place, i - quarter).cos() });
    let token = |at: usize| one(at % columns).chain(one(at / columns));
    (0..rows * columns).flat_map(token).map(|v| v as f32).collect()
}

impl MethodFactory for Mae {
    const CARD: MethodCard = MethodCard {
        name: "mae",
        title: "MAE",
        text: "What hidden patches hold; for vision transformers",
        supervision: Supervision::SelfSupervised,
        family: "generative",
        year: 2021,
        authors: "He, Chen, Xie, Li, Dollar, Girshick",
        paper: "Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377",
        related: &["autoencoder"],
    };

    const HEADS: &'static [&'static str] = &[Self::HEAD];

    type Config = MaeConfig;

    fn new(params: &Parameters, build: Build, config: MaeConfig, context: &MethodContext) -> Result<Self> {
        require_share(Self::CARD.name, "mask_ratio", config.mask_ratio)?;
        let encoder = build(params)?;
        let vit = *vit(&*encoder)?.config();
        let [height, width, _] = context.input.image(Self::CARD.name)?;
        if [height, width] != vit.size {
            return Err(Error::argument("mae", format!("views of {height} x {width} are not of the network's size, {:?}", vit.size)));
        }
        let grid = vit.size.map(|side| side / vit.patch);
        let patches = grid.iter().product::<usize>();
        let seen = (patches as f32 * (1.0 - config.mask_ratio)) as usize;
        if seen == 0 || seen >= patches {
            return Err(Error::argument("mask_ratio", format!("{} of {patches} patches must hide some and leave some", config.mask_ratio)));
        }
        let features = config.decoder_features;
        if features == 0 || !features.is_multiple_of(4) {
            return Err(Error::argument("decoder_features", format!("expected a multiple of 4, found {features}")));
        }
        if config.decoder_heads == 0 || !features.is_multiple_of(config.decoder_heads) {
            let message = format!("{} heads must divide {features} features of the decoder", config.decoder_heads);
            return Err(Error::argument("decoder_heads", message));
        }
        check_depth("decoder_depth", config.decoder_depth)?;
        let scope = params.scope(Self::HEAD);
        let light = VitConfig { features, depth: config.decoder_depth, heads: config.decoder_heads, drop_path: 0.0, ..vit };
        let block = |number| VitBlock::new(&scope.scope(format!("blocks.{number}")), &light, number);
        Ok(Self {
            embed: Linear::new(&scope, "embed", vit.features, features)?,
            mask: scope.parameter("mask_token", [1, 1, features], Kind::Embedding, Init::Normal { std: 0.02 })?,
            positions: Tensor::from_slice(params.gpu(), &sines(grid[0], grid[1], features), [patches, features])?,
            blocks: (0..config.decoder_depth).map(block).collect::<Result<_>>()?,
            norm: LayerNorm::new(&scope, "norm", features, vit.eps)?,
            pixels: Linear::new(&scope, "pred", features, vit.patch * vit.patch * vit.channels)?,
            draws: Draws { seed: context.seed, ..Draws::default() },
            counts: [seen, patches],
            encoder,
            config,
        })
    }
}

fn vit(encoder: &dyn Backbone) -> Result<&Vit> {
    encoder.vit().ok_or_else(|| Error::argument("model", "a masked autoencoder needs a vision transformer, such as vit_mini_patch4_28"))
}

impl Mae {
    const HEAD: &'static str = "decoder";

    /// Which patches of each image are seen, i32 `[N, K]`, and which are hidden, `[N, L - K]`: the
    /// order of random numbers that follow from seed, epoch and place in the data set.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn divide(&self, indices: &Tensor, epoch: &Scalar<u32>) -> Result<[Tensor; 2]> {
        let ([seen, patches], draws) = (self.counts, Draws { epoch: epoch.clone(), ..self.draws.clone() });
        let (_, order) = indices.uniform_noise(patches, draws)?.topk(patches, 1)?;
        Ok([order.slice(1, 0, seen)?, order.slice(1, seen, patches)?])
    }

    /// What the hidden patches of `images` should be: `[N, L - K, patch * patch * C]`.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn target(&self, images: &Tensor, hidden: &Tensor) -> Result<Tensor> {
        let VitConfig { size: [h, w], patch: p, channels: c, .. } = *vit(&*self.encoder)?.config();
        let cut = images.reshape(&[images.shape().dim(0), h / p, p, w / p, p, c])?.permute(&[0, 1, 3, 2, 4, 5])?;
        let patches = pick(&cut.reshape(&[images.shape().dim(0), h / p * (w / p), p * p * c])?, hidden)?;
        if !self.config.normalize_target {
            return Ok(patches);
        }
        let (mean, var) = (patches.mean(&[2], true)?, patches.var(&[2], true, true)?);
        fuse([&patches, &mean, &var], |[x, mean, var]| (x - mean) / (var + 1e-6).sqrt())
    }

    /// What the hidden patches are said to be, from those that are seen, and the mean of the
    /// encoder's seen tokens `[N, D]`: the class token is not what the loss trains, and may well be
    /// the same for all images.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn predict(&self, images: &Tensor, [seen, hidden]: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        let ([n, visible], features) = ([images.shape().dim(0), self.counts[0]], self.config.decoder_features);
        let vit = vit(&*self.encoder)?;
        let encoded = vit.encode(&pick(&vit.embed(images, Mode::Train)?, seen)?, Mode::Train)?;
        let tokens = self.embed.forward(&encoded, Mode::Train)?;
        let masks = self.mask.tensor(Mode::Train)?.expand(&[n, self.counts[1] - visible, features])?;
        let order = Tensor::concat(&[seen, hidden], 1)?;
        let patches = Tensor::concat(&[&tokens.slice(1, 1, 1 + visible)?, &masks], 1)?.add(&self.positions.embedding(&order)?)?;
        let tokens = Tensor::concat(&[&tokens.slice(1, 0, 1)?, &patches], 1)?;
        let decoded = self.blocks.iter().try_fold(tokens, |x, block| block.forward(&x, Mode::Train))?;
        let decoded = self.norm.forward(&decoded.slice(1, 1 + visible, 1 + self.counts[1])?, Mode::Train)?;
        let tokens = encoded.detach().slice(1, 1, 1 + visible)?.mean(&[1], false)?;
        Ok([self.pixels.forward(&decoded, Mode::Train)?, tokens])
    }
}

impl Method for Mae {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let parts = self.divide(&batch.indices, &batch.epoch)?;
        let [predicted, tokens] = self.predict(images, &parts)?;
        let [_, hidden] = &parts;
        Ok(TrainStep::new(predicted.mse_loss(&self.target(images, hidden)?)?, [tokens]))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }
}

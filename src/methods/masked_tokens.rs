//! Masked language modelling (Devlin et al. 2018, arXiv:1810.04805): some tokens of each text are
//! hidden, and the encoder says what they were.
//!
//! The variant is the authors' own: of each text's ordinary tokens 15 %, at least one, are chosen
//! anew each epoch; of these 80 % become `[MASK]`, 10 % any other piece, 10 % stay. The head sees
//! the chosen places only; its last layer is the table of embeddings, with a bias. Special tokens
//! are never chosen. The loss is the mean over all chosen tokens of a batch.

use serde::{Deserialize, Serialize};

use super::mae::pick;
use super::{Batch, Build, HIDDEN, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result};
use crate::gpu::Scalar;
use crate::models::{Backbone, TokenEncoder, text_linear};
use crate::nn::{Init, Kind, LayerNorm, Linear, Mode, Module, Parameter, Parameters};
use crate::ops::augment::Draws;
use crate::ops::elementwise::fuse::fuse;
use crate::ops::loss::cross_entropy::CrossEntropyFuncOptions;
use crate::tensor::{DType, Tensor};

/// How masked language modelling is set up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskedTokensConfig {
    /// The share of ordinary tokens that is chosen.
    pub ratio: f32,
    /// The share of these that becomes `[MASK]`.
    pub mask: f32,
    /// The share of these that becomes any piece.
    pub random: f32,
    /// The number of `[MASK]`.
    pub mask_token: u16,
    /// How many numbers, from 0 on, are no ordinary tokens: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`,
    /// `[MASK]`.
    pub special_tokens: u16,
}

impl Default for MaskedTokensConfig {
    fn default() -> Self {
        Self { ratio: 0.15, mask: 0.8, random: 0.1, mask_token: 4, special_tokens: 5 }
    }
}

/// An encoder of texts with a head that says what hidden tokens were.
pub struct MaskedTokens {
    encoder: Box<dyn Backbone>,
    dense: Linear,
    norm: LayerNorm,
    bias: Parameter,
    draws: Draws,
    config: MaskedTokensConfig,
    /// The number of `[MASK]`, `[1]`, and the ranks of chosen tokens, `[1, K]`.
    mask: Tensor,
    ranks: Tensor,
}

/// Texts with hidden tokens.
pub struct Hidden {
    /// What the encoder is given, i32 `[N, L]`.
    pub tokens: Tensor,
    /// The chosen places, i32 `[N, K]`.
    pub places: Tensor,
    /// What was there, i32 `[N, K]`; [`HIDDEN`] where a text has fewer to choose.
    pub labels: Tensor,
}

fn text(encoder: &dyn Backbone) -> Result<&dyn TokenEncoder> {
    encoder.token_encoder().ok_or_else(|| Error::argument("model", "masked tokens need an encoder of texts, such as bert_l4_h128"))
}

impl MethodFactory for MaskedTokens {
    const CARD: MethodCard = MethodCard {
        name: "masked_tokens",
        title: "Masked language modelling (BERT)",
        text: "What hidden words are; for encoders of texts",
        supervision: Supervision::SelfSupervised,
        family: "generative",
        year: 2018,
        authors: "Devlin, Chang, Lee, Toutanova",
        paper: "BERT: Pre-training of Deep Bidirectional Transformers, arXiv:1810.04805",
        related: &["mae", "transformer_distillation"],
    };

    const HEADS: &'static [&'static str] = &[Self::HEAD];

    type Config = MaskedTokensConfig;

    fn new(params: &Parameters, build: Build, config: MaskedTokensConfig, context: &MethodContext) -> Result<Self> {
        let MaskedTokensConfig { ratio, mask, random, .. } = config;
        if !(ratio > 0.0 && ratio <= 1.0) {
            return Err(Error::argument("ratio", format!("expected above 0 to 1, found {ratio}")));
        }
        if !(mask >= 0.0 && random >= 0.0 && mask + random <= 1.0) {
            return Err(Error::argument(
                "mask",
                format!("it and random must be 0 or more and 1 together at most, found {mask} and {random}"),
            ));
        }
        let (encoder, gpu) = (build(params)?, params.gpu());
        let (features, vocabulary, eps) = (encoder.features(), text(&*encoder)?.config().vocabulary, text(&*encoder)?.config().eps);
        let length = context.input.tokens(Self::CARD.name)?;
        let most = ((length as f32 * ratio).ceil() as usize).clamp(1, length.max(1));
        let ranks: Vec<f32> = (0..most).map(|rank| rank as f32).collect();
        let scope = params.scope(Self::HEAD);
        Ok(Self {
            dense: text_linear(&scope, "vocab_transform", features, features)?,
            norm: LayerNorm::new(&scope, "vocab_layer_norm", features, eps)?,
            bias: scope.parameter("vocab_projector.bias", [vocabulary], Kind::Bias, Init::ZEROS)?,
            draws: Draws { seed: context.seed, ..Draws::default() },
            mask: Tensor::full(gpu, [1], f32::from(config.mask_token), DType::F32)?,
            ranks: Tensor::from_slice(gpu, &ranks, [1, most])?,
            encoder,
            config,
        })
    }
}

impl MaskedTokens {
    const HEAD: &'static str = "decoder";

    /// Hides tokens, i32 `[N, L]`, of the texts at the places `indices` of the data set, by random
    /// numbers that follow from seed, epoch and place.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn hide(&self, tokens: &Tensor, indices: &Tensor, epoch: &Scalar<u32>) -> Result<Hidden> {
        let ([length, most], MaskedTokensConfig { ratio, mask, random, .. }) = ([tokens.shape().last(), self.ranks.numel()], self.config);
        let specials = f32::from(self.config.special_tokens);
        // Whole numbers below 2^16 are exact.
        let tokens = &tokens.cast(DType::F32)?;
        let noise = |step| indices.uniform_noise(length, Draws { epoch: epoch.clone(), step, ..self.draws.clone() });
        let ordinary = tokens.add_scalar(1.0 - specials)?.clamp(0.0, 1.0)?;
        let count = ordinary.sum(&[1], true)?;
        let wanted = fuse([&whole(&count.mul_scalar(ratio)?)?, &count], |[wanted, count]| wanted.maximum(1.0).minimum(count))?;
        // Ordinary tokens in random order, then the others.
        let (_, order) = fuse([&ordinary, &noise(0)?], |[ordinary, noise]| ordinary * (noise + 1.0))?.topk(length, 1)?;
        let (_, ranks) = order.cast(DType::F32)?.neg()?.topk(length, 1)?;
        let below = |ranks: &Tensor| fuse([&wanted, ranks], |[wanted, rank]| (wanted - rank).maximum(0.0).minimum(1.0));
        let chosen = below(&ranks.cast(DType::F32)?)?;
        // The next whole number: 1 where a uniform number is less than the share.
        let kind = noise(1)?;
        let with_chance = |share: f32| fuse([&kind], |[kind]| 0.5 + share - kind)?.cast(DType::I32);
        let vocabulary = text(&*self.encoder)?.config().vocabulary as f32;
        let any = whole(&fuse([&noise(2)?], |[x]| (x * (vocabulary - specials) + (specials - 0.5)).maximum(specials))?)?;
        let other = with_chance(mask)?.where_(&self.mask, &with_chance(mask + random)?.where_(&any, tokens)?)?;
        let given = fuse([tokens, &other, &chosen], |[token, other, chosen]| &token + (other - &token) * chosen)?;
        let places = order.slice(1, 0, most)?;
        let labels = fuse([&tokens.gather(1, &places)?, &below(&self.ranks)?], |[token, chosen]| (token + 1.0) * chosen - 1.0)?;
        Ok(Hidden { tokens: given.cast(DType::I32)?, places, labels: labels.cast(DType::I32)? })
    }
}

/// The nearest whole numbers.
fn whole(x: &Tensor) -> Result<Tensor> {
    x.cast(DType::I32)?.cast(DType::F32)
}

impl Method for MaskedTokens {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [texts] = batch.exactly(self.name())?;
        let encoder = text(&*self.encoder)?;
        let Hidden { tokens, places, labels } = self.hide(texts, &batch.indices, &batch.epoch)?;
        let encoding = encoder.encode(&tokens, false, Mode::Train)?;
        let rows = pick(encoding.last()?, &places)?.reshape(&[places.numel(), self.encoder.features()])?;
        let rows = self.norm.forward(&self.dense.forward(&rows, Mode::Train)?.gelu()?, Mode::Train)?;
        let logits = rows.matmul_nt(&encoder.words().tensor(Mode::Train)?)?.add(&self.bias.tensor(Mode::Train)?)?;
        let options = CrossEntropyFuncOptions { ignore_index: Some(HIDDEN), ..Default::default() };
        let loss = logits.cross_entropy_with(&labels.reshape(&[places.numel()])?, &options)?;
        Ok(TrainStep::new(loss, [encoding.features()?]))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }
}

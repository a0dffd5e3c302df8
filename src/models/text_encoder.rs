//! Encoders of token sequences: BERT (Devlin et al. 2018, arXiv:1810.04805) as DistilBERT (Sanh et
//! al. 2019, arXiv:1910.01108) simplifies it, without token types and pooler; norms stand behind
//! the layers. Names and initial values are DistilBERT's. Features are the mean over tokens, which
//! small networks learn sooner from few texts than the first token's.

use super::registry::Family;
use super::vit::{check_depth, no_convolutions};
use super::{Architecture, Backbone, Model, ModelOptions};
use crate::error::{Error, Result, require_share};
use crate::nn::{Dropout, Init, Kind, LayerNorm, Linear, LinearOptions, Mode, Module, Parameter, Parameters, Summary};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::{DType, InputShape, Shape, Tensor};

/// How a network is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextConfig {
    /// Token numbers lie below it.
    pub vocabulary: usize,
    /// The longest text, in tokens.
    pub length: usize,
    /// Features of a token.
    pub features: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Features between the two linear layers of a block, as a multiple of a token's.
    pub mlp_ratio: usize,
    /// Added to the variance in layer norms.
    pub eps: f32,
    /// Dropout of embeddings, of both halves of a block, and before a classifier.
    pub drop_rate: f32,
}

/// Encoders of texts.
pub(super) const FAMILY: Family = Family {
    names: &["bert_l4_h128", "bert_l2_h128", "bert_l12_h768", "bert_l6_h768"],
    patterns: &[("bert_lDEPTH_hFEATURES", "so many blocks and features, with _vVOCABULARY behind them for other than 4,096 tokens")],
    parse,
    published: &[],
};

fn parse(name: &str, options: &ModelOptions) -> Option<Result<Model>> {
    let config = TextConfig::named(name)?;
    let length = options.length.unwrap_or(config.length);
    let config = TextConfig { length, drop_rate: options.drop_rate, ..config };
    Some(no_convolutions(name, options).map(|()| Model::new(length, config)))
}

impl Architecture for TextConfig {
    fn build(&self, params: &Parameters) -> Result<Box<dyn Backbone>> {
        Ok(Box::new(TextEncoder::new(params, self)?))
    }

    fn input(&self, _: usize, _: usize) -> InputShape {
        InputShape::Tokens(self.length)
    }
}

impl TextConfig {
    /// `bert_lDEPTH_hFEATURES`, as BERT's authors call their small ones, perhaps with `_vVOCABULARY` (4,096 where it is not said); a head has 64
    /// features, but there are at least 4. `None` for another name.
    pub fn named(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("bert_")?.split('_');
        let mut number = |prefix| parts.next()?.strip_prefix(prefix)?.parse::<usize>().ok();
        let (depth, features) = (number('l')?, number('h')?);
        let vocabulary = number('v').unwrap_or(4096);
        let heads = (features / 64).max(4);
        Some(Self { vocabulary, length: 32, features, depth, heads, mlp_ratio: 4, eps: 1e-12, drop_rate: 0.0 })
    }

    fn check(&self) -> Result<()> {
        if self.heads == 0 || self.features == 0 || !self.features.is_multiple_of(self.heads) {
            return Err(Error::argument("text_encoder", format!("{} heads must divide {} features", self.heads, self.features)));
        }
        if self.length == 0 || !(1..=1 << 16).contains(&self.vocabulary) {
            let message = format!("expected a length of at least 1 and a vocabulary of 1 to 65536, found {self:?}");
            return Err(Error::argument("text_encoder", message));
        }
        check_depth("text_encoder", self.depth)
    }
}

const INIT: Init = Init::Normal { std: 0.02 };

/// A linear layer as all of BERT's begin.
pub(crate) fn linear(params: &Parameters, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
    Linear::with(params, name, inputs, outputs, LinearOptions { init: Some(INIT), ..Default::default() })
}

/// One block: attention and two linear layers, each beside a shortcut and before a norm.
struct Block {
    queries: Linear,
    keys: Linear,
    values: Linear,
    out: Linear,
    norm1: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    norm2: LayerNorm,
    dropouts: [Dropout; 2],
    heads: usize,
}

impl Block {
    fn new(params: &Parameters, config: &TextConfig, number: usize) -> Result<Self> {
        let TextConfig { features, heads, mlp_ratio, eps, drop_rate, .. } = *config;
        let square = |name| linear(params, name, features, features);
        Ok(Self {
            queries: square("attention.q_lin")?,
            keys: square("attention.k_lin")?,
            values: square("attention.v_lin")?,
            out: square("attention.out_lin")?,
            norm1: LayerNorm::new(params, "sa_layer_norm", features, eps)?,
            lin1: linear(params, "ffn.lin1", features, features.saturating_mul(mlp_ratio))?,
            lin2: linear(params, "ffn.lin2", features.saturating_mul(mlp_ratio), features)?,
            norm2: LayerNorm::new(params, "output_layer_norm", features, eps)?,
            dropouts: [0, 1].map(|half| Dropout::new(params, drop_rate, (2 * number + half) as u32)),
            heads,
        })
    }

    /// Tokens `[N, L, D]` of texts whose padding `ids` `[N, L]` marks by 0; adds the scores
    /// `[N, heads, L, L]` where there is room for them.
    fn run(&self, x: &Tensor, ids: &Tensor, scores: Option<&mut Vec<Tensor>>, mode: Mode) -> Result<Tensor> {
        let wrong = || Error::shape("text_encoder", format!("tokens {} must be [N, L, D]", x.shape()));
        let [n, l, d] = x.shape().array::<3>().ok_or_else(wrong)?;
        let per_head = |layer: &Linear| layer.forward(x, mode)?.reshape(&[n, l, self.heads, d / self.heads])?.permute(&[0, 2, 1, 3]);
        let [q, k, v] = [per_head(&self.queries)?, per_head(&self.keys)?, per_head(&self.values)?];
        if let Some(scores) = scores {
            scores.push(q.matmul_nt(&k)?.mul_scalar(1.0 / ((d / self.heads) as f32).sqrt())?);
        }
        let mixed = q.scaled_dot_product_attention(&k, &v, Some(ids), false)?.permute(&[0, 2, 1, 3])?.reshape(&[n, l, d])?;
        let [first, second] = &self.dropouts;
        let x = self.norm1.forward(&first.forward(&self.out.forward(&mixed, mode)?, mode)?.add(x)?, mode)?;
        let inside = self.lin2.forward(&self.lin1.forward(&x, mode)?.gelu()?, mode)?;
        self.norm2.forward(&second.forward(&inside, mode)?.add(&x)?, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        for layer in [&self.queries, &self.keys, &self.values, &self.out] {
            layer.summarize(input, summary)?;
        }
        let inside = self.lin1.summarize(&self.norm1.summarize(input, summary)?, summary)?;
        self.norm2.summarize(&self.lin2.summarize(&inside, summary)?, summary)
    }
}

/// What a text is inside a network.
pub struct Encoding {
    /// The embeddings, then what each block makes of them: `[N, L, D]` each.
    pub hidden: Vec<Tensor>,
    /// Where they were asked for, each block's `q k^T / sqrt(d)`, `[N, heads, L, L]`, before mask
    /// and softmax.
    pub scores: Vec<Tensor>,
    /// 1 where there is a token, 0 where there is padding: `[N, L, 1]`.
    pub mask: Tensor,
}

impl Encoding {
    /// What the last block gives.
    ///
    /// # Errors
    /// Never, of an encoding that an encoder made.
    pub fn last(&self) -> Result<&Tensor> {
        self.hidden.last().ok_or_else(|| Error::argument("text_encoder", "the encoding is empty"))
    }

    /// The mean over a text's tokens: `[N, D]`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn features(&self) -> Result<Tensor> {
        let sum = self.last()?.mul(&self.mask)?.sum(&[1], false)?;
        fuse([&sum, &self.mask.sum(&[1], false)?], |[sum, count]| sum / count.maximum(1.0))
    }
}

/// What methods ask of a network that reads texts.
pub trait TokenEncoder {
    /// How it was made.
    fn config(&self) -> &TextConfig;

    /// The table of token embeddings `[vocabulary, D]`.
    fn words(&self) -> &Parameter;

    /// Token numbers, i32 `[N, L]`, through all blocks; with `scores`, also what attention is made
    /// of.
    ///
    /// # Errors
    /// Texts that are too long; out of memory. A number beyond the vocabulary gives NaN.
    fn encode(&self, tokens: &Tensor, scores: bool, mode: Mode) -> Result<Encoding>;
}

/// The network without its classifier: token numbers of texts, i32 `[N, L]`, to features `[N, D]`.
/// Number 0 is padding, which changes nothing.
pub struct TextEncoder {
    words: Parameter,
    positions: Parameter,
    norm: LayerNorm,
    dropout: Dropout,
    blocks: Vec<Block>,
    config: TextConfig,
    names: [String; 2],
}

impl TextEncoder {
    /// Makes the network in the scope `params`.
    ///
    /// # Errors
    /// [`Error::Argument`] where heads do not divide the features; out of memory; a name that is
    /// taken with another shape.
    pub fn new(params: &Parameters, config: &TextConfig) -> Result<Self> {
        require_share("bert", "drop_rate", config.drop_rate)?;
        config.check()?;
        let names = ["embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"];
        let [words, positions] = [config.vocabulary, config.length].map(|rows| [rows, config.features]);
        let block = |number| Block::new(&params.scope(format!("transformer.layer.{number}")), config, number);
        Ok(Self {
            words: params.parameter(names[0], words, Kind::Embedding, INIT)?,
            positions: params.parameter(names[1], positions, Kind::Embedding, INIT)?,
            norm: LayerNorm::new(params, "embeddings.LayerNorm", config.features, config.eps)?,
            // Behind those of all blocks.
            dropout: Dropout::new(params, config.drop_rate, 1 << 15),
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            config: *config,
            names: names.map(|name| params.scope(name).name().into()),
        })
    }

    /// N and L of texts of that shape.
    fn batch(&self, texts: &Shape) -> Result<[usize; 2]> {
        match texts.array::<2>() {
            Some([n, l]) if (1..=self.config.length).contains(&l) => Ok([n, l]),
            _ => {
                let message = format!("it reads texts [N, L] of at most {} tokens, found shape {texts}", self.config.length);
                Err(Error::shape("text_encoder", message))
            }
        }
    }
}

impl TokenEncoder for TextEncoder {
    fn config(&self) -> &TextConfig {
        &self.config
    }

    fn words(&self) -> &Parameter {
        &self.words
    }

    fn encode(&self, tokens: &Tensor, scores: bool, mode: Mode) -> Result<Encoding> {
        let [n, l] = self.batch(tokens.shape())?;
        let mask = tokens.cast(DType::F32)?.clamp(0.0, 1.0)?.reshape(&[n, l, 1])?;
        let embedded = self.words.tensor(mode)?.embedding(tokens)?.add(&self.positions.tensor(mode)?.slice(0, 0, l)?)?;
        let mut x = self.dropout.forward(&self.norm.forward(&embedded, mode)?, mode)?;
        let (mut hidden, mut found) = (vec![x.clone()], Vec::new());
        for block in &self.blocks {
            x = block.run(&x, tokens, scores.then_some(&mut found), mode)?;
            hidden.push(x.clone());
        }
        Ok(Encoding { hidden, scores: found, mask })
    }
}

impl Module for TextEncoder {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.encode(x, false, mode)?.features()
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let ([n, l], d) = (self.batch(input)?, self.config.features);
        let tokens = Shape::from([n, l, d]);
        for (name, rows) in self.names.iter().zip([self.config.vocabulary, self.config.length]) {
            summary.push(name, &tokens, rows * d, 0);
        }
        let tokens = self.norm.summarize(&tokens, summary)?;
        self.blocks.iter().try_fold(tokens, |shape, block| block.summarize(&shape, summary))?;
        Ok(Shape::from([n, d]))
    }
}

impl Backbone for TextEncoder {
    fn features(&self) -> usize {
        self.config.features
    }

    fn forward_features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let [n, l] = self.batch(x.shape())?;
        self.encode(x, false, mode)?.last()?.reshape(&[n, 1, l, self.config.features])
    }

    fn token_encoder(&self) -> Option<&dyn TokenEncoder> {
        Some(self)
    }

    fn drop_rate(&self) -> f32 {
        self.config.drop_rate
    }

    fn head_init(&self, _: usize) -> Option<Init> {
        Some(INIT)
    }
}

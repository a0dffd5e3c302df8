//! Vision transformers (Dosovitskiy et al. 2020, arXiv:2010.11929): patches as tokens, a class
//! token that is read out, learned positions, norms before the layers. Names and initial values are
//! timm's.

use super::positions::Positions;
use super::preprocessing::{HALF, IMAGENET, Published, published};
use super::registry::Family;
use super::torchvision::{self, Renames};
use super::{Architecture, Backbone, Model, ModelOptions};
use crate::error::{Error, Result, require_share};
use crate::io::Interpolation::Bicubic;
use crate::nn::layers::Conv2dOptions;
use crate::nn::{Blocks, Conv2d, DropPath, Init, Kind, LayerNorm, Linear, LinearOptions, Mode, Module, Parameter, Parameters, Summary};
use crate::ops::convolution::geometry::Padding;
use crate::tensor::{Shape, Tensor};

/// How a network is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VitConfig {
    /// Channels of the images.
    pub channels: usize,
    /// Height and width of the images: the position embeddings are made for them, and interpolated
    /// for others.
    pub size: [usize; 2],
    /// Side of a patch.
    pub patch: usize,
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
    /// Dropout before a classifier.
    pub drop_rate: f32,
    /// Stochastic depth of the last block; block i of n has `i / (n - 1)` of it.
    pub drop_path: f32,
}

/// Vision transformers.
pub(super) const FAMILY: Family = Family {
    names: &[
        "vit_mini_patch4_28",
        "vit_mini_patch4_32",
        "vit_mini_patch7_28",
        "vit_tiny_patch16_224",
        "vit_small_patch16_224",
        "vit_small_patch32_224",
        "vit_base_patch16_224",
        "vit_base_patch32_224",
    ],
    patterns: &[("vit_SIZE_patchP_R", "mini, tiny, small, base or large, with patches of P for images of R")],
    parse,
    published: PUBLISHED,
};

fn parse(name: &str, options: &ModelOptions) -> Option<Result<Model>> {
    let [size, patch, resolution] = name.strip_prefix("vit_")?.split('_').collect::<Vec<_>>().try_into().ok()?;
    let config = VitConfig::named(size, patch.strip_prefix("patch")?.parse().ok()?, resolution.parse().ok()?)?;
    if let Err(error) = no_convolutions(name, options) {
        return Some(Err(error));
    }
    let ModelOptions { channels, drop_rate, drop_path, .. } = *options;
    let config = VitConfig { channels, size: options.size.unwrap_or(config.size), drop_rate, drop_path, ..config };
    let [resolution, _] = config.size;
    Some(Ok(Model::new(resolution, config)))
}

/// Refuses options that only networks of convolutions have.
pub(super) fn no_convolutions(name: &str, options: &ModelOptions) -> Result<()> {
    let option = match (options.width, options.stem_stride) {
        (1.0, None) => return Ok(()),
        (1.0, Some(_)) => "stem_stride",
        _ => "width",
    };
    Err(Error::argument(option, format!("\"{name}\" is a transformer and has none")))
}

#[rustfmt::skip]
const PUBLISHED: &[Published] = &[
    published("vit_tiny_patch16_224", "augreg_in21k_ft_in1k augreg_in21k", 224, 0.9, Bicubic, HALF),
    published("vit_tiny_patch16_384", "augreg_in21k_ft_in1k", 384, 1.0, Bicubic, HALF),
    published("vit_small_patch16_224", "augreg_in21k_ft_in1k augreg_in1k augreg_in21k", 224, 0.9, Bicubic, HALF),
    published("vit_small_patch16_224", "dino", 224, 0.9, Bicubic, IMAGENET),
    published("vit_small_patch16_384", "augreg_in21k_ft_in1k augreg_in1k", 384, 1.0, Bicubic, HALF),
    published("vit_small_patch32_224", "augreg_in21k_ft_in1k augreg_in21k", 224, 0.9, Bicubic, HALF),
    published("vit_small_patch32_384", "augreg_in21k_ft_in1k", 384, 1.0, Bicubic, HALF),
    published("vit_base_patch16_224", "augreg2_in21k_ft_in1k augreg_in1k augreg_in21k augreg_in21k_ft_in1k orig_in21k orig_in21k_ft_in1k sam_in1k", 224, 0.9, Bicubic, HALF),
    published("vit_base_patch16_224", "dino mae", 224, 0.9, Bicubic, IMAGENET),
    published("vit_base_patch16_384", "augreg_in21k_ft_in1k augreg_in1k orig_in21k_ft_in1k", 384, 1.0, Bicubic, HALF),
    published("vit_base_patch32_224", "augreg_in21k_ft_in1k augreg_in1k augreg_in21k orig_in21k sam_in1k", 224, 0.9, Bicubic, HALF),
    published("vit_base_patch32_384", "augreg_in21k_ft_in1k augreg_in1k", 384, 1.0, Bicubic, HALF),
];

impl Architecture for VitConfig {
    fn build(&self, params: &Parameters) -> Result<Box<dyn Backbone>> {
        Ok(Box::new(Vit::new(params, self)?))
    }

    fn torchvision(&self) -> Option<Renames> {
        Some(torchvision::transformer(self.depth))
    }
}

impl VitConfig {
    /// The network called `tiny`, `small`, `base` or `large`, or our own `mini` for small images,
    /// for square images; `None` for another name.
    pub fn named(name: &str, patch: usize, resolution: usize) -> Option<Self> {
        let (features, depth, heads) = match name {
            "mini" => (64, 3, 4),
            "tiny" => (192, 12, 3),
            "small" => (384, 12, 6),
            "base" => (768, 12, 12),
            "large" => (1024, 24, 16),
            _ => return None,
        };
        let size = [resolution; 2];
        Some(Self { channels: 3, size, patch, features, depth, heads, mlp_ratio: 4, eps: 1e-6, drop_rate: 0.0, drop_path: 0.0 })
    }

    fn check(&self) -> Result<()> {
        let [h, w] = self.size;
        if self.patch == 0 || h == 0 || w == 0 || !h.is_multiple_of(self.patch) || !w.is_multiple_of(self.patch) {
            return Err(Error::argument("vit", format!("images of {h} x {w} cannot be cut into patches of {0} x {0}", self.patch)));
        }
        if self.heads == 0 || !self.features.is_multiple_of(self.heads) || self.features == 0 {
            return Err(Error::argument("vit", format!("{} heads must divide {} features", self.heads, self.features)));
        }
        check_depth("vit", self.depth)
    }
}

/// Transformers of more blocks than any has are a mistake.
///
/// # Errors
/// [`Error::Argument`] of `subject` with the number.
pub(crate) fn check_depth(subject: &str, depth: usize) -> Result<()> {
    const MOST: usize = 1000;
    if depth <= MOST { Ok(()) } else { Err(Error::argument(subject, format!("expected at most {MOST} blocks, found {depth}"))) }
}

/// Of linear weights and position embeddings. timm's `trunc_normal_` cuts at an absolute 2, a
/// hundred standard deviations: that is no cut.
const INIT: Init = Init::Normal { std: 0.02 };

fn linear(params: &Parameters, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
    Linear::with(params, name, inputs, outputs, LinearOptions { init: Some(INIT), ..Default::default() })
}

/// One block: attention and two linear layers, each behind a norm and beside a shortcut.
pub(crate) struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    drop_paths: [DropPath; 2],
    heads: usize,
}

impl Block {
    /// Block `number` of `config.depth`, in the scope `params`.
    pub(crate) fn new(params: &Parameters, config: &VitConfig, number: usize) -> Result<Self> {
        let (features, hidden) = (config.features, config.features.saturating_mul(config.mlp_ratio));
        let rate = config.drop_path * number as f32 / config.depth.saturating_sub(1).max(1) as f32;
        Ok(Self {
            norm1: LayerNorm::new(params, "norm1", features, config.eps)?,
            qkv: linear(params, "attn.qkv", features, 3 * features)?,
            proj: linear(params, "attn.proj", features, features)?,
            norm2: LayerNorm::new(params, "norm2", features, config.eps)?,
            fc1: linear(params, "mlp.fc1", features, hidden)?,
            fc2: linear(params, "mlp.fc2", hidden, features)?,
            drop_paths: [0, 1].map(|half| DropPath::new(params, rate, (2 * number + half) as u32)),
            heads: config.heads,
        })
    }

    /// Self-attention of tokens `[N, L, D]`.
    fn attention(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let wrong = || Error::shape("vit", format!("tokens {} must be [N, L, D]", x.shape()));
        let [n, l, d] = x.shape().array::<3>().ok_or_else(wrong)?;
        let per_head = [n, l, 3, self.heads, d / self.heads];
        let qkv = self.qkv.forward(x, mode)?.reshape(&per_head)?.permute(&[2, 0, 3, 1, 4])?;
        let part = |i: usize| qkv.slice(0, i, i + 1)?.reshape(&[n, self.heads, l, d / self.heads]);
        let mixed = part(0)?.scaled_dot_product_attention(&part(1)?, &part(2)?, None, false)?;
        self.proj.forward(&mixed.permute(&[0, 2, 1, 3])?.reshape(&[n, l, d])?, mode)
    }
}

impl Module for Block {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let [first, second] = &self.drop_paths;
        let x = first.forward(&self.attention(&self.norm1.forward(x, mode)?, mode)?, mode)?.add(x)?;
        let inside = self.fc1.forward(&self.norm2.forward(&x, mode)?, mode)?.gelu()?;
        second.forward(&self.fc2.forward(&inside, mode)?, mode)?.add(&x)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        self.qkv.summarize(&self.norm1.summarize(input, summary)?, summary)?;
        self.proj.summarize(input, summary)?;
        let inside = self.fc1.summarize(&self.norm2.summarize(input, summary)?, summary)?;
        self.fc2.summarize(&inside, summary)
    }
}

/// The network without its classifier: images `[N, H, W, C]` to the class token's features
/// `[N, D]`.
pub struct Vit {
    class: Parameter,
    positions: Parameter,
    resized: Positions,
    patches: Conv2d,
    blocks: Blocks<Block>,
    norm: LayerNorm,
    config: VitConfig,
    names: [String; 2],
}

impl Vit {
    /// Makes the network in the scope `params`.
    ///
    /// # Errors
    /// [`Error::Argument`] where patches do not cut the images or heads the features evenly; out of
    /// memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, config: &VitConfig) -> Result<Self> {
        require_share("vit", "drop_rate", config.drop_rate)?;
        require_share("vit", "drop_path", config.drop_path)?;
        config.check()?;
        let VitConfig { channels, size: [h, w], patch, features, .. } = *config;
        let tokens = (h / patch).saturating_mul(w / patch).saturating_add(1);
        let class = params.parameter("cls_token", [1, 1, features], Kind::Embedding, Init::Normal { std: 1e-6 })?;
        let positions = params.parameter("pos_embed", [1, tokens, features], Kind::Embedding, INIT)?;
        let convolution =
            Conv2dOptions { kernel: patch, stride: patch, padding: Some(Padding::Explicit([0; 4])), bias: true, ..Default::default() };
        let patches = Conv2d::new(params, "patch_embed.proj", channels, features, convolution)?;
        let block = |number| Block::new(&params.scope(format!("blocks.{number}")), config, number);
        let blocks = (0..config.depth).map(block).collect::<Result<Vec<_>>>()?.into();
        let norm = LayerNorm::new(params, "norm", features, config.eps)?;
        let names = ["cls_token", "pos_embed"].map(|name| params.scope(name).name().into());
        let resized = Positions::of([h / patch, w / patch]);
        Ok(Self { class, positions, resized, patches, blocks, norm, config: *config, names })
    }

    /// How it was made.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Images `[N, H, W, C]` as tokens `[N, L, D]`, one a patch, row by row, with their positions
    /// added.
    ///
    /// # Errors
    /// Images that patches do not cut; out of memory.
    pub fn embed(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let (n, d) = (self.batch(images.shape())?, self.config.features);
        let maps = self.patches.forward(images, mode)?;
        let grid = [maps.shape().dim(1), maps.shape().dim(2)];
        let positions = self.resized.resized(&self.positions.tensor(mode)?, grid)?;
        maps.reshape(&[n as isize, -1, d as isize])?.add(&positions.slice(1, 1, 1 + grid.iter().product::<usize>())?)
    }

    /// Any of an image's tokens `[N, L, D]`, with the class token before them, through all blocks
    /// and the norm: `[N, 1 + L, D]`.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn encode(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        self.norm.forward(&self.run_blocks(tokens, mode)?, mode)
    }

    fn run_blocks(&self, tokens: &Tensor, mode: Mode) -> Result<Tensor> {
        let class = self.class.tensor(mode)?.add(&self.positions.tensor(mode)?.slice(1, 0, 1)?)?;
        let class = class.expand(&[tokens.shape().dim(0), 1, self.config.features])?;
        let x = Tensor::concat(&[&class, tokens], 1)?;
        self.blocks.forward(&x, mode)
    }

    /// The batch of images of that shape.
    fn batch(&self, images: &Shape) -> Result<usize> {
        let VitConfig { channels, patch, .. } = self.config;
        match images.array::<4>() {
            Some([n, h, w, c]) if c == channels && [h, w].iter().all(|side| *side > 0 && side.is_multiple_of(patch)) => Ok(n),
            _ => {
                Err(Error::shape("vit", format!("images {images} must be [N, H, W, {channels}] with sides that are multiples of {patch}")))
            }
        }
    }
}

impl Module for Vit {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let tokens = self.run_blocks(&self.embed(x, mode)?, mode)?;
        self.norm.forward(&tokens.slice(1, 0, 1)?.reshape(&[x.shape().dim(0), self.config.features])?, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let (n, d) = (self.batch(input)?, self.config.features);
        let maps = self.patches.summarize(input, summary)?;
        let tokens = Shape::from([n, 1 + maps.dim(1) * maps.dim(2), d]);
        let [class, positions] = &self.names;
        summary.push(class, &Shape::from([n, 1, d]), d, 0);
        let [h, w] = self.config.size.map(|side| side / self.config.patch);
        summary.push(positions, &tokens, (1 + h * w) * d, 0);
        self.blocks.summarize(&tokens, summary)?;
        self.norm.summarize(&Shape::from([n, d]), summary)
    }
}

impl Backbone for Vit {
    fn features(&self) -> usize {
        self.config.features
    }

    fn forward_features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let [maps, _] = self.maps_and_features(x, mode)?;
        Ok(maps)
    }

    fn maps_and_features(&self, x: &Tensor, mode: Mode) -> Result<[Tensor; 2]> {
        let VitConfig { patch, features, .. } = self.config;
        let (n, rows, columns) = (self.batch(x.shape())?, x.shape().dim(1) / patch, x.shape().dim(2) / patch);
        let tokens = self.encode(&self.embed(x, mode)?, mode)?;
        let maps = tokens.slice(1, 1, 1 + rows * columns)?.reshape(&[n, rows, columns, features])?;
        Ok([maps, tokens.slice(1, 0, 1)?.reshape(&[n, features])?])
    }

    fn vit(&self) -> Option<&Vit> {
        Some(self)
    }

    fn set_grad_checkpointing(&mut self, on: bool) -> Result<()> {
        self.blocks.set_checkpoints(on);
        Ok(())
    }

    fn drop_rate(&self) -> f32 {
        self.config.drop_rate
    }

    fn head(&self) -> &'static str {
        "head"
    }

    fn head_init(&self, _: usize) -> Option<Init> {
        Some(INIT)
    }
}

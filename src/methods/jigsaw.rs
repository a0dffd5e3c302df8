//! Jigsaw puzzles (Noroozi and Favaro 2016, arXiv:1603.09246): the tiles of an image are shuffled,
//! and the network says by which of some permutations.

use serde::{Deserialize, Serialize};

use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result};
use crate::gpu::Scalar;
use crate::models::{Backbone, Mlp, MlpConfig};
use crate::nn::{Mode, Module, Parameters};
use crate::ops::augment::Draws;
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

/// What the encoder sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JigsawInput {
    /// Each tile on its own; the head takes all tiles' features (the paper's context-free network).
    /// It needs an encoder of any image size.
    Tiles,
    /// The shuffled image as a whole.
    #[default]
    Image,
}

/// How puzzles are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JigsawConfig {
    /// Tiles along each side. Pixels that they do not cover evenly are cut off at the right and at
    /// the bottom.
    pub grid: usize,
    /// Pixels between tiles, which keep edges from telling what is whose neighbour. A tile is the
    /// middle of its cell (the paper's lies at random).
    pub gap: usize,
    /// Permutations to tell apart.
    pub permutations: usize,
    /// Each tile gets mean 0 and variance 1, so that brightness tells nothing.
    pub normalize_tiles: bool,
    /// What the encoder sees.
    pub sight: JigsawInput,
    /// Features to permutations, which are its `outputs` whatever it says of them.
    pub head: MlpConfig,
}

impl Default for JigsawConfig {
    fn default() -> Self {
        let head = MlpConfig { outputs: 24, ..MlpConfig::default() };
        Self { grid: 2, gap: 0, permutations: 24, normalize_tiles: false, sight: JigsawInput::default(), head }
    }
}

/// The loss is the cross entropy of the permutation.
pub struct Jigsaw {
    encoder: Box<dyn Backbone>,
    head: Mlp,
    /// `[permutations, tiles]`: the tile that comes to each place.
    table: Tensor,
    draws: Draws,
    config: JigsawConfig,
}

/// `count` permutations of `tiles` that differ in many places: from some random ones, each time the
/// one that is farthest (by Hamming distance) from the nearest of those chosen before.
///
/// # Errors
/// [`Error::Argument`] where there are not so many.
pub fn permutations(tiles: u32, count: usize, seed: u32) -> Result<Vec<Vec<u32>>> {
    /// All permutations of six tiles and less.
    const CANDIDATES: usize = 4096;
    let all = (1..=tiles as usize).try_fold(1usize, |product, n| product.checked_mul(n)).unwrap_or(usize::MAX);
    if count < 2 || count > all.min(CANDIDATES) {
        let most = all.min(CANDIDATES);
        return Err(Error::argument("permutations", format!("expected 2 to {most} for {tiles} tiles, found {count}")));
    }
    let mut stream = Stream::keyed(seed, Purpose::Mask.key(), 0);
    let mut candidates = std::collections::BTreeSet::new();
    while candidates.len() < all.min(CANDIDATES) {
        candidates.insert(stream.permutation(tiles));
    }
    let mut candidates: Vec<(usize, Vec<u32>)> = candidates.into_iter().map(|order| (usize::MAX, order)).collect();
    let mut next = stream.below(candidates.len() as u32) as usize;
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let (_, order) = candidates.swap_remove(next);
        let apart = |other: &[u32]| order.iter().zip(other).filter(|(a, b)| a != b).count();
        candidates.iter_mut().for_each(|(nearest, other)| *nearest = apart(other).min(*nearest));
        next = candidates.iter().enumerate().max_by_key(|(_, (nearest, _))| *nearest).map_or(0, |(at, _)| at);
        chosen.push(order);
    }
    Ok(chosen)
}

impl Jigsaw {
    const HEAD: &'static str = "jigsaw";

    /// The permutation of each image, i32 `[N]`, and the tile at each place, i32 `[N, tiles]`.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn puzzle(&self, indices: &Tensor, epoch: &Scalar<u32>) -> Result<(Tensor, Tensor)> {
        let draws = Draws { epoch: epoch.clone(), ..self.draws.clone() };
        let labels = indices.uniform_noise(self.config.permutations, draws)?.argmax(1)?;
        let order = self.table.index_select(0, &labels)?;
        Ok((labels, order))
    }

    /// Images `[N, H, W, C]` as tiles `[N, tiles, h, w, C]`, row by row.
    ///
    /// # Errors
    /// [`Error::Shape`] where nothing is left of a tile.
    pub fn tiles(&self, images: &Tensor) -> Result<Tensor> {
        let JigsawConfig { grid, gap, normalize_tiles, .. } = self.config;
        let wrong = || Error::shape("jigsaw", format!("images {} leave no tile in a grid of {grid} with gaps of {gap}", images.shape()));
        let [n, height, width, c] = images.shape().array().ok_or_else(wrong)?;
        let (h, w) = (height / grid, width / grid);
        if h <= gap || w <= gap {
            return Err(wrong());
        }
        let cells = images.slice(1, 0, h * grid)?.slice(2, 0, w * grid)?.reshape(&[n, grid, h, grid, w, c])?;
        let tiles = cells.permute(&[0, 1, 3, 2, 4, 5])?.reshape(&[n, grid * grid, h, w, c])?;
        let tiles = tiles.slice(2, gap / 2, h - gap.div_ceil(2))?.slice(3, gap / 2, w - gap.div_ceil(2))?;
        if !normalize_tiles {
            return Ok(tiles);
        }
        let (mean, var) = (tiles.mean(&[2, 3, 4], true)?, tiles.var(&[2, 3, 4], false, true)?);
        fuse([&tiles, &mean, &var], |[x, mean, var]| (x - mean) / (var + 1e-6).sqrt())
    }

    /// Tiles `[N, tiles, h, w, C]` in the order `[N, tiles]`.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn shuffle(tiles: &Tensor, order: &Tensor) -> Result<Tensor> {
        let sizes = tiles.shape().to_vec();
        let [n, count] =
            order.shape().array().ok_or_else(|| Error::shape("jigsaw", format!("order {} must be [N, tiles]", order.shape())))?;
        let width = tiles.numel() / (n * count).max(1);
        let rows = tiles.reshape(&[n, count, width])?;
        rows.gather(1, &order.reshape(&[n, count, 1])?.expand(&[n, count, width])?)?.reshape(&sizes)
    }

    /// Tiles `[N, tiles, h, w, C]` as images again, without the gaps.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn assemble(&self, tiles: &Tensor) -> Result<Tensor> {
        let grid = self.config.grid;
        let wrong = || Error::shape("jigsaw", format!("tiles {} must be [N, {}, h, w, C]", tiles.shape(), grid * grid));
        let [n, _, h, w, c] = tiles.shape().array().ok_or_else(wrong)?;
        tiles.reshape(&[n, grid, grid, h, w, c])?.permute(&[0, 1, 3, 2, 4, 5])?.reshape(&[n, grid * h, grid * w, c])
    }
}

impl MethodFactory for Jigsaw {
    const CARD: MethodCard = MethodCard {
        name: "jigsaw",
        title: "Jigsaw puzzles",
        text: "How an image's tiles were shuffled",
        supervision: Supervision::SelfSupervised,
        family: "pretext task",
        year: 2016,
        authors: "Noroozi, Favaro",
        paper: "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, arXiv:1603.09246",
        related: &["rotation"],
    };

    const HEADS: &'static [&'static str] = &[Self::HEAD];

    type Config = JigsawConfig;

    fn new(params: &Parameters, build: Build, config: JigsawConfig, context: &MethodContext) -> Result<Self> {
        if !(2..=8).contains(&config.grid) {
            return Err(Error::argument("grid", format!("expected 2 to 8, found {}", config.grid)));
        }
        let (encoder, tiles) = (build(params)?, config.grid * config.grid);
        let inputs = encoder.features() * if config.sight == JigsawInput::Tiles { tiles } else { 1 };
        let head = Mlp::new(&params.scope(Self::HEAD), inputs, &MlpConfig { outputs: config.permutations, ..config.head })?;
        let orders = permutations(tiles as u32, config.permutations, context.seed)?;
        let orders: Vec<i32> = orders.into_iter().flatten().map(u32::cast_signed).collect();
        let table = Tensor::from_slice(params.gpu(), &orders, [config.permutations, tiles])?;
        Ok(Self { encoder, head, table, draws: Draws { seed: context.seed, ..Draws::default() }, config })
    }
}

impl Method for Jigsaw {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let (labels, order) = self.puzzle(&batch.indices, &batch.epoch)?;
        let tiles = Self::shuffle(&self.tiles(images)?, &order)?;
        let seen = match self.config.sight {
            JigsawInput::Image => self.assemble(&tiles)?,
            JigsawInput::Tiles => {
                let sizes = tiles.shape().to_vec();
                tiles.reshape(&[&[sizes.iter().take(2).product()], sizes.get(2..).unwrap_or_default()].concat())?
            }
        };
        let features = self.encoder.forward(&seen, Mode::Train)?.reshape(&[images.shape().dim(0) as isize, -1])?;
        let loss = self.head.forward(&features, Mode::Train)?.cross_entropy(&labels, 0.0)?;
        Ok(TrainStep::new(loss, [features]))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }
}

//! How pairs are run: tiles of similarities, and products of a block of derivatives with rows.

use super::Pairs;
use crate::error::Result;
use crate::gpu::{Gpu, Kernel, Launch, Schedule, rounds};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::Tensor;

kernels!(
    SIMILARITY_SOFTWARE = "contrastive/similarity_software",
    SIMILARITY_GPU = "contrastive/similarity_gpu",
    WEIGHTED_SOFTWARE = "contrastive/weighted_software",
    WEIGHTED_GPU = "contrastive/weighted_gpu",
);

/// Elements between the rows of a block, so that rows of a power of two do not share their place in
/// a cache.
pub(crate) const GAP: usize = 16;

/// How the launched schedule cuts its tiles.
pub(super) struct Tiling {
    for_gpu: bool,
    lanes: u32,
    shuffle: bool,
    pub rows: usize,
    pub columns: usize,
    /// Lanes that keep statistics of one row.
    pub parts: usize,
    /// Workgroups that are enough to fill the adapter.
    pub enough: usize,
}

impl Tiling {
    /// For rows of `width` features; on software drivers a round of the other schedule takes more
    /// of them, where they are very many.
    pub fn of(gpu: &Gpu, width: usize) -> Self {
        let short = gpu.capabilities().may_walk_exactly(rounds(1, rounds(width.div_ceil(8), 0)) + rounds(32, 0));
        if gpu.schedule("contrastive/similarity.schedule", 0) == Schedule::Gpu || !short {
            return Self { for_gpu: true, lanes: 0, shuffle: false, rows: 64, columns: 64, parts: 16, enough: 512 };
        }
        let lanes = gpu.capabilities().fixed_subgroup().filter(|lanes| matches!(lanes, 4 | 8 | 16));
        let (shuffle, lanes) = (lanes.is_some(), lanes.unwrap_or(8));
        Self { for_gpu: false, lanes, shuffle, rows: 32, columns: 4 * lanes as usize, parts: lanes as usize, enough: 32 }
    }

    /// Rounds of a scalar product of `width` features.
    pub fn inner(&self, width: usize) -> usize {
        rounds(width.div_ceil(if self.for_gpu { 16 } else { 8 }), 0)
    }

    fn launch<'a>(&self, gpu: &'a Gpu, kernels: [&'a Kernel; 2], entry: &'a str) -> Launch<'a> {
        let [software, on_gpu] = kernels;
        if self.for_gpu {
            return Launch::new(gpu, on_gpu, entry);
        }
        Launch::new(gpu, software, entry).define("LANES", self.lanes).define("SHUFFLE", self.shuffle).define("ROWS", self.rows)
    }
}

/// What becomes of the similarities (`include/similarity.wgsl`), and where they are kept.
pub(super) enum Output<'a> {
    /// The matrix itself.
    Matrix(&'a Tensor),
    /// Partial statistics of rows.
    Sums(&'a Tensor, Option<&'a Tensor>),
    /// From statistics, the derivative of the loss by each.
    Weights(&'a Tensor, &'a Tensor, Option<&'a Tensor>),
}

impl Pairs<'_> {
    /// Launches tiles over the padded columns `first..first + width`, walked in `splits` parts.
    pub(super) fn launch(&self, output: Output, [first, width]: [usize; 2], splits: usize) -> Result<()> {
        let tiling = Tiling::of(self.gpu(), self.a.width());
        let tiles = width / tiling.columns;
        let (name, stats, target, kept) = match output {
            Output::Matrix(y) => ("matrix", None, y, None),
            Output::Sums(partials, kept) => ("sums", None, partials, kept),
            Output::Weights(stats, w, kept) => ("weights", Some(stats), w, kept),
        };
        let mut launch = tiling
            .launch(self.gpu(), [&SIMILARITY_SOFTWARE, &SIMILARITY_GPU], "similarity")
            .define("PAIRS", self.kind.define())
            .define("OUTPUT", name)
            .define("KEPT", kept.is_some())
            .define("WIDTH", if tiling.for_gpu { 1 } else { 4 })
            .read(&self.a.unit)
            .read(&self.b.unit);
        for tensor in self.labels.into_iter().chain(stats) {
            launch = launch.read(tensor);
        }
        launch = launch.write(target);
        launch = match kept {
            Some(kept) if stats.is_some() => launch.read(kept),
            Some(kept) => launch.write(kept),
            None => launch,
        };
        let splits = splits.clamp(1, tiles.max(1));
        let per = tiles.div_ceil(splits);
        let padded = self.a.padded();
        let inner = if kept.is_some() && stats.is_some() { 0 } else { tiling.inner(self.a.width()) };
        launch
            .walk(rounds(per, inner) + if tiling.for_gpu { 0 } else { rounds(tiling.rows * 4 / tiling.lanes as usize, 0) })
            .params(params![
                self.rows,
                self.columns,
                padded,
                self.half,
                self.a.width() / 4,
                first,
                tiles,
                splits,
                per,
                kept.unwrap_or(target).shape().last(),
                self.temperature.map(|t| 1.0 / t)
            ])
            .groups(if tiles == 0 { 0 } else { padded / tiling.rows * splits })
    }
}

/// `y (+)= w[.., ..width] v[first..first + width]`: the first block writes, later ones add. Sizes
/// are padded.
pub(crate) fn weighted(w: &Tensor, width: usize, v: &Tensor, first: usize, y: &Tensor) -> Result<()> {
    let tiling = Tiling::of(y.gpu(), width);
    let d = v.shape().last();
    let tiles = y.shape().dim(0) / tiling.rows * d.div_ceil(if tiling.for_gpu { 32 } else { tiling.columns });
    tiling
        .launch(y.gpu(), [&WEIGHTED_SOFTWARE, &WEIGHTED_GPU], "weighted")
        .read(w)
        .read(v)
        .write(y)
        .params(params![width / 4, w.shape().last() / 4, d / 4, first, first > 0])
        .walk(tiling.inner(width))
        .groups(tiles)
}

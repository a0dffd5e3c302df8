//! Losses over all pairs of two sets of normalised rows, without the matrix of their similarities.
//!
//! Forward: tiles of the matrix are folded into each row's maximum, sum and positives as they are
//! computed. Backward: tiles are computed again, a block of columns at a time, turned into the
//! loss's derivative by each similarity, and multiplied with the rows of that block. So memory
//! grows with the rows, not with their square, and nothing is computed more often than that for any
//! number of features. A matrix no larger than such a block is kept for the backward pass instead.

mod checks;
pub(super) mod launch;
pub(super) mod rows;
mod spec;

use crate::error::Result;
use crate::gpu::{Gpu, Kernel, Launch, Scalar, rounds};
use crate::ops::Backward;
use crate::ops::entry::kernels;
use crate::ops::loss::mean::{self, mean};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};
pub(super) use checks::{check_batch, check_rows, check_stored, check_temperature, not_empty, specs};
pub(super) use launch::{GAP, weighted};
use launch::{Output, Tiling};
use rows::ROWS;
pub(super) use rows::{Rows, row_lanes, rows_specs, saved_rows};
pub(super) use spec::{dot, log_sum_exp, scalar, unit_rows};

kernels!(STATISTICS = "contrastive/statistics");

/// The kernels of a loss over pairs.
pub(super) const LOSS: &[&[&Kernel]] = &[rows::KERNELS, launch::KERNELS, KERNELS, mean::KERNELS];

/// Elements of the block of derivatives that backward holds at a time: 8 MiB, which stays in a
/// large cache.
const BLOCK: usize = 1 << 21;

/// Elements of the kept similarities of padded `rows` and `columns`: none where they exceed a
/// block.
fn kept_shape(rows: usize, columns: usize) -> [usize; 2] {
    if rows.saturating_mul(columns) <= BLOCK { [rows, columns + GAP] } else { [0, 0] }
}

/// Which pairs count, as `include/similarity.wgsl` explains.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every pair.
    All,
    /// The positive of a row is half the rows away.
    Pairs,
    /// Positives share a label.
    Labels,
    /// Columns are `half` negatives, then a positive for each row.
    Queue,
}

impl Kind {
    fn define(self) -> &'static str {
        match self {
            Kind::All => "all",
            Kind::Pairs => "pairs",
            Kind::Labels => "labels",
            Kind::Queue => "queue",
        }
    }
}

/// All pairs of `rows` and `columns`.
pub(super) struct Pairs<'a> {
    pub kind: Kind,
    pub a: &'a Rows,
    pub b: &'a Rows,
    pub labels: Option<&'a Tensor>,
    pub rows: usize,
    pub columns: usize,
    pub half: usize,
    pub temperature: &'a Scalar,
}

impl Pairs<'_> {
    fn gpu(&self) -> &Gpu {
        self.a.unit.gpu()
    }

    /// The similarities divided by the temperature, `[rows, columns]`.
    pub fn matrix(&self) -> Result<Tensor> {
        let y = Tensor::empty(self.gpu(), [self.rows, self.columns], DType::F32)?;
        self.launch(Output::Matrix(&y), [0, self.b.padded()], usize::MAX)?;
        Ok(y)
    }

    /// The loss `[]`, the rows' statistics `[padded, 4]`, 1 / (rows that count) `[1]`, and what is
    /// kept of the similarities.
    pub fn loss(&self) -> Result<[Tensor; 4]> {
        let gpu = self.gpu();
        let tiling = Tiling::of(gpu, self.a.width());
        let padded = self.a.padded();
        let tiles = self.b.padded() / tiling.columns;
        let wanted = tiling.enough.div_ceil(padded / tiling.rows).min(tiles);
        let inner = tiling.inner(self.a.width());
        let short = gpu.capabilities().may_walk_exactly(rounds(tiles.div_ceil(wanted), inner) + rounds(32, 0));
        let most = (gpu.capabilities().longest_walk() / (inner + 1)).max(1);
        let wanted = if short { wanted } else { wanted.max(tiles.div_ceil(most)).min(tiles) };
        // So that no split is left without a tile.
        let splits = tiles.div_ceil(tiles.div_ceil(wanted));
        let partials = Tensor::empty(gpu, [splits * tiling.parts, padded, 4], DType::F32)?;
        let kept = Tensor::empty(gpu, kept_shape(padded, self.b.padded()), DType::F32)?;
        self.launch(Output::Sums(&partials, Some(&kept).filter(|kept| kept.numel() > 0)), [0, self.b.padded()], splits)?;
        let stats = Tensor::empty(gpu, [padded, 4], DType::F32)?;
        let losses = Tensor::empty(gpu, [2, padded], DType::F32)?;
        let (count, lanes) = (splits * tiling.parts, gpu.capabilities().schedule.row_lanes());
        Launch::new(gpu, &STATISTICS, "merge")
            .define("LANES", lanes)
            .read(&partials)
            .write(&stats)
            .write(&losses)
            .params(params![count, padded, self.rows])
            .walk(rounds(count.div_ceil(lanes), 0))
            .invocations(padded * lanes)?;
        let (loss, weight) = mean(&losses, self.rows, [0, 1], Some(padded), 1)?;
        Ok([loss, stats, weight, kept])
    }

    /// The gradient of the normalised rows, less the factor weight / temperature.
    fn gradient(&self, stats: &Tensor, kept: &Tensor) -> Result<Tensor> {
        let (gpu, rows, columns) = (self.gpu(), self.a.padded(), self.b.padded());
        let width = (BLOCK / rows / ROWS * ROWS).clamp(ROWS, columns);
        let weights = Tensor::empty(gpu, [rows, width + GAP], DType::F32)?;
        let du = Tensor::empty(gpu, [rows, self.a.width()], DType::F32)?;
        // Kept similarities are one block.
        let kept = Some(kept).filter(|kept| kept.numel() > 0);
        for first in (0..columns).step_by(width) {
            let width = width.min(columns - first);
            self.launch(Output::Weights(stats, &weights, kept), [first, width], usize::MAX)?;
            weighted(&weights, width, &self.b.unit, first, &du)?;
        }
        Ok(du)
    }
}

/// What a loss over pairs puts there besides: statistics, weight, similarities.
pub(super) fn loss_specs(rows: usize, columns: usize) -> [Spec; 3] {
    let [padded, across] = [rows, columns].map(|n| n.next_multiple_of(ROWS));
    [Spec::f32([padded, 4]), Spec::f32([1]), Spec::f32(kept_shape(padded, across))]
}

/// The gradients of `inputs`, whose rows lie below each other in `pairs.a`, of a loss over pairs,
/// whose statistics, weight and kept similarities are outputs from `first` on.
pub(super) fn input_gradients(step: &Backward, pairs: &Pairs, first: usize, inputs: usize) -> Result<Vec<Option<Tensor>>> {
    let (stats, weight, kept) = (step.output(first)?, step.output(first + 1)?, step.output(first + 2)?);
    let du = pairs.gradient(stats, kept)?;
    let cotangent = step.cotangent(0)?;
    let mut gradients = vec![None; step.input_count()];
    let mut offset = 0;
    for (index, gradient) in gradients.iter_mut().enumerate().take(inputs) {
        let spec = step.input_spec(index)?;
        if step.needs(index) {
            *gradient = Some(pairs.a.gradient(&du, offset, spec, &pairs.temperature.map(|t| 1.0 / t), Some([&cotangent, weight]))?);
        }
        offset += spec.shape.dim(0);
    }
    Ok(gradients)
}

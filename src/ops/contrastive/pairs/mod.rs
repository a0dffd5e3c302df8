//! Losses over all pairs of two sets of normalised rows, without the matrix of their similarities.
//!
//! Forward: tiles of the matrix are folded into each row's maximum, sum and positives as they are computed. Backward: tiles are computed
//! again, a block of columns at a time, turned into the loss's derivative by each similarity, and multiplied with the rows of that block.
//! So memory grows with the rows, not with their square, and nothing is computed more often than that for any number of features.
//! A matrix no larger than such a block is kept for the backward pass instead.

use crate::error::{Error, Result, require_positive};
use crate::gpu::{Gpu, Kernel, Launch, Scalar, Schedule, rounds};
use crate::ops::array::maximum;
use crate::ops::entry::kernels;
use crate::ops::loss::mean::mean;
use crate::ops::{Backward, exactly, require_float};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

kernels!(
    NORMALIZE = "contrastive/normalize",
    SIMILARITY_SOFTWARE = "contrastive/similarity_software",
    SIMILARITY_GPU = "contrastive/similarity_gpu",
    WEIGHTED_SOFTWARE = "contrastive/weighted_software",
    WEIGHTED_GPU = "contrastive/weighted_gpu",
    STATISTICS = "contrastive/statistics",
);

/// The shaders of a loss over pairs.
/// Rows are padded to the larger tile's height.
const ROWS: usize = 64;
/// Features are padded to the narrower tile's width.
const FEATURES: usize = 32;
/// Elements between the rows of a block, so that rows of a power of two do not share their place in a cache.
pub(super) const GAP: usize = 16;
/// Elements of the block of derivatives that backward holds at a time: 8 MiB, which stays in a large cache.
const BLOCK: usize = 1 << 21;

/// Elements of the kept similarities of padded `rows` and `columns`: none where they exceed a block.
fn kept_shape(rows: usize, columns: usize) -> [usize; 2] {
    if rows.saturating_mul(columns) <= BLOCK { [rows, columns + GAP] } else { [0, 0] }
}

/// Lanes that share a row of `d` in kernels that own a row with one workgroup and walk it `walks` times, and the rounds of one: more lanes
/// where the walk is too long for the schedule's own.
pub(super) fn row_lanes(gpu: &Gpu, d: usize, walks: usize) -> (u32, usize) {
    let own = match gpu.capabilities().schedule {
        Schedule::Software => 8,
        Schedule::Gpu => 64,
    };
    // The first lane may join the others one by one.
    let walk = |lanes: u32| walks * rounds(d.div_ceil(lanes as usize), 0) + rounds(lanes as usize, 0);
    let lanes = if gpu.capabilities().may_walk_exactly(walk(own)) { own } else { 256 };
    (lanes, walk(lanes))
}

/// How the launched schedule cuts its tiles.
struct Tiling {
    for_gpu: bool,
    lanes: u32,
    shuffle: bool,
    rows: usize,
    columns: usize,
    /// Lanes that keep statistics of one row.
    parts: usize,
    /// Workgroups that are enough to fill the adapter.
    enough: usize,
}

impl Tiling {
    /// For rows of `width` features; on software drivers a round of the other schedule takes more of them, where they are very many.
    fn of(gpu: &Gpu, width: usize) -> Self {
        let short = gpu.capabilities().may_walk_exactly(rounds(1, rounds(width.div_ceil(8), 0)) + rounds(32, 0));
        if gpu.schedule("contrastive/similarity.schedule", 0) == Schedule::Gpu || !short {
            return Self { for_gpu: true, lanes: 0, shuffle: false, rows: 64, columns: 64, parts: 16, enough: 512 };
        }
        let lanes = gpu.capabilities().fixed_subgroup().filter(|lanes| matches!(lanes, 4 | 8 | 16));
        let (shuffle, lanes) = (lanes.is_some(), lanes.unwrap_or(8));
        Self { for_gpu: false, lanes, shuffle, rows: 32, columns: 4 * lanes as usize, parts: lanes as usize, enough: 32 }
    }

    /// Rounds of a scalar product of `width` features.
    fn inner(&self, width: usize) -> usize {
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

/// Normalised rows of one or more tensors below each other, padded with zeros.
#[derive(Clone)]
pub(super) struct Rows {
    /// `[padded rows, padded features]`.
    pub unit: Tensor,
    /// `[padded rows]`: 1 / norm.
    pub inverse: Tensor,
}

impl Rows {
    /// Normalises the rows of `parts`, which have the same number of columns.
    pub fn new(gpu: &Gpu, parts: &[&Tensor]) -> Result<Self> {
        let d = parts.first().map_or(1, |t| t.shape().last());
        let rows: usize = parts.iter().map(|t| t.shape().dim(0)).sum();
        let (padded, width) = (rows.next_multiple_of(ROWS), d.next_multiple_of(FEATURES));
        let unit = Tensor::empty(gpu, [padded, width], DType::F32)?;
        let inverse = Tensor::empty(gpu, [padded], DType::F32)?;
        let mut offset = 0;
        for (index, part) in parts.iter().enumerate() {
            let n = part.shape().dim(0);
            let last = index + 1 == parts.len();
            let (lanes, walk) = row_lanes(gpu, width, 2);
            Launch::new(gpu, &NORMALIZE, "normalize")
                .storage(part.dtype().storage())
                .define("BACKWARD", false)
                .define("LANES", lanes)
                .read(*part)
                .write(&unit)
                .write(&inverse)
                .params(params![d, width, offset, n])
                .walk(walk)
                .groups(if last { padded - offset } else { n })?;
            offset += n;
        }
        Ok(Self { unit, inverse })
    }

    fn padded(&self) -> usize {
        self.unit.shape().dim(0)
    }

    fn width(&self) -> usize {
        self.unit.shape().last()
    }

    /// The gradient of the rows from `offset` that came from an input of this spec, of the gradient `du` of the normalised rows, times
    /// `scale` and the two scalars on the device (the loss's own gradient and weight).
    pub fn gradient(&self, du: &Tensor, offset: usize, input: &Spec, scale: &Scalar, scalars: Option<[&Tensor; 2]>) -> Result<Tensor> {
        let gpu = du.gpu();
        let dx = Tensor::empty(gpu, input.shape.clone(), input.dtype)?;
        let (lanes, walk) = row_lanes(gpu, self.width(), 2);
        let mut launch = Launch::new(gpu, &NORMALIZE, "normalize")
            .storage(input.dtype.storage())
            .define("BACKWARD", true)
            .define("SCALED", scalars.is_some())
            .define("LANES", lanes)
            .read(du)
            .read(&self.unit)
            .read(&self.inverse);
        for scalar in scalars.into_iter().flatten() {
            launch = launch.read(scalar);
        }
        launch = launch.write(&dx).walk(walk);
        launch.params(params![input.shape.last(), self.width(), offset, scale]).groups(input.shape.dim(0))?;
        Ok(dx)
    }
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

/// What becomes of the similarities (`include/similarity.wgsl`), and where they are kept.
enum Output<'a> {
    /// The matrix itself.
    Matrix(&'a Tensor),
    /// Partial statistics of rows.
    Sums(&'a Tensor, Option<&'a Tensor>),
    /// From statistics, the derivative of the loss by each.
    Weights(&'a Tensor, &'a Tensor, Option<&'a Tensor>),
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

    /// Launches tiles over the padded columns `first..first + width`, walked in `splits` parts.
    fn launch(&self, output: Output, [first, width]: [usize; 2], splits: usize) -> Result<()> {
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

    /// The similarities divided by the temperature, `[rows, columns]`.
    pub fn matrix(&self) -> Result<Tensor> {
        let y = Tensor::empty(self.gpu(), [self.rows, self.columns], DType::F32)?;
        self.launch(Output::Matrix(&y), [0, self.b.padded()], usize::MAX)?;
        Ok(y)
    }

    /// The loss `[]`, the rows' statistics `[padded, 4]`, 1 / (rows that count) `[1]`, and what is kept of the similarities.
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
        Launch::new(gpu, &STATISTICS, "merge")
            .read(&partials)
            .write(&stats)
            .write(&losses)
            .params(params![splits * tiling.parts, padded, self.rows])
            .walk(rounds(splits * tiling.parts, 0))
            .invocations(padded)?;
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

/// `y (+)= w[.., ..width] v[first..first + width]`: the first block writes, later ones add. Sizes are padded.
pub(super) fn weighted(w: &Tensor, width: usize, v: &Tensor, first: usize, y: &Tensor) -> Result<()> {
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

/// Checks that `inputs` are float matrices with rows, as many columns each.
pub(super) fn check_rows<const N: usize>(operator: &str, names: [&str; N], inputs: [&Spec; N]) -> Result<()> {
    let mut columns = None;
    for (name, spec) in names.iter().zip(inputs) {
        require_float(operator, name, spec)?;
        let Some([_, d]) = spec.shape.array() else {
            return Err(Error::shape(operator, format!("{name} must be a matrix [rows, features], found {}", spec.shape)));
        };
        if *columns.get_or_insert(d) != d || d == 0 {
            return Err(Error::shape(operator, format!("{name} {} must have {} features, at least 1", spec.shape, columns.unwrap_or(1))));
        }
    }
    Ok(())
}

/// Checks that inputs which one kernel reads are stored alike.
pub(super) fn check_stored<const N: usize>(operator: &str, names: [&str; N], inputs: [&Spec; N]) -> Result<()> {
    let types = || inputs.iter().map(|spec| spec.dtype);
    if types().any(|dtype| types().next() != Some(dtype)) {
        let (names, found) = (names.join(", "), types().map(|dtype| dtype.to_string()).collect::<Vec<_>>().join(", "));
        return Err(Error::dtype(operator, format!("{names} must be stored alike, found {found}; cast one first")));
    }
    Ok(())
}

/// Checks that two matrices have the same number of rows, at least one.
pub(super) fn check_batch(operator: &str, names: [&str; 2], [a, b]: [&Spec; 2]) -> Result<()> {
    let [x, y] = names;
    if a.shape.dim(0) != b.shape.dim(0) {
        return Err(Error::shape(operator, format!("{x} {} and {y} {} must have as many rows", a.shape, b.shape)));
    }
    not_empty(operator, x, a)
}

/// Checks that there is a row: a mean over nothing is not a number.
pub(super) fn not_empty(operator: &str, name: &str, spec: &Spec) -> Result<()> {
    if spec.shape.numel() == 0 {
        return Err(Error::shape(operator, format!("{name} {} is empty; the mean over no rows is undefined", spec.shape)));
    }
    Ok(())
}

/// Checks that a temperature is a positive number.
pub(super) fn check_temperature(operator: &str, temperature: &Scalar) -> Result<()> {
    require_positive(operator, "temperature", temperature.get()).map(drop)
}

/// What [`Rows`] puts on the tape: normalised rows, norms.
pub(super) fn rows_specs(rows: usize, d: usize) -> [Spec; 2] {
    let padded = rows.next_multiple_of(ROWS);
    [Spec::f32([padded, d.next_multiple_of(FEATURES)]), Spec::f32([padded])]
}

/// What a loss over pairs puts there besides: statistics, weight, similarities.
pub(super) fn loss_specs(rows: usize, columns: usize) -> [Spec; 3] {
    let [padded, across] = [rows, columns].map(|n| n.next_multiple_of(ROWS));
    [Spec::f32([padded, 4]), Spec::f32([1]), Spec::f32(kept_shape(padded, across))]
}

/// The gradients of `inputs`, whose rows lie below each other in `pairs.a`, of a loss over pairs, whose statistics, weight and kept
/// similarities are outputs from `first` on.
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

/// Normalised rows by plain loops, for references.
pub(super) fn unit_rows(array: &crate::ops::Array) -> Vec<Vec<f64>> {
    let unit = |row: &[f64]| {
        let norm = maximum(row.iter().map(|v| v * v).sum::<f64>().sqrt(), 1e-12);
        row.iter().map(|v| v / norm).collect()
    };
    array.rows().map(unit).collect()
}

/// A scalar product, for references.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// log(sum(exp)), for references; -infinity of nothing.
pub(super) fn log_sum_exp(values: &[f64]) -> f64 {
    let m = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if m == f64::NEG_INFINITY { m } else { m + values.iter().map(|v| (v - m).exp()).sum::<f64>().ln() }
}

/// The array of a reference's single number.
pub(super) fn scalar(value: f64) -> Vec<crate::ops::Array> {
    vec![crate::ops::Array::new([], vec![value])]
}

/// The five outputs of a loss over pairs by name.
pub(super) fn saved_rows(step: &Backward, first: usize) -> Result<Rows> {
    Ok(Rows { unit: step.output(first)?.clone(), inverse: step.output(first + 1)?.clone() })
}

/// As [`exactly`], for specs by reference.
pub(super) fn specs<'a, const N: usize>(operator: &str, inputs: &'a [Spec]) -> Result<[&'a Spec; N]> {
    let all: &[Spec; N] = exactly(operator, inputs)?;
    Ok(all.each_ref())
}

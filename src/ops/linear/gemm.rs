//! The matrix product that everything in this family and the 1x1 convolutions are made of; not an
//! operator itself.
//!
//! The strides say what is multiplied, so there is one kernel a schedule for NN, NT and TN; four
//! elements are read by one access where the strides allow it. A long K over few tiles is split
//! into slices whose partial sums a second kernel adds up in order.

use super::matrix::{self, Tile};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Knob, Launch, Schedule, rounds};
use crate::ops::entry::kernels;
use crate::ops::normalization::batch_norm::statistics::tile_rounds;
use crate::params;
use crate::tensor::{DType, Tensor};

kernels!(SOFTWARE = "linear/gemm_software", GPU = "linear/gemm_gpu", MATRIX = "linear/gemm_matrix", PARTIAL_SUMS = "linear/partial_sums",);

/// Slices are multiples of the `gpu` schedule's step along K.
const STEP: usize = 16;

/// Rows of a software driver's tile, for each doubling of K.
const ROWS: Knob = Knob { name: "linear/gemm.rows", choices: &[16, 32] };
/// Rows and columns of a GPU's tile, for each doubling of the number of large ones.
const SIDE: Knob = Knob { name: "linear/gemm.side", choices: &[64, 128] };
/// Values of k that an invocation reads from workgroup memory before it multiplies, on GPUs.
const AHEAD: Knob = Knob { name: "linear/gemm.ahead", choices: &[1, 2] };

/// Whether products with an operand of f16 are left to cooperative matrices.
const MATRICES: Knob = Knob { name: "linear/gemm.matrix", choices: &[0, 1] };

/// Columns of tiles whose part of B neighbouring workgroups share.
const BAND: usize = 8;

/// How one operand lies in memory, in elements.
#[derive(Debug, Clone, Copy, Default)]
struct Operand {
    /// From a row of A, or a column of B, to the next.
    x: usize,
    /// From one k to the next.
    k: usize,
    /// From one matrix to the next along each batch axis, 0 where it is shared.
    batch: [usize; 3],
}

impl Operand {
    /// How the kernels read it: by vec4 along `k` or `x`, or by single elements.
    fn access(&self, x: usize, k: usize) -> &'static str {
        let fours = |sizes: &[usize]| sizes.iter().chain(&self.batch).all(|s| s % 4 == 0);
        match (self.x, self.k) {
            (_, 1) if fours(&[self.x, k]) => "k",
            (1, _) if fours(&[self.k, x]) => "x",
            _ => "s",
        }
    }

    /// How the `gpu` and `matrix` schedules read it: single elements in the direction in which
    /// memory runs.
    fn access_along(&self, x: usize, k: usize) -> &'static str {
        match (self.access(x, k), self.k) {
            ("s", 1) => "ks",
            ("s", _) => "xs",
            (vector, _) => vector,
        }
    }

    /// Elements from the first to the last that is read, and one.
    fn extent(&self, x: usize, k: usize, batch: [usize; 3]) -> usize {
        let last = |count: usize, step: usize| count.saturating_sub(1) * step;
        let batches: usize = batch.iter().zip(self.batch).map(|(count, step)| last(*count, step)).sum();
        if x * k * batch.iter().product::<usize>() == 0 { 0 } else { last(x, self.x) + last(k, self.k) + batches + 1 }
    }
}

/// `C[batch] = alpha * op(A[batch]) op(B[batch]) (+ bias)` with C `[batch, M, N]` contiguous and
/// bias `[N]` in f32. A, B and C are f32 or f16, each for itself; sums are f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gemm {
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    b: Operand,
    batch: [usize; 3],
    alpha: f32,
}

/// Tiles of one schedule: rows, columns, and how many tiles keep an adapter busy.
struct Tiling {
    rows: usize,
    columns: usize,
    busy: usize,
}

impl Gemm {
    fn new(m: usize, n: usize, k: usize, a: (usize, usize), b: (usize, usize)) -> Self {
        let operand = |(x, k): (usize, usize)| Operand { x, k, batch: [0; 3] };
        Self { m, n, k, a: operand(a), b: operand(b), batch: [1; 3], alpha: 1.0 }
    }

    /// A `[M, K]` times B `[K, N]`.
    pub(crate) fn nn(m: usize, n: usize, k: usize) -> Self {
        Self::new(m, n, k, (k, 1), (1, n))
    }

    /// A `[M, K]` times the transpose of B `[N, K]`.
    pub(crate) fn nt(m: usize, n: usize, k: usize) -> Self {
        Self::new(m, n, k, (k, 1), (k, 1))
    }

    /// The transpose of A `[K, M]` times B `[K, N]`.
    pub(crate) fn tn(m: usize, n: usize, k: usize) -> Self {
        Self::new(m, n, k, (1, m), (1, n))
    }

    /// One product for each of `count`; the operands' matrices are `a_step` and `b_step` elements
    /// apart (0: shared).
    pub(crate) fn batched(self, count: usize, a_step: usize, b_step: usize) -> Self {
        self.batched3([1, 1, count], [0, 0, a_step], [0, 0, b_step])
    }

    /// As [`Self::batched`], over three axes.
    pub(crate) fn batched3(mut self, counts: [usize; 3], a_steps: [usize; 3], b_steps: [usize; 3]) -> Self {
        (self.batch, self.a.batch, self.b.batch) = (counts, a_steps, b_steps);
        self
    }

    /// The factor of the product (not of the bias).
    pub(crate) fn alpha(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    fn batches(&self) -> usize {
        self.batch.iter().product()
    }

    fn tiling(&self, gpu: &Gpu, schedule: Schedule, lanes: Option<u32>) -> Tiling {
        match (schedule, lanes) {
            (Schedule::Gpu | Schedule::Matrix, _) => {
                let large = self.m.div_ceil(128) * self.n.div_ceil(128) * self.batches();
                // 128 x 128 tiles need fewer reads, but must be many to occupy a large GPU.
                let fit = large >= 256 && gpu.capabilities().large_tiles();
                let side = match self.m.min(self.n) {
                    0..128 => 64,
                    _ => gpu.tuned(&SIDE, Knob::bucket(large), if fit { 128 } else { 64 }) as usize,
                };
                Tiling { rows: side, columns: side, busy: 256 }
            }
            (Schedule::Software, None) => Tiling { rows: 8, columns: 16, busy: 128 },
            (Schedule::Software, Some(lanes)) => {
                let rows = match self.m {
                    0..=8 => 8,
                    // Heads of classifiers: nothing to gain, and the short text compiles four times
                    // faster (1.6 s where columns are odd).
                    _ if self.m * self.n <= 1 << 14 => 8,
                    9..=16 => 16,
                    _ => gpu.tuned(&ROWS, Knob::bucket(self.k), 32) as usize,
                };
                Tiling { rows, columns: 4 * lanes as usize, busy: 16 }
            }
        }
    }

    /// Computes C from A and B.
    ///
    /// # Errors
    /// [`Error::Shape`] where a tensor is smaller than the product reads or writes,
    /// [`Error::Dtype`] where one holds integers; those of launching.
    pub(crate) fn run(&self, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, c: &Tensor) -> Result<()> {
        self.run_with(a, b, bias, c, None).map(drop)
    }

    /// As [`Self::run`], and whether it wrote partial statistics of C
    /// (`ops::normalization::statistics`) on the way.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn run_with(&self, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, c: &Tensor, statistics: Option<&Tensor>) -> Result<bool> {
        self.check(a, b, bias, c)?;
        let (gpu, caps) = (a.gpu(), a.gpu().capabilities());
        let lanes = caps.fixed_subgroup().filter(|lanes| *lanes <= 64);
        let matrix = matrix::matrix(gpu, &MATRICES, 0, [a, b]);
        let schedule = if matrix.is_some() { Schedule::Matrix } else { gpu.schedule("linear/gemm.schedule", 0) };
        let tiling = self.tiling(gpu, schedule, lanes);
        let tile = matrix.map(|matrix| Tile::new(caps, matrix, tiling.rows));
        let tiling = tile.map_or(tiling, |tile| Tiling { rows: tile.side, columns: tile.side, busy: 256 });
        let (tiles_m, tiles_n) = (self.m.div_ceil(tiling.rows), self.n.div_ceil(tiling.columns));
        let tiles = tiles_m * tiles_n * self.batches();
        // Slices of at least 256 k, as many as it takes to keep the adapter busy; from shapes and
        // schedule alone. A single tile makes more than the units of large cards (132), and not as
        // many as would make adding them up long.
        let most = if schedule == Schedule::Software { 64 } else { 160 };
        let wanted = (tiling.busy / tiles.max(1)).min(self.k / 256).clamp(1, most);
        // More, where one would be too long a walk; `per` k are a round.
        let per = match (schedule, self.a.access(self.m, self.k)) {
            (Schedule::Gpu | Schedule::Matrix, _) => 16,
            (Schedule::Software, "s") => 1,
            (Schedule::Software, _) if lanes.is_some() => 8,
            (Schedule::Software, _) => 4,
        };
        let tail = if schedule == Schedule::Software { rounds(7, 0) } else { tile_rounds(tiling.rows) };
        // Partial sums may be added up every few rounds.
        let walk = |k: usize| match tile {
            Some(tile) => tile.rounds(caps, k),
            None => rounds(k.div_ceil(8 * per), rounds(8, 0)) + tail,
        };
        let short = caps.may_walk_exactly(walk(self.k.div_ceil(wanted).next_multiple_of(STEP)));
        let wanted = if short { wanted } else { wanted.max(self.k.div_ceil(per).div_ceil(caps.longest_walk() / 2)) };
        let slice_k = self.k.div_ceil(wanted).next_multiple_of(STEP).max(STEP);
        let slices = self.k.div_ceil(slice_k).max(1);
        let tiles = tiles * slices;

        let partial = if slices > 1 { Some(Tensor::empty(gpu, [self.batches(), slices, self.m * self.n], DType::F32)?) } else { None };
        let target = partial.as_ref().unwrap_or(c);
        let bias_here = bias.filter(|_| partial.is_none());
        let (kernel, groups) = match (schedule, lanes) {
            (Schedule::Software, None) => (&SOFTWARE, tiles.div_ceil(8)),
            (Schedule::Software, Some(_)) => (&SOFTWARE, tiles),
            (Schedule::Gpu, _) => (&GPU, tiles),
            (Schedule::Matrix, _) => (&MATRIX, tiles),
        };
        let whole = schedule == Schedule::Gpu && tiles == tiles_m * tiles_n && bias.is_none() && self.alpha == 1.0;
        let statistics = statistics.filter(|_| whole && c.dtype() == DType::F32);
        let flops = 2.0 * (self.m * self.n * self.k * self.batches()) as f64;
        let mut launch = Launch::new(gpu, kernel, "gemm").flops(flops);
        launch = match schedule {
            Schedule::Software => launch.define("SG", lanes.unwrap_or(0)).define("R", tiling.rows),
            Schedule::Gpu => {
                let ahead = gpu.tuned(&AHEAD, 0, gpu.capabilities().read_ahead());
                launch.define("TILE", tiling.rows).define("AHEAD", ahead).define("STATISTICS", statistics.is_some())
            }
            Schedule::Matrix => launch,
        };
        if let Some(tile) = tile {
            launch = launch.define("SHAPE", tile.shape());
        }
        let access = |operand: &Operand, lines: usize| match schedule {
            Schedule::Software => operand.access(lines, self.k),
            Schedule::Gpu | Schedule::Matrix => operand.access_along(lines, self.k),
        };
        launch = launch
            .define("A", access(&self.a, self.m))
            .define("B", access(&self.b, self.n))
            .define("C", if self.n.is_multiple_of(4) { 4 } else { 1 })
            .define("AT", a.dtype().to_string())
            .define("BT", b.dtype().to_string())
            .define("CT", target.dtype().to_string())
            .define("BIAS", bias_here.is_some())
            .read(a)
            .read(b)
            .write(target);
        if let Some(bias) = bias_here {
            launch = launch.read(bias);
        }
        if let Some(statistics) = statistics {
            launch = launch.write(statistics);
        }
        let ([_, batch1, batch2], [a0, a1, a2], [b0, b1, b2]) = (self.batch, self.a.batch, self.b.batch);
        let (a_strides, b_strides) = ((self.a.x, self.a.k), (self.b.x, self.b.k));
        let alpha = if partial.is_some() { 1.0 } else { self.alpha };
        launch
            .params(params![
                self.m,
                self.n,
                self.k,
                a_strides.0,
                a_strides.1,
                b_strides.0,
                b_strides.1,
                tiles_m,
                tiles_n,
                tiles,
                BAND,
                slices,
                slice_k,
                batch1,
                batch2,
                a0,
                a1,
                a2,
                b0,
                b1,
                b2,
                alpha,
                f32::NAN
            ])
            .walk(walk(slice_k.min(self.k)))
            .groups(groups)?;
        if let Some(partial) = partial {
            self.add_slices(&partial, slices, bias, c)?;
        }
        Ok(statistics.is_some())
    }

    /// C from the sums of `slices` slices of k, `[batches, slices, M, N]`.
    fn add_slices(&self, partial: &Tensor, slices: usize, bias: Option<&Tensor>, c: &Tensor) -> Result<()> {
        let fours = (self.m * self.n).is_multiple_of(4) && (bias.is_none() || self.n.is_multiple_of(4));
        let width = if fours { 4 } else { 1 };
        let matrix = self.m * self.n / width;
        let count = self.batches() * matrix;
        let mut launch = Launch::new(c.gpu(), &PARTIAL_SUMS, "sum")
            .storage(c.dtype().storage())
            .define("V", width)
            .define("BIAS", bias.is_some())
            .read(partial)
            .write(c);
        if let Some(bias) = bias {
            launch = launch.read(bias);
        }
        launch.params(params![count, slices, matrix, self.n, self.alpha]).walk(rounds(slices, 0)).invocations(count)
    }

    fn check(&self, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, c: &Tensor) -> Result<()> {
        if [a, b, c].iter().any(|tensor| !tensor.dtype().is_float()) {
            return Err(Error::dtype("gemm", format!("{}, {} and {} must be floats", a.spec(), b.spec(), c.spec())));
        }
        let needs = [
            ("A", a, self.a.extent(self.m, self.k, self.batch)),
            ("B", b, self.b.extent(self.n, self.k, self.batch)),
            ("C", c, self.batches() * self.m * self.n),
        ];
        let bias = bias.map(|bias| ("the bias", bias, self.n));
        for (name, tensor, elements) in needs.into_iter().chain(bias) {
            if tensor.numel() < elements {
                return Err(Error::shape("gemm", format!("{name} {} holds fewer than the {elements} elements used", tensor.spec())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gpu::{GpuOptions, Tuning};

    /// Both sizes of tiles, with edges and every way of reading.
    #[test]
    fn large_tiles_are_right_at_their_edges() {
        let (count, k) = (64, 21);
        let value = |i: usize| ((i * 7919) % 1013) as f32 / 500.0 - 1.0;
        let tables = [(16, 64), (32, 128)].map(|(rows, side)| {
            let mut table = Tuning::default();
            table.set(ROWS.name, Knob::bucket(k - 1), rows);
            table.set(SIDE.name, Knob::bucket(4 * count), side);
            Some(Arc::new(table))
        });
        for (schedule, tuning) in Schedule::ALL.into_iter().flat_map(|schedule| tables.clone().map(|table| (schedule, table))) {
            let options = GpuOptions { schedule: Some(schedule), tuning, poison: true, ..GpuOptions::from_env().unwrap() };
            let gpu = Gpu::with(options).unwrap();
            for (m, n, k) in [(130, 132, k - 1), (129, 131, k), (132, 136, k)] {
                let a: Vec<f32> = (0..count * m * k).map(value).collect();
                let b: Vec<f32> = (0..k * n).map(|i| value(i * 3 + 1)).collect();
                let (x, y) = (Tensor::from_slice(&gpu, &a, [count, m * k]).unwrap(), Tensor::from_slice(&gpu, &b, [k * n]).unwrap());
                let forms = [(Gemm::nn(m, n, k), (k, 1), (1, n)), (Gemm::nt(m, n, k), (k, 1), (k, 1)), (Gemm::tn(m, n, k), (1, m), (1, n))];
                for (gemm, a_step, b_step) in forms {
                    let c = Tensor::empty(&gpu, [count, m, n], DType::F32).unwrap();
                    gemm.batched(count, m * k, 0).alpha(0.5).run(&x, &y, None, &c).unwrap();
                    for (at, found) in c.to_vec::<f32>().unwrap().into_iter().enumerate().step_by(37) {
                        let (matrix, row, column) = (at / (m * n), at / n % m, at % n);
                        let term = |l: usize| {
                            f64::from(a[matrix * m * k + row * a_step.0 + l * a_step.1]) * f64::from(b[column * b_step.0 + l * b_step.1])
                        };
                        let expected = 0.5 * (0..k).map(term).sum::<f64>();
                        assert!((f64::from(found) - expected).abs() < 1e-5, "{schedule} {m}x{n}x{k}, element {at}: {found}, {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_tensor_too_small_for_the_product_is_refused() {
        let gpu = Gpu::new().unwrap();
        let x = Tensor::zeros(&gpu, [4, 4], DType::F32).unwrap();
        let error = Gemm::nn(4, 4, 5).run(&x, &x, None, &x).unwrap_err().to_string();
        assert!(error.contains("A f32 [4, 4] holds fewer than the 20 elements used"), "{error}");
    }
}

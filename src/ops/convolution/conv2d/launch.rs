//! How dense convolutions are run: forward, gradient to the input, gradient to the weights.

use super::super::geometry::{Geometry, Taps};
use super::super::slabs::{Slabs, reduce};
use super::knobs::{AHEAD, MATRICES, PRODUCT, SLAB_GROUPS, SLAB_PIXELS, TILE};
use crate::error::Result;
use crate::gpu::{Gpu, Knob, Launch, Matrix, Schedule, rounds};
use crate::ops::entry::kernels;
use crate::ops::linear::gemm::Gemm;
use crate::ops::linear::matrix::{self, Tile, matrix};
use crate::ops::normalization::batch_norm::statistics;
use crate::params;
use crate::tensor::{DType, Shape, Tensor};

kernels!(
    PACK = "convolution/pack",
    PLAIN = "convolution/conv2d_plain",
    SOFTWARE = "convolution/conv2d_software",
    GPU = "convolution/conv2d_gpu",
    MATRIX = "convolution/conv2d_matrix",
    WEIGHT_PLAIN = "convolution/conv2d_weight_plain",
    WEIGHT_SOFTWARE = "convolution/conv2d_weight_software",
    WEIGHT_GPU = "convolution/conv2d_weight_gpu",
    WEIGHT_MATRIX = "convolution/conv2d_weight_matrix",
);

fn ahead(gpu: &Gpu) -> u32 {
    gpu.tuned(&AHEAD, 0, gpu.capabilities().read_ahead())
}

/// Which version of a kernel fits the adapter and the width of a group.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    Plain,
    Software,
    Gpu,
    Matrix(Matrix),
}

fn schedule(gpu: &Gpu, g: &Geometry) -> Schedule {
    gpu.schedule("convolution/dense.schedule", Knob::bucket(g.pixels()))
}

fn version(x: &Tensor, g: &Geometry, columns: usize) -> Version {
    let gpu = x.gpu();
    // A tile of 64 columns would stand mostly empty.
    let tiles = g.groups == 1 || columns > 16;
    if let Some(matrix) = matrix(gpu, &MATRICES, Knob::bucket(g.pixels()), [x, x]).filter(|_| tiles) {
        return Version::Matrix(matrix);
    }
    match schedule(gpu, g) {
        Schedule::Software if gpu.capabilities().fixed_subgroup() == Some(8) => Version::Software,
        Schedule::Gpu if tiles => Version::Gpu,
        _ => Version::Plain,
    }
}

/// A convolution or its gradient to the input, as `shaders/include/convolution.wgsl` sees it.
struct Gather {
    taps: Taps,
    source_channels: usize,
    target_channels: usize,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    forward: bool,
}

/// Whether a convolution of `x` is a product of matrices, pixels by channels, that is left to
/// [`Gemm`].
fn is_product(g: &Geometry, x: &Tensor) -> bool {
    let may = is_flat(g) && g.groups == 1;
    // The adapter's own schedule, so that tuning the convolution's own does not measure this.
    may && x.gpu().tuned(&PRODUCT, Knob::bucket(g.pixels()), u32::from(x.gpu().capabilities().schedule == Schedule::Gpu)) == 1
}

/// Whether source and target pixels are the same, one by one.
fn is_flat(g: &Geometry) -> bool {
    g.kernel == [1, 1] && g.stride == [1, 1] && g.output == g.input
}

/// y [N, OH, OW, K] of x [N, H, W, C], weights [K, kh, kw, C / groups] and bias `[K]`.
pub(crate) fn forward(g: &Geometry, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    forward_with(g, x, weight, bias, None).map(|(y, _)| y)
}

/// As [`forward`], and partial statistics of y for a batch norm.
pub(crate) fn forward_statistics(g: &Geometry, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, shape: &Shape) -> Result<Vec<Tensor>> {
    let partials = Tensor::empty(x.gpu(), shape, DType::F32)?;
    let (y, written) = forward_with(g, x, weight, bias, Some(&partials))?;
    if !written && y.numel() > 0 {
        statistics::measure(&y, &partials)?;
    }
    Ok(vec![y, partials])
}

/// As [`forward`], and whether it wrote `statistics` on the way.
fn forward_with(g: &Geometry, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, statistics: Option<&Tensor>) -> Result<(Tensor, bool)> {
    if is_product(g, x) {
        let [h, w] = g.output;
        let y = Tensor::empty(x.gpu(), [g.images, h, w, g.filters], x.dtype())?;
        let written = Gemm::nt(g.pixels(), g.filters, g.channels).run_with(x, weight, bias, &y, statistics)?;
        return Ok((y, written));
    }
    let ([kh, kw], rows) = (g.kernel, g.channels / g.groups);
    let gather = Gather {
        taps: g.forward(),
        source_channels: g.channels,
        target_channels: g.filters,
        rows,
        columns: g.filters / g.groups,
        row_stride: 1,
        column_stride: kh * kw * rows,
        forward: true,
    };
    gather.launch(g, x, weight, bias, statistics)
}

/// The gradient [N, H, W, C] to the input, of the upstream gradient [N, OH, OW, K]. A bias `[C]`
/// makes it a transposed convolution.
pub(crate) fn input_gradient(g: &Geometry, dy: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if is_product(g, dy) {
        let [h, w] = g.input;
        let dx = Tensor::empty(dy.gpu(), [g.images, h, w, g.channels], dy.dtype())?;
        Gemm::nn(g.pixels(), g.channels, g.filters).run(dy, weight, bias, &dx)?;
        return Ok(dx);
    }
    let ([kh, kw], columns) = (g.kernel, g.channels / g.groups);
    let gather = Gather {
        taps: g.backward(),
        source_channels: g.filters,
        target_channels: g.channels,
        rows: g.filters / g.groups,
        columns,
        row_stride: kh * kw * columns,
        column_stride: 1,
        forward: false,
    };
    gather.launch(g, dy, weight, bias, None).map(|(dx, _)| dx)
}

impl Gather {
    /// Rounds of a launch. Taps and channels are loops in each other where weights are read where
    /// they are or nothing is shared, else one.
    fn walk(&self, g: &Geometry, gpu: &Gpu, version: Version, in_place: bool, lanes: usize) -> usize {
        let ([kh, kw], [every_y, every_x]) = (g.kernel, self.taps.every);
        let all = kh * kw * self.rows;
        let taps = match version {
            Version::Plain => rounds(kh, rounds(kw, rounds(self.rows / if self.rows.is_multiple_of(4) { 4 } else { 1 }, 0))),
            Version::Software if in_place => rounds(kh, rounds(kw, rounds(self.rows.div_ceil(8), 0))),
            Version::Software => rounds(all.div_ceil(lanes), 0),
            Version::Gpu => rounds(all.div_ceil(128), rounds(8, 0)),
            Version::Matrix(matrix) => self.tile(g, gpu, matrix).rounds(gpu.capabilities(), all),
        };
        taps + rounds(every_y.min(kh), 0) + rounds(every_x.min(kw), 0)
    }

    /// Whether the `software` schedule reads weights where they are.
    fn in_place(&self, g: &Geometry, gpu: &Gpu) -> bool {
        let fits = self.rows.is_multiple_of(4) && (self.forward || self.columns.is_multiple_of(4));
        fits && gpu.capabilities().may_walk_exactly(self.walk(g, gpu, Version::Software, true, 4))
    }

    /// The schedule's version, unless its walk over taps and channels is too long: then the one
    /// that takes most of them in a round.
    fn version(&self, g: &Geometry, x: &Tensor) -> Version {
        let gpu = x.gpu();
        let version = version(x, g, self.columns);
        let walk = self.walk(g, gpu, version, self.in_place(g, gpu), 4);
        if gpu.capabilities().may_walk_exactly(walk) { version } else { Version::Gpu }
    }

    /// The convolution's result, and whether it wrote `statistics` of it.
    fn launch(
        &self,
        g: &Geometry,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        statistics: Option<&Tensor>,
    ) -> Result<(Tensor, bool)> {
        let ([source_h, source_w], [h, w]) = (self.taps.source, self.taps.target);
        let y = Tensor::empty(x.gpu(), [g.images, h, w, self.target_channels], x.dtype())?;
        if y.numel() == 0 {
            return Ok((y, false));
        }
        let columns4 = self.columns.div_ceil(4);
        let version = self.version(g, x);
        let statistics = statistics.filter(|_| version == Version::Gpu && y.dtype() == DType::F32);
        let by_fours = self.rows.is_multiple_of(4);
        // What of a GPU's step lies within one tap.
        let fours = match self.rows {
            rows if rows.is_multiple_of(16) => "step",
            _ if by_fours => "vec4",
            _ => "none",
        };
        // Whether weights are read where they are.
        let in_place = version == Version::Software && self.in_place(g, x.gpu());
        let packed = if in_place { weight } else { &self.pack(g, weight, bias)? };
        // Few columns: half of the lanes take half of the pixels.
        let lanes = if columns4 <= 4 { 4 } else { 8 };
        let tile = if let Version::Matrix(matrix) = version { Some(self.tile(g, x.gpu(), matrix)) } else { None };
        let side = tile.map_or_else(|| self.tile_side(g, x.gpu()), |tile| tile.side);
        let (kernel, tile_pixels, tile_columns4) = match version {
            Version::Plain => (&PLAIN, 4, 1),
            Version::Software => (&SOFTWARE, 32, lanes),
            Version::Gpu => (&GPU, side, side / 4),
            Version::Matrix(_) => (&MATRIX, side, side / 4),
        };
        let Taps { step: [step_y, step_x], up: [up_y, up_x], start: [start_y, start_x], .. } = self.taps;
        let ([kh, kw], [dilation_y, dilation_x], [every_y, every_x]) = (g.kernel, self.taps.dilation, self.taps.every);
        let [sub_h, sub_w] = [h.div_ceil(up_y), w.div_ceil(up_x)];
        let pixels = g.images * sub_h * sub_w;
        let (pixel_tiles, column_tiles) = (pixels.div_ceil(tile_pixels), columns4.div_ceil(tile_columns4));
        let tiles = up_y.min(h) * up_x.min(w) * pixel_tiles * column_tiles * g.groups;
        let mut launch = Launch::new(x.gpu(), kernel, "gather").storage(x.dtype().storage()).flops(g.flops());
        launch = launch.define("VECTOR_OUT", self.columns.is_multiple_of(4));
        match version {
            Version::Plain => launch = launch.define("VECTOR", by_fours),
            Version::Software => {
                launch = launch.define("VECTOR", in_place).define("COLUMNS", lanes);
                launch = launch.define("FLAT", in_place && is_flat(g)).define("FORWARD", !in_place || self.forward);
            }
            Version::Gpu => {
                launch = launch.define("FOURS", fours).define("TILE", side).define("AHEAD", ahead(x.gpu()));
                launch = launch.define("STATISTICS", statistics.is_some());
            }
            // Positions are fetched by four.
            Version::Matrix(_) => launch = launch.define("FOURS", if by_fours { "vec4" } else { "none" }),
        }
        if let Some(tile) = tile {
            launch = launch.define("SHAPE", tile.shape());
        }
        launch = launch.read(x).read(packed).write(&y);
        if in_place {
            launch = launch.read(bias.unwrap_or(weight));
        }
        if let Some(statistics) = statistics {
            launch = launch.write(statistics);
        }
        #[rustfmt::skip]
        let launch = launch.params(params![
            pixels, sub_h, sub_w, h, w, self.target_channels, source_h, source_w, self.source_channels, self.rows, self.columns, kh, kw,
            step_y, step_x, up_y, up_x, start_y, start_x, dilation_y, dilation_x,
            every_y, every_x, pixel_tiles, column_tiles, g.groups, tiles,
            bias.is_some(),
        ]);
        let launch = launch.walk(self.walk(g, x.gpu(), version, in_place, lanes) + statistics::tile_rounds(side));
        if version == Version::Plain {
            launch.invocations(tiles)?
        } else {
            launch.groups(tiles)?
        }
        Ok((y, statistics.is_some()))
    }

    /// Pixels and columns of a tile on GPUs: 128 need fewer reads, but must be many to occupy a
    /// large GPU.
    fn tile_side(&self, g: &Geometry, gpu: &Gpu) -> usize {
        let pixels = self.taps.target.iter().product::<usize>() * g.images;
        let many = pixels.div_ceil(128) * self.columns.div_ceil(128) * g.groups >= 256;
        let fit = pixels >= 128 && self.columns >= 128 && many && gpu.capabilities().large_tiles();
        let default = if fit { 128 } else { 64 };
        gpu.tuned(&TILE, Knob::bucket(pixels), default) as usize
    }

    fn tile(&self, g: &Geometry, gpu: &Gpu, matrix: Matrix) -> Tile {
        Tile::new(gpu.capabilities(), matrix, self.tile_side(g, gpu))
    }

    fn pack(&self, g: &Geometry, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let [kh, kw] = g.kernel;
        let taps = kh * kw;
        let packed = Tensor::empty(weight.gpu(), [g.groups, taps * self.rows + 1, self.columns.next_multiple_of(4)], DType::F32)?;
        let n4 = packed.numel() / 4;
        Launch::new(weight.gpu(), &PACK, "pack")
            .read(weight)
            .read(bias.unwrap_or(weight))
            .write(&packed)
            .params(params![
                n4,
                taps,
                self.rows,
                self.columns,
                self.rows * self.columns * taps,
                g.channels / g.groups,
                self.row_stride,
                self.column_stride,
                bias.is_some(),
            ])
            .invocations(n4)?;
        Ok(packed)
    }
}

/// Workgroups that the gradient to the weights is split into at least, on GPUs.
fn slab_groups(gpu: &Gpu, g: &Geometry) -> usize {
    gpu.tuned(&SLAB_GROUPS, Knob::bucket(g.pixels()), 512) as usize
}

/// The gradient [K, kh, kw, C / groups] to the weights.
pub(crate) fn weight_gradient(g: &Geometry, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let [kh, kw] = g.kernel;
    let (channels, columns) = (g.channels / g.groups, g.filters / g.groups);
    let shape = Shape::from([g.filters, kh, kw, channels]);
    if g.pixels() == 0 {
        return Tensor::zeros(x.gpu(), shape, DType::F32);
    }
    if is_product(g, x) {
        let dw = Tensor::empty(x.gpu(), shape, DType::F32)?;
        Gemm::tn(g.filters, g.channels, g.pixels()).run(dy, x, None, &dw)?;
        return Ok(dw);
    }
    let rows = kh * kw * channels;
    let columns4 = columns.div_ceil(4);
    let version = version(x, g, columns);
    let tile = if let Version::Matrix(matrix) = version { Some(Tile::new(x.gpu().capabilities(), matrix, 64)) } else { None };
    // Pixels that are the same one by one are one long row.
    let flat = [1, g.pixels()];
    let ([h, w], [oh, ow]) = if is_flat(g) { (flat, flat) } else { (g.input, g.output) };
    // Few filters: half of the lanes take other pixels, the next of the same row.
    let lanes = if columns4 <= 4 && ow > 1 { 4 } else { 8 };
    let (kernel, tile_rows, tile_columns4, wanted) = match version {
        Version::Plain => (&WEIGHT_PLAIN, 4, 1, 4096usize),
        Version::Software => (&WEIGHT_SOFTWARE, 4 * lanes, lanes, 16),
        Version::Gpu => (&WEIGHT_GPU, 64, 16, slab_groups(x.gpu(), g)),
        Version::Matrix(_) => {
            let side = tile.map_or(64, |tile| tile.side);
            (&WEIGHT_MATRIX, side, side / 4, slab_groups(x.gpu(), g))
        }
    };
    let (row_tiles, column_tiles) = (rows.div_ceil(tile_rows), columns4.div_ceil(tile_columns4));
    let tiles = row_tiles * column_tiles * g.groups;
    // Enough workgroups to fill the adapter; a software driver also wants slabs (of both images)
    // that stay in its cache.
    let cached = if version == Version::Software {
        let channels = g.channels + g.filters;
        let least = 1 << (65536 / channels).clamp(256, 1024).ilog2();
        g.pixels() / x.gpu().tuned(&SLAB_PIXELS, Knob::bucket(channels), least) as usize
    } else {
        1
    };
    let step = match version {
        Version::Plain => 1,
        Version::Software => 8,
        Version::Gpu => 16,
        Version::Matrix(_) => matrix::STEP,
    };
    let slabs = Slabs::new(x.gpu(), g.pixels(), wanted.div_ceil(tiles).max(cached), 64, g.groups * rows * columns4 * 4);
    let slabs = slabs.short(x.gpu(), g.pixels(), 1, step);
    // On software drivers the partial sums have the layout of the weights: one slab needs no second
    // pass.
    let partial_shape = match version {
        Version::Software if slabs.count == 1 => shape.clone(),
        Version::Software => Shape::from([slabs.count, shape.numel().next_multiple_of(4)]),
        _ => Shape::from([slabs.count, g.groups * rows, columns4 * 4]),
    };
    let partial = Tensor::empty(x.gpu(), partial_shape, DType::F32)?;
    let slab_floats = partial.numel() / slabs.count;
    let Taps { step: [step_y, step_x], start: [start_y, start_x], dilation: [dilation_y, dilation_x], .. } = g.forward();
    let tiles = tiles * slabs.count;
    let mut launch = Launch::new(x.gpu(), kernel, "gradient").storage(x.dtype().storage()).flops(g.flops());
    launch = launch.define("VECTOR_OUT", columns.is_multiple_of(4)).define("VECTOR", channels.is_multiple_of(4));
    match version {
        Version::Software => launch = launch.define("LANES", lanes),
        Version::Gpu => launch = launch.define("AHEAD", ahead(x.gpu())),
        Version::Plain | Version::Matrix(_) => {}
    }
    if let Some(tile) = tile {
        launch = launch.define("SHAPE", tile.shape());
    }
    #[rustfmt::skip]
    let launch = launch.read(x).read(dy).write(&partial).params(params![
        g.pixels(), oh, ow, g.filters, h, w, g.channels, rows, channels, columns, kw, step_y, step_x, start_y, start_x,
        dilation_y, dilation_x, slabs.pixels, row_tiles, column_tiles, g.groups, tiles, slab_floats,
    ]);
    let walk = rounds(slabs.pixels.div_ceil(step), 0);
    let launch = launch.walk(tile.map_or(walk, |tile| tile.rounds(x.gpu().capabilities(), slabs.pixels)));
    if version == Version::Plain {
        launch.invocations(tiles)?
    } else {
        launch.groups(tiles)?
    }
    match version {
        Version::Software if slabs.count == 1 => Ok(partial),
        Version::Software => {
            let weights = shape.numel();
            reduce(&partial, shape, slabs.count, 1, weights, [1, 1])
        }
        _ => reduce(&partial, shape, slabs.count, rows, columns, [1, rows]),
    }
}

//! How depthwise convolutions are run: forward, gradient to the input, gradient to the weights.

use super::super::geometry::{Geometry, Taps};
use super::super::slabs::{Slabs, reduce};
use crate::error::Result;
use crate::gpu::{Gpu, Knob, Launch, Schedule, rounds};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Shape, Tensor};

kernels!(
    GATHER = "convolution/depthwise_conv2d",
    WINDOW = "convolution/depthwise_conv2d_window",
    WEIGHT = "convolution/depthwise_conv2d_weight",
);

/// Rows of the target in a strip of the window kernel, on software drivers; by channels.
const STRIP_ROWS: Knob = Knob { name: "convolution/depthwise.strip_rows", choices: &[2, 4, 8, 16] };
/// KiB of both images that a slab of the gradient to the weights may have on software drivers, so
/// that it stays in a core's cache; by channels.
const SLAB_KIB: Knob = Knob { name: "convolution/depthwise_weight.slab_kib", choices: &[64, 128, 256, 512, 1024] };
/// Workgroups that share such a gradient at least.
const WORKGROUPS: usize = 16;
/// Rounds of each of its loops that touch a strip, at most.
const TOUCHES: usize = 1 << 13;

/// Sizes for which the window kernels are written: the kernel's size and the stride.
fn window(g: &Geometry) -> Option<(usize, usize)> {
    let ([kh, kw], [sy, sx]) = (g.kernel, g.stride);
    let fits = kh == kw && [3, 5, 7].contains(&kw) && sy == sx && sx <= 2 && g.dilation == [1, 1];
    (fits && g.channels == g.filters && g.channels.is_multiple_of(4)).then_some((kw, sx))
}

/// Rows of a tile of the window kernels: with stride 2 rows share little, and the text would be
/// twice as long.
fn tile_rows(stride: usize) -> usize {
    if stride == 2 { 1 } else { 2 }
}

fn schedule(gpu: &Gpu, g: &Geometry) -> Schedule {
    gpu.schedule("convolution/depthwise.schedule", Knob::bucket(g.pixels()))
}

/// Of 8 lanes, those that lie along the channels: the least power of two that takes all.
fn channel_lanes(channels4: usize) -> usize {
    channels4.next_power_of_two().min(8)
}

/// Channels that a thread of the general kernels takes at once.
fn width(g: &Geometry) -> usize {
    if g.channels == g.filters && g.channels.is_multiple_of(4) { 4 } else { 1 }
}

/// A launch of the window kernel: forward, or backwards from the upstream gradient to the input's.
fn run_window(
    g: &Geometry,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    [size, stride]: [usize; 2],
    backwards: bool,
) -> Result<Tensor> {
    let Taps { source: [source_h, source_w], target: [h, w], start, .. } = if backwards { g.backward() } else { g.forward() };
    let up = if backwards { stride } else { 1 };
    let (last_row, half) = (size as i64 - 1, (size as i64 - 1) / 2);
    // Backwards, the source is padded so that each tap meets what it was multiplied with.
    let ([start_y, start_x], [shift_y, shift_x]) = match (backwards, up) {
        (false, _) => (start, [0, 0]),
        (true, 1) => (start.map(|v| v - last_row), [0, 0]),
        (true, _) => (start.map(|v| v / 2 - half), start.map(|v| v % 2)),
    };
    let last = if backwards && up == 1 { size * size - 1 } else { 0 };
    let y = Tensor::empty(x.gpu(), [g.images, h, w, g.channels], x.dtype())?;
    let tall = tile_rows(if up == 1 { stride } else { 1 });
    let (channels4, tiles_y, tiles_x) = (g.channels / 4, (h + shift_y as usize).div_ceil(tall), (w + shift_x as usize).div_ceil(4));
    let count = g.images * tiles_y * tiles_x * channels4;
    let lanes = channel_lanes(channels4);
    let strip = x.gpu().tuned(&STRIP_ROWS, Knob::bucket(g.channels), 4) as usize / tall;
    let strips = tiles_y.div_ceil(strip);
    let rough = channels4.div_ceil(lanes) * strip * tiles_x.div_ceil(8 / lanes) + TOUCHES;
    let walk = rounds(channels4.div_ceil(lanes), rounds(strip, rounds(tiles_x.div_ceil(8 / lanes), 0))) + rounds(TOUCHES, 0);
    let capabilities = x.gpu().capabilities();
    let by_strip = schedule(x.gpu(), g) == Schedule::Software && capabilities.may_walk(rough) && capabilities.may_walk_exactly(walk);
    #[rustfmt::skip]
    let launch = Launch::new(x.gpu(), &WINDOW, "window")
        .storage(x.dtype().storage())
        .flops(g.flops())
        .define("SIZE", size)
        .define("STRIDE", if up == 1 { stride } else { 1 })
        .define("UP", up)
        .define("STRIP", by_strip)
        .read(x)
        .read(weight)
        .read(bias.unwrap_or(weight))
        .write(&y)
        .params(params![
            count, tiles_y, tiles_x, h, w, channels4, source_h, source_w, shift_y, shift_x, start_y, start_x, last, bias.is_some(),
            strip, strips, lanes, f32::NAN,
        ]);
    if by_strip {
        launch.walk(walk).groups(g.images * strips)?;
    } else {
        launch.invocations(count)?;
    }
    Ok(y)
}

/// A launch of the general kernel, which tries every so many taps: from `x` `[N, .., .., channels]`
/// to `[N, .., .., columns]`.
fn run_gather(
    g: &Geometry,
    taps: &Taps,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    [channels, columns]: [usize; 2],
) -> Result<Tensor> {
    let ([source_h, source_w], [h, w], [kh, kw]) = (taps.source, taps.target, g.kernel);
    let Taps { step: [step_y, step_x], up: [up_y, up_x], start: [top, left], dilation: [dilation_y, dilation_x], .. } = *taps;
    let [every_y, every_x] = taps.every;
    let y = Tensor::empty(x.gpu(), [g.images, h, w, columns], x.dtype())?;
    let (width, multiplier) = (width(g), g.filters / g.channels);
    let count = y.numel() / width;
    // Output channels of an input channel, whichever of them is written.
    let (divide, repeat) = if columns >= channels { (multiplier, 1) } else { (1, multiplier) };
    #[rustfmt::skip]
    let params = params![
        count, h, w, columns / width, source_h, source_w, channels / width, kh, kw, step_y, step_x, up_y, up_x, top, left,
        dilation_y, dilation_x, every_y, every_x, divide, repeat, bias.is_some(),
    ];
    let inner = if multiplier == 1 { 0 } else { rounds(multiplier, 0) };
    let walk = rounds(kh.div_ceil(every_y), rounds(kw.div_ceil(every_x), inner)) + rounds(every_y.min(kh), 0) + rounds(every_x.min(kw), 0);
    let launch = Launch::new(x.gpu(), &GATHER, "gather")
        .storage(x.dtype().storage())
        .flops(g.flops())
        .define("WIDTH", width)
        .define("REPEAT", repeat > 1);
    launch.read(x).read(weight).read(bias.unwrap_or(weight)).write(&y).params(params).walk(walk).invocations(count)?;
    Ok(y)
}

/// y [N, OH, OW, C * multiplier] of x [N, H, W, C], weights [kh, kw, C * multiplier] and bias
/// `[C * multiplier]`.
pub(super) fn forward(g: &Geometry, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match window(g) {
        Some((size, stride)) => run_window(g, x, weight, bias, [size, stride], false),
        None => run_gather(g, &g.forward(), x, weight, bias, [g.channels, g.filters]),
    }
}

/// The gradient [N, H, W, C] to the input, of the upstream gradient [N, OH, OW, C * multiplier].
pub(super) fn input_gradient(g: &Geometry, dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match window(g) {
        Some((size, stride)) => run_window(g, dy, weight, None, [size, stride], true),
        None => run_gather(g, &g.backward(), dy, weight, None, [g.filters, g.channels]),
    }
}

/// The gradient [kh, kw, C * multiplier] to the weights.
pub(super) fn weight_gradient(g: &Geometry, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let ([h, w], [source_h, source_w], [kh, kw]) = (g.output, g.input, g.kernel);
    if g.pixels() == 0 {
        return Tensor::zeros(x.gpu(), [kh, kw, g.filters], DType::F32);
    }
    let Taps { step: [step_y, step_x], start: [top, left], dilation: [dilation_y, dilation_x], .. } = g.forward();
    let (taps, width) = (kh * kw, width(g));
    let (size, stride) = window(g).unwrap_or((0, 1));
    // All nine taps fit into a thread's registers, of larger kernels one row.
    let band = if size == 3 { 3 } else { 1 };
    let items = match size {
        0 => taps,
        _ => kh / band,
    };
    // Rows of all images, or tiles of them.
    let tall = if size == 0 { 1 } else { tile_rows(stride) };
    let rows = g.images * h.div_ceil(tall);
    let channels = g.filters / width;
    let columns = g.filters.next_multiple_of(4);
    let schedule = schedule(x.gpu(), g);
    let cached = (x.gpu().tuned(&SLAB_KIB, Knob::bucket(channels * width), 256) as usize) << 10;
    let lanes = channel_lanes(channels);
    let blocks = channels.div_ceil(lanes);
    let row_bytes = 4 * tall * (w * g.filters + stride * source_w * g.channels);
    // What stays in a core's cache, but enough workgroups for several. A tensor that is small as a
    // whole is split by channels first.
    let small = rows * row_bytes <= cached;
    let wanted = if small { WORKGROUPS.div_ceil(blocks) } else { (rows * row_bytes).div_ceil(cached).max(WORKGROUPS) };
    let by_strip = Slabs::new(x.gpu(), rows, wanted, 1, taps * columns * 8);
    let rough = blocks * by_strip.pixels * (1 + w.div_ceil(32 / lanes)) + 2 * TOUCHES;
    let strip_rows = by_strip.pixels;
    let exact = |blocks: usize| rounds(blocks, rounds(strip_rows, rounds(w.div_ceil(32 / lanes), 0))) + 2 * rounds(TOUCHES, 0);
    let capabilities = x.gpu().capabilities();
    let may = capabilities.may_walk(rough) && capabilities.may_walk_exactly(exact(if small { 1 } else { blocks }));
    let strip = size != 0 && schedule == Schedule::Software && may;
    let threads = if schedule == Schedule::Gpu { 16384usize } else { 4096 };
    // Columns that a thread walks: all of a row, unless that would be too long.
    let across = if size == 0 { 1 } else { 4 };
    let most = capabilities.longest_walk() / 2;
    let short = capabilities.may_walk_exactly(rounds(1, rounds(w.div_ceil(across), 0)));
    let part = if short { w } else { most * across };
    let row = rounds(part.div_ceil(across), 0);
    let slabs = if strip {
        by_strip
    } else {
        Slabs::new(x.gpu(), rows, threads.div_ceil(channels * items), 1, taps * columns).short(x.gpu(), rows, row + 1, 1)
    };
    let (parts, written) = match strip {
        true => (if small { blocks } else { 1 }, slabs.count * (8 / lanes)),
        false => (w.div_ceil(part.max(1)).max(1), slabs.count * w.div_ceil(part.max(1)).max(1)),
    };
    let lanes = if strip { lanes } else { part };
    let partial = Tensor::empty(x.gpu(), [written, taps, columns], DType::F32)?;
    let count = if strip { slabs.count } else { written } * items * channels;
    #[rustfmt::skip]
    let params = params![
        count, rows, h, w, channels, columns / width, source_h, source_w, g.channels / width, kh, kw, step_y, step_x, top, left,
        dilation_y, dilation_x, g.filters / g.channels, slabs.pixels, lanes, parts, f32::NAN,
    ];
    let launch = Launch::new(x.gpu(), &WEIGHT, "gradient").storage(x.dtype().storage()).flops(g.flops()).define("WIDTH", width);
    let launch = launch.define("SIZE", size).define("STRIDE", stride).define("BAND", band).define("STRIP", strip);
    let launch = launch.define("PIECES", !strip && parts > 1).read(x).read(dy).write(&partial).params(params);
    if strip {
        launch.walk(exact(blocks.div_ceil(parts))).groups(slabs.count * items * parts)?;
    } else {
        launch.walk(rounds(slabs.pixels, row)).invocations(count)?;
    }
    reduce(&partial, Shape::from([kh, kw, g.filters]), written, taps, g.filters, [g.filters, 1])
}

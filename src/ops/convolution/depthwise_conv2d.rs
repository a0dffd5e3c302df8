//! Depthwise convolution: each channel has its own kernels and sees no other channel.

use super::dense::{Slabs, gradients, reduce, tap_step};
use super::geometry::{Geometry, Padding, Window, check, listed, split};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Kernel, Knob, Launch, Schedule, kernel, rounds};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Backward, Cost, Edges, Operator, Saves, apply_one, images};
use crate::params;
use crate::tensor::{DType, Shape, Spec, Tensor};

const NAME: &str = "depthwise_conv2d";

static GATHER: Kernel = kernel!("convolution/depthwise_conv2d");
static WINDOW: Kernel = kernel!("convolution/depthwise_conv2d_window");
static WEIGHT: Kernel = kernel!("convolution/depthwise_conv2d_weight");

/// Options of [`Tensor::depthwise_conv2d`]; the first number of a pair is vertical. The multiplier, output channels per input
/// channel, follows from the weight's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthwiseConv2dOptions {
    /// Pixels between two positions of the kernel.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Pixels between two taps of the kernel.
    pub dilation: [usize; 2],
}

impl Default for DepthwiseConv2dOptions {
    fn default() -> Self {
        Self { stride: [1, 1], padding: Padding::default(), dilation: [1, 1] }
    }
}

/// `y[n, i, j, c * multiplier + m] = bias + sum over r, s of x[n, i * stride + r * dilation - padding, .., c] * weight[r, s, c * multiplier + m]`
#[derive(Debug, Clone)]
pub struct DepthwiseConv2d {
    options: DepthwiseConv2dOptions,
    /// Where it was stated, it must agree with the weight.
    multiplier: Option<usize>,
}

impl DepthwiseConv2d {
    /// A depthwise convolution with `options`.
    pub fn new(options: DepthwiseConv2dOptions) -> Self {
        Self { options, multiplier: None }
    }

    /// The same, refusing weights with another multiplier.
    #[must_use]
    pub fn with_multiplier(self, multiplier: usize) -> Self {
        Self { multiplier: Some(multiplier), ..self }
    }

    fn geometry(&self, x: &Spec, weight: &Spec) -> Result<Geometry> {
        let [images, h, w, channels] = images(NAME, x)?;
        let DepthwiseConv2dOptions { stride, padding, dilation } = self.options;
        let wrong = |rule: String| Err(Error::shape(NAME, format!("x {} and weight {}: {rule}", x.shape, weight.shape)));
        let Some([kh, kw, filters]) = weight.shape.array() else {
            return wrong("a weight has the shape [kh, kw, C * multiplier]".into());
        };
        if channels == 0 || filters == 0 || filters % channels != 0 {
            return wrong("the weight's last size must be a multiple of C".into());
        }
        if let Some(multiplier) = self.multiplier.filter(|m| m.checked_mul(channels) != Some(filters)) {
            return wrong(format!("with multiplier {multiplier} the weight's last size must be {multiplier} times {channels}"));
        }
        let (before, output) = Window { stride, padding, dilation }.slide(NAME, [h, w], [kh, kw])?;
        Ok(Geometry { images, input: [h, w], channels, output, filters, kernel: [kh, kw], stride, before, dilation, groups: channels })
    }
}

/// Sizes for which the window kernels are written: the kernel's size and the stride.
fn window(g: &Geometry) -> Option<(usize, usize)> {
    let ([kh, kw], [sy, sx]) = (g.kernel, g.stride);
    let fits = kh == kw && [3, 5, 7].contains(&kw) && sy == sx && sx <= 2 && g.dilation == [1, 1];
    (fits && g.channels == g.filters && g.channels.is_multiple_of(4)).then_some((kw, sx))
}

/// Rows of the target in a strip of the window kernel, on software drivers; by channels.
const STRIP_ROWS: Knob = Knob { name: "convolution/depthwise.strip_rows", choices: &[2, 4, 8, 16] };
/// KiB of both images that a slab of the gradient to the weights may have on software drivers, so that it stays in a core's cache; by
/// channels.
const SLAB_KIB: Knob = Knob { name: "convolution/depthwise_weight.slab_kib", choices: &[64, 128, 256, 512, 1024] };
/// Workgroups that share such a gradient at least.
const WORKGROUPS: usize = 16;
/// Rounds of each of its loops that touch a strip, at most.
const TOUCHES: usize = 1 << 13;

/// Rows of a tile of the window kernels: with stride 2 rows share little, and the text would be twice as long.
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
    let ([h, w], [source_h, source_w]) = if backwards { (g.input, g.output) } else { (g.output, g.input) };
    let up = if backwards { stride } else { 1 };
    let before = g.before.map(|v| v as i64);
    let (last_row, half) = (size as i64 - 1, (size as i64 - 1) / 2);
    // Backwards, the source is padded so that each tap meets what it was multiplied with.
    let ([start_y, start_x], [shift_y, shift_x]) = match (backwards, up) {
        (false, _) => (before.map(|v| -v), [0, 0]),
        (true, 1) => (before.map(|v| v - last_row), [0, 0]),
        (true, _) => (before.map(|v| v / 2 - half), before.map(|v| v % 2)),
    };
    let last = if backwards && up == 1 { size * size - 1 } else { 0 };
    let y = Tensor::empty(x.gpu(), [g.images, h, w, g.channels], x.dtype())?;
    let tall = tile_rows(if up == 1 { stride } else { 1 });
    let (channels4, tiles_y, tiles_x) = (g.channels / 4, (h + shift_y as usize).div_ceil(tall), (w + shift_x as usize).div_ceil(4));
    let count = g.images * tiles_y * tiles_x * channels4;
    let lanes = channel_lanes(channels4);
    let strip = x.gpu().tuned(&STRIP_ROWS, Knob::bucket(g.channels), 4) as usize / tall;
    let strips = tiles_y.div_ceil(strip);
    let rough = channels4.div_ceil(lanes) * strip * tiles_x.div_ceil(8 / lanes) + 2 * TOUCHES;
    let walk = rounds(channels4.div_ceil(lanes), rounds(strip, rounds(tiles_x.div_ceil(8 / lanes), 0))) + 2 * rounds(TOUCHES, 0);
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

/// Rounds of the general kernel, which tries every so many taps.
fn gather_walk(g: &Geometry, [step_y, step_x]: [usize; 2]) -> usize {
    let [kh, kw] = g.kernel;
    let multiplier = g.filters / g.channels;
    let inner = if multiplier == 1 { 0 } else { rounds(multiplier, 0) };
    let taps = rounds(kh.div_ceil(step_y), rounds(kw.div_ceil(step_x), inner));
    rounds(step_y.min(kh), 0) + rounds(step_x.min(kw), 0) + taps
}

fn forward(g: &Geometry, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if let Some((size, stride)) = window(g) {
        return run_window(g, x, weight, bias, [size, stride], false);
    }
    let ([h, w], [source_h, source_w], [kh, kw], [step_y, step_x]) = (g.output, g.input, g.kernel, g.stride);
    let ([top, left], [dilation_y, dilation_x]) = (g.before.map(|v| -(v as i64)), g.dilation.map(|v| v as i64));
    let y = Tensor::empty(x.gpu(), [g.images, h, w, g.filters], x.dtype())?;
    let width = width(g);
    let count = y.elements() / width;
    #[rustfmt::skip]
    let params = params![
        count, h, w, g.filters / width, source_h, source_w, g.channels / width, kh, kw, step_y, step_x, 1usize, 1usize, top, left,
        dilation_y, dilation_x, 1usize, 1usize, g.filters / g.channels, 1usize, bias.is_some(),
    ];
    let launch = Launch::new(x.gpu(), &GATHER, "gather")
        .storage(x.dtype().storage())
        .flops(g.flops())
        .define("WIDTH", width)
        .define("REPEAT", false);
    launch.read(x).read(weight).read(bias.unwrap_or(weight)).write(&y).params(params).walk(gather_walk(g, [1, 1])).invocations(count)?;
    Ok(y)
}

fn input_gradient(g: &Geometry, dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if let Some((size, stride)) = window(g) {
        return run_window(g, dy, weight, None, [size, stride], true);
    }
    let ([h, w], [source_h, source_w], [kh, kw], [up_y, up_x]) = (g.input, g.output, g.kernel, g.stride);
    let ([top, left], [dilation_y, dilation_x]) = (g.before.map(|v| v as i64), g.dilation.map(|v| -(v as i64)));
    let [d_y, d_x] = g.dilation;
    let dx = Tensor::empty(dy.gpu(), [g.images, h, w, g.channels], dy.dtype())?;
    let width = width(g);
    let count = dx.elements() / width;
    #[rustfmt::skip]
    let params = params![
        count, h, w, g.channels / width, source_h, source_w, g.filters / width, kh, kw, 1usize, 1usize, up_y, up_x, top, left,
        dilation_y, dilation_x, tap_step(up_y, d_y), tap_step(up_x, d_x), 1usize, g.filters / g.channels, false,
    ];
    let launch = Launch::new(dy.gpu(), &GATHER, "gather")
        .storage(dy.dtype().storage())
        .flops(g.flops())
        .define("WIDTH", width)
        .define("REPEAT", g.filters > g.channels);
    let walk = gather_walk(g, [tap_step(up_y, d_y), tap_step(up_x, d_x)]);
    launch.read(dy).read(weight).read(weight).write(&dx).params(params).walk(walk).invocations(count)?;
    Ok(dx)
}

fn weight_gradient(g: &Geometry, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let ([h, w], [source_h, source_w], [kh, kw], [step_y, step_x]) = (g.output, g.input, g.kernel, g.stride);
    let ([top, left], [dilation_y, dilation_x]) = (g.before.map(|v| -(v as i64)), g.dilation.map(|v| v as i64));
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
    // What stays in a core's cache, but enough workgroups for several. A tensor that is small as a whole is split by channels first.
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
    let launch = launch.read(x).read(dy).write(&partial).params(params);
    if strip {
        launch.walk(exact(blocks.div_ceil(parts))).groups(slabs.count * items * parts)?;
    } else {
        launch.walk(rounds(slabs.pixels, row)).invocations(count)?;
    }
    reduce(&partial, Shape::from([kh, kw, g.filters]), written, taps, g.filters, [g.filters, 1])
}

impl Operator for DepthwiseConv2d {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(x, weight)?;
        check(NAME, x, weight, bias, g.filters)?;
        let [h, w] = g.output;
        Ok(vec![Spec::new([g.images, h, w, g.filters], x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(x.spec(), weight.spec())?;
        Ok(vec![forward(&g, x, weight, bias.copied())?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, weight) = (step.input(0)?, step.input(1)?);
        let g = self.geometry(x.spec(), weight.spec())?;
        gradients(step, |dy| input_gradient(&g, dy, weight), |dy| weight_gradient(&g, x, dy))
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, input: usize) -> Edges {
        if input == 1 { Edges::Spread } else { Edges::All }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(&Spec::f32(x.shape.clone()), &Spec::f32(weight.shape.clone()))?;
        let ([h, w], [oh, ow], [kh, kw], [sy, sx]) = (g.input, g.output, g.kernel, g.stride);
        let ([dy, dx], [top, left], multiplier) = (g.dilation, g.before, g.filters / g.channels);
        let y = Array::from_fn([g.images, oh, ow, g.filters], |at| {
            let [n, i, j, o] = *at else { return f64::NAN };
            let mut sum = bias.map_or(0.0, |b| b.flat(o));
            for r in 0..kh {
                for s in 0..kw {
                    let (row, column) = (i * sy + r * dy, j * sx + s * dx);
                    if row >= top && column >= left && row - top < h && column - left < w {
                        sum += x.at(&[n, row - top, column - left, o / multiplier]) * weight.at(&[r, s, o]);
                    }
                }
            }
            sum
        });
        Ok(vec![y])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let flops = match inputs {
            [x, weight, ..] => self.geometry(x, weight).map_or(0.0, |g| g.flops()),
            _ => 0.0,
        };
        Cost { flops, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let Window { stride, padding, dilation } = Window::from_attributes(attributes)?;
    let operator = DepthwiseConv2d::new(DepthwiseConv2dOptions { stride, padding, dilation });
    Ok(Box::new(if attributes.has("multiplier") { operator.with_multiplier(attributes.size("multiplier")?) } else { operator }))
}

fn samples() -> Vec<Sample> {
    let sample = |x: [usize; 4], weight: [usize; 3], bias: bool, options: DepthwiseConv2dOptions| {
        let mut inputs: Vec<Input> = vec![normal(x), normal_with(weight, 0.3, 0.0)];
        if bias {
            inputs.push(normal([weight[2]]));
        }
        Sample::new(DepthwiseConv2d::new(options), inputs)
    };
    let with = |stride: [usize; 2], padding: Padding, dilation: [usize; 2]| DepthwiseConv2dOptions { stride, padding, dilation };
    let same = with([1, 1], Padding::Same, [1, 1]);
    let two = with([2, 2], Padding::Same, [1, 1]);
    vec![
        sample([0, 5, 5, 4], [3, 3, 4], true, same),
        sample([1, 1, 1, 1], [1, 1, 1], false, DepthwiseConv2dOptions::default()),
        sample([2, 5, 7, 3], [3, 3, 3], true, same),
        sample([2, 7, 5, 4], [3, 3, 4], true, same),
        sample([1, 9, 6, 12], [3, 3, 12], false, two),
        sample([1, 9, 10, 8], [5, 5, 8], true, same),
        sample([1, 8, 9, 4], [5, 5, 4], false, two),
        sample([1, 9, 7, 4], [7, 7, 4], true, with([1, 1], [3, 2, 0, 4].into(), [1, 1])),
        sample([1, 11, 13, 4], [7, 7, 4], true, with([2, 2], 3.into(), [1, 1])),
        sample([1, 9, 9, 8], [3, 5, 8], true, with([2, 3], [1, 0, 2, 3].into(), [2, 1])),
        sample([2, 6, 5, 3], [3, 3, 6], true, with([1, 2], 1.into(), [1, 1])),
        sample([1, 5, 5, 33], [3, 2, 65 + 1], true, with([2, 1], 1.into(), [1, 2])),
    ]
}

fn bad() -> Vec<Bad> {
    let plain = || DepthwiseConv2d::new(DepthwiseConv2dOptions::default());
    vec![
        Bad::new(plain(), [normal([1, 4, 4, 3])], "it takes x, weight and perhaps bias, 1 inputs were given"),
        Bad::new(plain(), [normal([4, 4, 3]), normal([3, 3, 3])], "x must be images [N, H, W, C]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([3, 3, 3, 1])], "a weight has the shape [kh, kw, C * multiplier]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([3, 3, 4])], "must be a multiple of C"),
        Bad::new(
            plain().with_multiplier(2),
            [normal([1, 4, 4, 3]), normal([3, 3, 3])],
            "with multiplier 2 the weight's last size must be 2 times 3",
        ),
        Bad::new(plain(), [normal([1, 4, 2, 3]), normal([3, 3, 3])], "a kernel that spans 3 pixels does not fit into 2 pixels"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([3, 3, 3]), normal([4])], "expected [3]: one element an output channel"),
        Bad::new(plain(), [indices([1, 4, 4, 3], 2), normal([3, 3, 3])], "x must hold floats"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        family: "convolution",
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        shaders: &[
            "convolution/depthwise_conv2d",
            "convolution/depthwise_conv2d_window",
            "convolution/depthwise_conv2d_weight",
            "convolution/reduce",
            "reduction/reduce",
        ],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Depthwise convolution of images `[N, H, W, C]` with `weight` `[kh, kw, C * multiplier]` and `bias` `[C * multiplier]`:
    /// `[N, OH, OW, C * multiplier]`, output channel `c * multiplier + m`; sizes as in [`Tensor::conv2d`].
    ///
    /// # Errors
    /// Shapes that do not fit, a kernel larger than the padded image, a stride or dilation of 0; a weight or bias that is not
    /// f32; out of memory.
    pub fn depthwise_conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &DepthwiseConv2dOptions) -> Result<Tensor> {
        apply_one(DepthwiseConv2d::new(*options), &listed(self, weight, bias))
    }
}

//! Sizes that nobody means: every operator and layer that is told a size answers an error, and
//! neither wraps nor panics nor takes memory.

use wgrad::error::{Error, Result};
use wgrad::gpu::{Gpu, GpuOptions, Kernel, Launch};
use wgrad::nn::layers::Conv2dOptions;
use wgrad::nn::{Conv2d, DepthwiseConv2d, Embedding, Linear, Parameters};
use wgrad::ops::apply;
use wgrad::ops::augment::{Cutout, Draws, Edge, GaussianBlur, RandomResizedCrop};
use wgrad::ops::convolution::conv_transpose2d::ConvTranspose2dFuncOptions;
use wgrad::ops::convolution::conv2d::Conv2dFuncOptions;
use wgrad::ops::convolution::depthwise_conv2d::{DepthwiseConv2d as Depthwise, DepthwiseConv2dFuncOptions};
use wgrad::ops::convolution::geometry::Padding;
use wgrad::ops::layout::pad::PadMode;
use wgrad::ops::pooling::{Upsample, UpsampleMode, Window};
use wgrad::ops::sample::HOSTILE_SIZES;
use wgrad::params;
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{DType, Tensor};

type Try<'a> = Box<dyn Fn(usize) -> Result<()> + 'a>;

/// A name, whether 0 is refused, too, and the call with the size.
type Row<'a> = (&'static str, bool, Try<'a>);

fn row<'a, T>(name: &'static str, zero: bool, call: impl Fn(usize) -> Result<T> + 'a) -> Row<'a> {
    (name, zero, Box::new(move |v| call(v).map(drop)))
}

fn signed(v: usize) -> isize {
    isize::try_from(v).unwrap_or(isize::MAX)
}

struct Inputs {
    x: Tensor,
    indices: Tensor,
    dense: Tensor,
    depthwise: Tensor,
    transposed: Tensor,
    matrix: Tensor,
    empty: Tensor,
}

fn inputs(gpu: &Gpu) -> Inputs {
    let full = |shape: &[usize]| Tensor::full(gpu, shape, 1.0, DType::F32).unwrap();
    Inputs {
        x: full(&[1, 5, 6, 4]),
        indices: Tensor::from_slice(gpu, &[0i32], [1]).unwrap(),
        dense: full(&[4, 3, 3, 4]),
        depthwise: full(&[3, 3, 4]),
        transposed: full(&[4, 3, 3, 2]),
        matrix: full(&[3, 4]),
        empty: full(&[0, 5, 6, 4]),
    }
}

fn convolutions(i: &Inputs) -> Vec<Row<'_>> {
    let dense = |o: Conv2dFuncOptions| i.x.conv2d(&i.dense, None, &o);
    let depthwise = |o: DepthwiseConv2dFuncOptions| i.x.depthwise_conv2d(&i.depthwise, None, &o);
    let transposed = |o: ConvTranspose2dFuncOptions| i.x.conv_transpose2d(&i.transposed, None, &o);
    let mut rows = Vec::new();
    for side in 0..4 {
        let sides = move |v: usize| {
            let mut sides = [0; 4];
            sides[side] = v;
            sides
        };
        rows.push(row("conv2d, padding", false, move |v| dense(Conv2dFuncOptions { padding: sides(v).into(), ..Default::default() })));
        rows.push(row("depthwise_conv2d, padding", false, move |v| {
            depthwise(DepthwiseConv2dFuncOptions { padding: sides(v).into(), ..Default::default() })
        }));
        rows.push(row("conv_transpose2d, padding", false, move |v| {
            transposed(ConvTranspose2dFuncOptions { padding: sides(v), ..Default::default() })
        }));
    }
    for pair in [|v| [v, 1], |v| [1, v], |v| [v, v]] as [fn(usize) -> [usize; 2]; 3] {
        for padding in [Padding::default(), Padding::Same] {
            rows.push(row("conv2d, stride", true, move |v| dense(Conv2dFuncOptions { stride: pair(v), padding, ..Default::default() })));
            rows.push(row("conv2d, dilation", true, move |v| {
                dense(Conv2dFuncOptions { dilation: pair(v), padding, ..Default::default() })
            }));
            rows.push(row("depthwise_conv2d, stride", true, move |v| {
                depthwise(DepthwiseConv2dFuncOptions { stride: pair(v), padding, ..Default::default() })
            }));
            rows.push(row("depthwise_conv2d, dilation", true, move |v| {
                depthwise(DepthwiseConv2dFuncOptions { dilation: pair(v), padding, ..Default::default() })
            }));
        }
        let options = ConvTranspose2dFuncOptions::default;
        rows.push(row("conv_transpose2d, stride", true, move |v| transposed(ConvTranspose2dFuncOptions { stride: pair(v), ..options() })));
        rows.push(row("conv_transpose2d, dilation", true, move |v| {
            transposed(ConvTranspose2dFuncOptions { dilation: pair(v), ..options() })
        }));
        rows.push(row("conv_transpose2d, output_padding", false, move |v| {
            transposed(ConvTranspose2dFuncOptions { output_padding: pair(v), stride: [usize::MAX; 2], ..options() })
        }));
    }
    rows.push(row("conv2d, groups", true, move |v| dense(Conv2dFuncOptions { groups: v, ..Default::default() })));
    rows.push(row("conv_transpose2d, groups", true, move |v| transposed(ConvTranspose2dFuncOptions { groups: v, ..Default::default() })));
    rows.push(row("depthwise_conv2d, multiplier", true, |v| {
        apply(Depthwise::new(Default::default()).with_multiplier(v), &[&i.x, &i.depthwise])
    }));
    rows
}

fn windows(i: &Inputs) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for average in [false, true] {
        let pool = move |w: Window| if average { i.x.avg_pool2d(w, true) } else { i.x.max_pool2d(w) };
        rows.push(row("pooling, kernel", true, move |v| pool(Window::square(v, 1, 0))));
        rows.push(row("pooling, stride", true, move |v| pool(Window::square(2, v, 0))));
        rows.push(row("pooling, dilation", true, move |v| pool(Window { dilation: [1, v], ..Window::square(2, 1, 1) })));
        rows.push(row("pooling, padding", false, move |v| pool(Window::square(2, 1, v))));
        rows.push(row("pooling, kernel and padding", true, move |v| pool(Window::square(v, 1, v / 2))));
    }
    for mode in [UpsampleMode::Nearest, UpsampleMode::Bilinear, UpsampleMode::Bicubic] {
        rows.push(row("upsample2d, height", true, move |v| i.x.upsample2d(Upsample::Size([v, 3]), mode)));
        rows.push(row("upsample2d, width", true, move |v| i.x.upsample2d(Upsample::Size([3, v]), mode)));
        rows.push(row("upsample2d, scale", true, move |v| i.x.upsample2d(Upsample::Scale([v as f64, 1.0]), mode)));
    }
    rows
}

fn layouts(i: &Inputs) -> Vec<Row<'_>> {
    vec![
        row("pad, constant", false, |v| i.x.pad(&[0, signed(v)], PadMode::Constant(0.0))),
        row("pad, both sides", false, |v| i.x.pad(&[(v / 2) as isize, (v / 2) as isize], PadMode::Constant(0.0))),
        row("pad, reflect", false, |v| i.x.pad(&[0, signed(v)], PadMode::Reflect)),
        row("expand", false, |v| i.x.expand(&[v, 5, 6, 4])),
        row("expand, new axes", false, |v| i.x.expand(&[v, v, 1, 5, 6, 4])),
        row("expand of nothing", false, |v| i.empty.expand(&[v, v, 0, 5, 6, 4])),
        row("reshape", false, |v| i.x.reshape(&[v, 1])),
        row("reshape with -1", false, |v| i.x.reshape(&[signed(v), signed(v), -1])),
        row("slice, end", false, |v| i.matrix.slice(0, 1, v)),
        row("slice, start", false, |v| i.matrix.slice(0, v, v)),
        row("slice, axis", false, |v| i.matrix.slice((v / 2) as isize, 0, 1)),
        row("flip", false, |v| i.matrix.flip(&[(v / 2) as isize])),
        row("permute", false, |v| i.matrix.permute(&[v, 0])),
        row("concat", false, |v| Tensor::concat(&[&i.matrix, &i.matrix], (v / 2) as isize)),
        row("sum", false, |v| i.matrix.sum(&[-((v / 2) as isize)], false)),
        row("softmax", false, |v| i.matrix.softmax((v / 2) as isize)),
        row("topk, k", false, |v| i.matrix.topk(v, 0)),
        row("topk, dim", false, |v| i.matrix.topk(1, (v / 2) as isize)),
        row("group_norm, groups", true, |v| i.x.group_norm(v, &i.x, &i.x, 1e-5)),
        row("queue_write, start", false, |v| {
            let queue = i.matrix.copy()?;
            queue.queue_write(&i.matrix.slice(0, 0, 1)?, if v == 0 { 3 } else { v })
        }),
    ]
}

fn augmentations(i: &Inputs) -> Vec<Row<'_>> {
    let draws = || Draws::default();
    vec![
        row("cutout", true, move |v| apply(Cutout { size: v, p: 1.0, draws: draws() }, &[&i.x, &i.indices])),
        row("reflect_crop", false, move |v| i.x.reflect_crop(&i.indices, v, 0.0, draws())),
        row("gaussian_blur", true, move |v| {
            let (sigma, edge) = ([1.0, 2.0], Edge::Zeros);
            apply(GaussianBlur { kernel: v | usize::from(v > 0), sigma, p: 1.0, edge, draws: draws() }, &[&i.x, &i.indices])
        }),
        row("random_resized_crop", true, move |v| {
            let (scale, ratio) = ([0.5, 1.0], RandomResizedCrop::RATIO);
            let crop = RandomResizedCrop { size: [v, 3], scale, ratio, flip: 0.0, interpolation: Default::default(), draws: draws() };
            apply(crop, &[&i.x, &i.indices])
        }),
        row("center_resize", true, |v| i.x.center_resize([3, v], 1.0)),
        row("unpack", true, |v| i.indices.unpack([1, v, v, 3], 4)),
        row("unpack, images", true, |v| i.indices.unpack([v, 2, 2, 1], 1)),
        row("noise", true, move |v| i.indices.normal_noise(v, draws())),
    ]
}

fn makers(gpu: &Gpu) -> Vec<Row<'_>> {
    let params = move || Parameters::new(gpu, 0);
    let conv = move |config: Conv2dOptions| Conv2d::new(&params(), "c", 4, 4, config);
    let config = Conv2dOptions::default;
    vec![
        row("tensor", false, |v| Tensor::empty(gpu, [v], DType::F32)),
        row("tensor of two axes", false, |v| Tensor::empty(gpu, [v, v], DType::F32)),
        row("tensor of nothing", false, |v| Tensor::empty(gpu, [0, v, v], DType::F32)),
        row("tensor of a slice", false, |v| Tensor::from_slice(gpu, &[0.0f32], [v, 3])),
        row("zeros", false, |v| Tensor::zeros(gpu, [2, v, 3], DType::I32)),
        row("normals", false, |v| Stream::new(0, Purpose::Test).normals(gpu, [v, 2])),
        row("Embedding, rows", false, move |v| Embedding::new(&params(), "e", v, 8)),
        row("Embedding, both", false, move |v| Embedding::new(&params(), "e", v, v)),
        row("Linear, inputs", false, move |v| Linear::new(&params(), "l", v, 3)),
        row("Linear, outputs", false, move |v| Linear::new(&params(), "l", 3, v)),
        row("Conv2d, inputs", false, move |v| Conv2d::new(&params(), "c", v, 4, config())),
        row("Conv2d, outputs", false, move |v| Conv2d::new(&params(), "c", 4, v, config())),
        row("Conv2d, kernel", true, move |v| conv(Conv2dOptions { kernel: v, ..config() })),
        row("Conv2d, stride", true, move |v| conv(Conv2dOptions { stride: v, ..config() })),
        row("Conv2d, dilation", true, move |v| conv(Conv2dOptions { dilation: v, ..config() })),
        row("Conv2d, groups", true, move |v| conv(Conv2dOptions { groups: v, ..config() })),
        row("DepthwiseConv2d, channels", false, move |v| DepthwiseConv2d::new(&params(), "d", v, config())),
        row("DepthwiseConv2d, kernel", true, move |v| DepthwiseConv2d::new(&params(), "d", 4, Conv2dOptions { kernel: v, ..config() })),
    ]
}

/// Every call with every number is an error of ours, of few words, and nothing was allocated for
/// it. Overflow checks are on where tests run, so a sum that wraps panics here, and casts are
/// checked by what follows from them.
#[test]
fn hostile_sizes_are_errors() {
    // A budget catches what a driver would give.
    let gpu = Gpu::with(GpuOptions { memory_budget_bytes: Some(64 << 20), ..crate::common::options() }).unwrap();
    let i = inputs(&gpu);
    let rows = [convolutions(&i), windows(&i), layouts(&i), augmentations(&i), makers(&gpu)];
    let held = gpu.memory().held;
    let mut failures = Vec::new();
    for (name, zero, call) in rows.iter().flatten() {
        for v in HOSTILE_SIZES.into_iter().chain(zero.then_some(0)) {
            match call(v) {
                Ok(()) => failures.push(format!("{name} takes {v}")),
                Err(Error::Shape { .. } | Error::Argument { .. } | Error::Limit { .. } | Error::OutOfMemory(_)) => {}
                Err(error) => failures.push(format!("{name} with {v}: {error:?}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} of them:\n{}", failures.len(), failures.join("\n"));
    assert!(gpu.memory().held <= held + (4 << 20), "{} bytes more", gpu.memory().held - held);
    assert_eq!(i.x.sum(&[], false).unwrap().item().unwrap(), 120.0, "the device is well");
}

/// A number that a parameter cannot hold is refused at the launch, not cut off.
#[test]
fn parameters_are_not_cut_off() {
    let gpu = crate::common::gpu();
    let text = "{{ output(0, \"y\") }} {{ params(\"n: u32, m: i32\") }}
        @compute @workgroup_size(1) fn f() { store_y(0u, f32(p.n) + f32(p.m)); }";
    let kernel = Kernel::new("f", text);
    let y = Tensor::empty(&gpu, [1], DType::F32).unwrap();
    let run = |n: usize, m: i64| Launch::new(&gpu, &kernel, "f").write(&y).params(params![n, m]).groups(1);
    run(7, -3).unwrap();
    assert_eq!(y.item().unwrap(), 4.0);
    for (n, m, number) in [(1 << 32, 0, "4294967296"), (usize::MAX, 0, "18446744073709551615"), (0, 1 << 31, "2147483648")] {
        let error = run(n, m).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }) && error.to_string().contains(number), "{error}");
    }
}

/// A stride beyond the image is one window, and so is its gradient: phases without pixels are not
/// walked.
#[test]
fn strides_beyond_the_image_are_one_window() {
    for (schedule, gpu) in crate::common::gpus() {
        let x = Tensor::full(&gpu, [1, 5, 6, 4], 1.0, DType::F32).unwrap().watch();
        let weight = Tensor::full(&gpu, [4, 3, 3, 4], 1.0, DType::F32).unwrap();
        let options = Conv2dFuncOptions { stride: [1 << 29, 1 << 20], ..Default::default() };
        let y = x.conv2d(&weight, None, &options).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), [36.0; 4], "{schedule}");
        let dx = y.backward_from(&y.detach()).unwrap().get(&x).unwrap().to_vec::<f32>().unwrap();
        let expected: Vec<f32> = (0..120).map(|i| if i / 24 < 3 && i / 4 % 6 < 3 { 144.0 } else { 0.0 }).collect();
        assert_eq!(dx, expected, "{schedule}");
    }
}

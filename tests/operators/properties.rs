//! Random shapes and attributes of the main operators against their float64 references, forward and
//! gradients, on both schedules. The seeds are fixed, so every run tries the same; more cases by
//! `WGRAD_CASES` (a factor).
//!
//! And sizes that small samples do not reach: more workgroups than fit along one axis of a grid,
//! and tensors above 128 MiB.

use std::sync::{Arc, LazyLock};

use crate::common::gpus;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use wgrad::gpu::{Gpu, Schedule};
use wgrad::ops::attributes::Value;
use wgrad::ops::gradcheck::gradcheck_sample;
use wgrad::ops::registry::find;
use wgrad::ops::sample::{Input, Sample, distinct, indices, normal, normal_with, uniform};
use wgrad::ops::{Attributes, Operator, apply_shared};
use wgrad::tensor::{Shape, Tensor};

/// One device a schedule for all tests here: pipelines are compiled once.
static GPUS: LazyLock<Vec<(Schedule, Gpu)>> = LazyLock::new(gpus);

/// Around the sizes of vectors, subgroups and tiles.
const SIZES: [usize; 12] = [1, 3, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65];

/// Any of [`SIZES`], at most `most`.
fn size(most: usize) -> impl Strategy<Value = usize> {
    select(SIZES.into_iter().filter(|s| *s <= most).collect::<Vec<_>>())
}

/// As [`size`], or sometimes 0.
fn maybe_empty(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0usize), 9 => size(most)]
}

/// A shape of `ranks` axes and at most `most` elements, perhaps empty.
fn shape(ranks: std::ops::RangeInclusive<usize>, most: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(maybe_empty(65), ranks).prop_map(move |mut shape| {
        while shape.iter().product::<usize>() > most {
            if let Some(largest) = shape.iter_mut().max() {
                *largest = (*largest / 2).max(1);
            }
        }
        shape
    })
}

fn list(name: &str, values: impl IntoIterator<Item = usize>) -> (String, Value) {
    (name.into(), Value::List(values.into_iter().map(|v| v as f64).collect()))
}

fn number(name: &str, value: f64) -> (String, Value) {
    (name.into(), Value::Number(value))
}

fn text(name: &str, value: &str) -> (String, Value) {
    (name.into(), Value::Text(value.into()))
}

fn build(name: &str, attributes: impl IntoIterator<Item = (String, Value)>) -> Box<dyn Operator> {
    let mut all = Attributes::new();
    attributes.into_iter().for_each(|(name, value)| all.insert(name, value));
    (find(name).unwrap().build)(&all).unwrap()
}

/// Forward and gradients on both schedules.
fn check(name: &str, attributes: &[(String, Value)], inputs: &[Input]) -> Result<(), TestCaseError> {
    for (schedule, gpu) in GPUS.iter() {
        let sample = Sample { operator: build(name, attributes.to_vec()), inputs: inputs.to_vec() };
        let seed = inputs.len() as u32 + 1;
        if let Err(error) = gradcheck_sample(gpu, sample, seed) {
            return Err(TestCaseError::fail(format!("{name} on {schedule}: {error}")));
        }
    }
    Ok(())
}

fn refused(name: &str, attributes: &[(String, Value)], inputs: &[Input], words: &str) -> Result<(), TestCaseError> {
    for (_, gpu) in GPUS.iter() {
        let sample = Sample { operator: build(name, attributes.to_vec()), inputs: inputs.to_vec() };
        let tensors: Vec<Tensor> = sample.arrays(1).iter().map(|a| a.upload(gpu).unwrap()).collect();
        let operator: Arc<dyn Operator> = Arc::from(sample.operator);
        let message = apply_shared(operator, &tensors.iter().collect::<Vec<_>>()).map(drop).unwrap_err().to_string();
        prop_assert!(message.contains(words), "{name}: \"{message}\" lacks \"{words}\"");
    }
    Ok(())
}

/// Tries `cases` values of `strategy`, always the same ones.
fn property<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let factor = std::env::var("WGRAD_CASES").map_or(1, |v| v.parse().unwrap());
    let config = Config {
        cases: cases * factor,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_260_701),
        max_shrink_iters: 64,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

/// How an axis of a result comes about: from both sides, or stretched from one.
fn broadcast() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    (shape(0..=4, 4000), prop::collection::vec(0..4usize, 4), 0..3usize, 0..2usize).prop_map(|(shape, modes, missing, side)| {
        let stretched = |which: usize| -> Vec<usize> { shape.iter().zip(&modes).map(|(s, m)| if *m == which { 1 } else { *s }).collect() };
        let (a, b) = (stretched(1), stretched(2));
        let short = b[missing.min(b.len())..].to_vec();
        // A missing axis must be one that the other side alone decides: any is.
        if side == 0 { (a, short) } else { (short, a) }
    })
}

#[test]
fn binary_operators_broadcast() {
    let names = select(vec!["add", "sub", "mul", "div", "maximum", "minimum"]);
    property(16, (names, broadcast()), |(name, (a, b))| {
        let right = if name == "div" { uniform(b, 0.5, 2.0) } else { normal(b) };
        check(name, &[], &[normal(a), right])
    });
}

#[test]
fn reductions_over_any_axes() {
    let names = select(vec!["sum", "mean", "max"]);
    property(16, (names, shape(1..=4, 3000), prop::collection::vec(any::<bool>(), 4), any::<bool>()), |(name, shape, mask, keep)| {
        let dims: Vec<usize> = (0..shape.len()).filter(|i| mask[*i]).collect();
        let reduced: usize = (0..shape.len()).filter(|i| dims.is_empty() || dims.contains(i)).map(|i| shape[i]).product();
        let attributes = [list("dims", dims), number("keepdim", f64::from(u8::from(keep)))];
        if name == "max" && reduced == 0 {
            return refused(name, &attributes, &[normal(shape)], "nothing to reduce");
        }
        check(name, &attributes, &[distinct(shape)])
    });
}

#[test]
fn matrix_products() {
    let forms = select(vec!["matmul", "matmul_nt", "matmul_tn"]);
    let sizes = (maybe_empty(65), maybe_empty(65), maybe_empty(65)).prop_filter("small enough", |(m, k, n)| m * k * n <= 40_000);
    let batches = select(vec![(vec![], vec![]), (vec![2], vec![2]), (vec![3], vec![]), (vec![2, 1], vec![3]), (vec![], vec![2])]);
    property(14, (forms, sizes, batches), |(name, (m, k, n), (left, right))| {
        let (left, right) = if m * k * n > 8000 { (vec![], vec![]) } else { (left, right) };
        let (a, b) = match name {
            "matmul" => ([m, k], [k, n]),
            "matmul_nt" => ([m, k], [n, k]),
            _ => ([k, m], [k, n]),
        };
        check(name, &[], &[normal([left.as_slice(), &a].concat()), normal([right.as_slice(), &b].concat())])
    });
}

#[test]
fn linear_layers() {
    let sizes =
        (shape(0..=2, 65), size(65), size(65)).prop_filter("small enough", |(rows, i, o)| rows.iter().product::<usize>() * i * o <= 40_000);
    property(8, (sizes, any::<bool>()), |((rows, inputs, outputs), bias)| {
        let mut all = vec![normal([rows.as_slice(), &[inputs]].concat()), normal([outputs, inputs])];
        all.extend(bias.then(|| normal([outputs])));
        check("linear", &[], &all)
    });
}

/// Everything that a convolution can be told, along both axes.
#[derive(Debug, Clone)]
struct Convolution {
    images: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: [usize; 4],
    bias: bool,
}

fn convolution() -> impl Strategy<Value = Convolution> {
    let pair = |low: usize, high: usize| [low..=high, low..=high];
    let image = (select(vec![0usize, 1, 1, 1, 2]), pair(1, 9), pair(1, 4));
    let window = (pair(1, 3), pair(1, 2), [0..=2usize, 0..=2, 0..=2, 0..=2], any::<bool>());
    (image, window).prop_map(|((images, size, kernel), (stride, dilation, padding, bias))| {
        let mut size = size;
        // The kernel must fit into the padded image.
        for axis in 0..2 {
            let span = (kernel[axis] - 1) * dilation[axis] + 1;
            size[axis] = size[axis].max(span.saturating_sub(padding[2 * axis] + padding[2 * axis + 1])).max(1);
        }
        Convolution { images, size, kernel, stride, dilation, padding, bias }
    })
}

impl Convolution {
    fn attributes(&self) -> Vec<(String, Value)> {
        vec![list("stride", self.stride), list("padding", self.padding), list("dilation", self.dilation)]
    }
}

#[test]
fn convolutions() {
    let channels = (select(vec![1usize, 1, 1, 2, 3, 4]), select(vec![1usize, 3, 4, 5, 8]), select(vec![1usize, 3, 4, 5, 8]));
    property(14, (convolution(), channels), |(c, (groups, inner, outer))| {
        let ([h, w], [kh, kw]) = (c.size, c.kernel);
        let (inner, outer) = if groups > 1 { (inner.min(4), outer.min(4)) } else { (inner, outer) };
        let mut inputs = vec![normal([c.images, h, w, groups * inner]), normal_with([groups * outer, kh, kw, inner], 0.3, 0.0)];
        inputs.extend(c.bias.then(|| normal([groups * outer])));
        let mut attributes = c.attributes();
        attributes.push(number("groups", groups as f64));
        check("conv2d", &attributes, &inputs)
    });
}

#[test]
fn depthwise_convolutions() {
    property(14, (convolution(), size(33), select(vec![1usize, 1, 1, 2, 4])), |(c, channels, multiplier)| {
        let ([h, w], [kh, kw]) = (c.size, c.kernel);
        let mut inputs = vec![normal([c.images, h, w, channels]), normal_with([kh, kw, channels * multiplier], 0.3, 0.0)];
        inputs.extend(c.bias.then(|| normal([channels * multiplier])));
        check("depthwise_conv2d", &c.attributes(), &inputs)
    });
}

#[test]
fn pooling() {
    let window = (1..=4usize, 1..=4usize, 1..=3usize, 1..=3usize, any::<bool>());
    let image = (select(vec![0usize, 1, 2]), 4..=9usize, 4..=9usize, size(9));
    property(12, (select(vec!["max_pool2d", "avg_pool2d", "global_avg_pool2d"]), window, image), |(name, window, (n, h, w, c))| {
        let (kh, kw, sy, sx, pad) = window;
        let padding = if pad { [kh / 2, kw / 2] } else { [0, 0] };
        let attributes = [list("kernel", [kh, kw]), list("stride", [sy, sx]), list("padding", padding)];
        let attributes = if name == "global_avg_pool2d" { &[][..] } else { &attributes[..] };
        check(name, attributes, &[distinct([n, h, w, c])])
    });
}

#[test]
fn batch_norms() {
    let names = select(vec!["batch_norm_train", "batch_norm_eval"]);
    let activations = select(vec!["none", "relu", "silu", "hardswish"]);
    // Five rows or more: with two the deviation may be next to 0, and its inverse amplifies
    // rounding.
    let shapes = (size(33).prop_map(|n| n.max(5)), prop::collection::vec(size(9), 0..=2), size(65))
        .prop_map(|(n, lead, c)| [&[n], lead.as_slice(), &[c]].concat())
        .prop_filter("small enough", |shape| shape.iter().product::<usize>() <= 4000);
    property(12, (names, activations, shapes, any::<bool>()), |(name, activation, shape, residual)| {
        let c = *shape.last().unwrap();
        let mut inputs = vec![normal_with(&shape[..], 2.0, 1.0), uniform([c], 0.5, 1.5), normal([c]), normal([c]), uniform([c], 0.5, 1.5)];
        inputs.extend(residual.then(|| normal(&shape[..])));
        check(name, &[text("activation", activation)], &inputs)
    });
}

#[test]
fn layer_norms() {
    property(8, (shape(0..=2, 40), prop_oneof![size(65).prop_map(|s| s + 2), Just(130), Just(260)]), |(lead, features)| {
        check(
            "layer_norm",
            &[],
            &[normal_with([lead.as_slice(), &[features]].concat(), 2.0, 1.0), uniform([features], 0.5, 1.5), normal([features])],
        )
    });
}

#[test]
fn softmaxes() {
    let names = select(vec!["softmax", "log_softmax"]);
    property(12, (names, shape(1..=3, 4000), 0..3usize, select(vec![0.1, 1.0, 4.0])), |(name, shape, dim, temperature)| {
        let dim = dim.min(shape.len() - 1) as f64;
        check(name, &[number("dim", dim), number("temperature", temperature)], &[normal_with(shape, 3.0, 0.0)])
    });
}

#[test]
fn cross_entropies() {
    let names = select(vec!["cross_entropy", "cross_entropy_ignore"]);
    property(10, (names, maybe_empty(65), prop_oneof![size(65), Just(130)], select(vec![0.0, 0.1])), |(name, n, classes, smoothing)| {
        let attributes = [number("label_smoothing", smoothing), number("ignore_index", 0.0)];
        check(
            name,
            &attributes[..if name == "cross_entropy" { 1 } else { 2 }],
            &[normal_with([n, classes], 3.0, 0.0), indices([n], classes)],
        )
    });
}

#[test]
fn nt_xents() {
    let sizes = (size(33), size(65)).prop_filter("small enough", |(n, d)| n * n * d <= 20_000);
    property(8, (sizes, select(vec![0.1, 0.5, 1.0])), |((n, d), temperature)| {
        check("nt_xent", &[number("temperature", temperature)], &[normal([n, d + 1]), normal([n, d + 1])])
    });
}

#[test]
fn layouts() {
    let orders = Just((0..4usize).collect::<Vec<_>>()).prop_shuffle();
    property(8, (shape(1..=4, 3000), orders), |(shape, order)| {
        let dims: Vec<usize> = order.into_iter().filter(|d| *d < shape.len()).collect();
        check("permute", &[list("dims", dims)], &[normal(shape)])
    });
    let axis = |shape: &[usize], dim: usize| dim % shape.len();
    property(8, (shape(1..=3, 3000), 0..3usize, 0..=65usize, 0..=65usize), |(shape, dim, from, to)| {
        let dim = axis(&shape, dim);
        let (a, b) = (from % (shape[dim] + 1), to % (shape[dim] + 1));
        check("slice", &[number("dim", dim as f64), number("start", a.min(b) as f64), number("end", a.max(b) as f64)], &[normal(shape)])
    });
    property(8, (shape(1..=3, 1000), prop::collection::vec(0..=3usize, 6), select(vec![0.0, -1.5])), |(shape, pad, value)| {
        let pad = pad[..2 * shape.len()].to_vec();
        check("pad", &[list("pad", pad), number("value", value)], &[normal(shape)])
    });
    property(8, (shape(1..=3, 600), 0..3usize, prop::collection::vec(maybe_empty(9), 1..=4)), |(shape, dim, sizes)| {
        let dim = axis(&shape, dim);
        let inputs: Vec<Input> = sizes.iter().map(|s| normal(Shape::from(shape.as_slice()).with(dim, *s))).collect();
        check("concat", &[number("dim", dim as f64)], &inputs)
    });
    let shapes = prop::collection::vec(size(33), 1..=3).prop_filter("small enough", |shape| shape.iter().product::<usize>() <= 2000);
    property(8, (shapes, 0..3usize, maybe_empty(33)), |(shape, dim, taken)| {
        let dim = axis(&shape, dim);
        let index = Shape::from(shape.as_slice()).with(dim, taken);
        check("gather", &[number("dim", dim as f64)], &[normal(&shape[..]), indices(index, shape[dim])])
    });
}

/// Whether every value is within f32 rounding of the expected one.
fn close(found: &[f32], expected: impl Iterator<Item = f64>) {
    let mut count = 0;
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() <= 1e-5 * expected.abs().max(1.0), "element {i} is {found}, expected {expected}");
        count += 1;
    }
    assert_eq!(count, found.len());
}

/// Grids have at most 65,535 workgroups along an axis on every adapter today, and kernels have 64
/// to 256 invocations each: these sizes need more of them, whether a row is taken by an invocation
/// (4.3 million rows) or by a workgroup (70,001 rows).
#[test]
fn more_workgroups_than_one_axis_of_a_grid_holds() {
    for (schedule, gpu) in GPUS.iter() {
        assert!(gpu.capabilities().max_grid <= 65_535, "{schedule}: this adapter's grids are larger; the sizes below must grow");
        for [rows, columns] in [[4_300_001, 2], [70_001, 65]] {
            let data: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 4099) as f32 / 1024.0 - 2.0).collect();
            let row = |r: usize| data[r * columns..(r + 1) * columns].iter().map(|v| f64::from(*v));
            let x = Tensor::from_slice(gpu, &data, [rows, columns]).unwrap().watch();
            let sums = x.sum(&[1], false).unwrap();
            close(&sums.to_vec().unwrap(), (0..rows).map(|r| row(r).sum()));
            // Broadcasting along rows of an odd size: an invocation an element.
            let shifted = x.sub(&sums.reshape(&[rows as isize, 1]).unwrap()).unwrap();
            close(&shifted.to_vec().unwrap(), (0..rows).flat_map(|r| row(r).map(move |v| (v, r))).map(|(v, r)| v - row(r).sum::<f64>()));
            let y = x.softmax(-1).unwrap();
            let denominators: Vec<f64> = (0..rows).map(|r| row(r).map(f64::exp).sum()).collect();
            close(&y.to_vec().unwrap(), (0..rows).flat_map(|r| row(r).map(move |v| (v, r))).map(|(v, r)| v.exp() / denominators[r]));
            // Backward: the rows of a softmax sum to 1, so the gradient of their sum is 0; of the
            // plain sum it is 1.
            let gradients = y.sum(&[], false).unwrap().backward_retain_graph().unwrap();
            close(&gradients.get(&x).unwrap().to_vec().unwrap(), (0..rows * columns).map(|_| 0.0));
            let gradients = sums.sum(&[], false).unwrap().backward().unwrap();
            close(&gradients.get(&x).unwrap().to_vec().unwrap(), (0..rows * columns).map(|_| 1.0));
        }
    }
}

/// A tensor just above 128 MiB, the largest binding of WebGPU's default limits and of llvmpipe:
/// computed with in pieces there.
#[test]
fn tensors_above_128_mib() {
    let (_, gpu) = &GPUS[0];
    let (rows, columns) = (8209, 4099);
    assert!(rows * columns * 4 > 128 << 20);
    let vector = |n: usize, scale: f32| -> Vec<f32> { (0..n).map(|i| (i % 61) as f32 * scale).collect() };
    let (a, b) = (vector(rows, 1.0), vector(columns, -0.5));
    let column = Tensor::from_slice(gpu, &a, [rows, 1]).unwrap();
    let row = Tensor::from_slice(gpu, &b, [columns]).unwrap();
    let whole = column.add(&row).unwrap().relu().unwrap();
    let expected = |r: usize, c: usize| f64::from((a[r] + b[c]).max(0.0));
    for r in [0, 1, 4111, rows - 1] {
        let line = whole.slice(0, r, r + 1).unwrap();
        close(&line.to_vec().unwrap(), (0..columns).map(|c| expected(r, c)));
    }
    close(&whole.sum(&[1], false).unwrap().to_vec().unwrap(), (0..rows).map(|r| (0..columns).map(|c| expected(r, c)).sum()));
}

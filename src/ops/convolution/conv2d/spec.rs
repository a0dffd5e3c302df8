//! What a convolution must give: the float64 reference, samples, bad inputs, and what it costs.

use super::super::geometry::{Padding, split};
use super::{Conv2d, Conv2dFuncOptions, NAME};
use crate::error::Result;
use crate::ops::normalization::batch_norm::statistics;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Cost, Operator};
use crate::tensor::{DType, Spec};

/// Plain loops in float64.
pub(super) fn reference(conv: &Conv2d, inputs: &[Array]) -> Result<Vec<Array>> {
    let (x, weight, bias) = split(NAME, inputs)?;
    let specs: Vec<Spec> = inputs.iter().map(|a| Spec::new(a.shape.clone(), a.dtype)).collect();
    let shape = conv.infer(&specs)?.into_iter().next().map(|s| s.shape).unwrap_or_default();
    let g = conv.geometry(&Spec::f32(x.shape.clone()), &Spec::f32(weight.shape.clone()))?;
    let ([h, w], [kh, kw], [sy, sx], [dy, dx], [top, left]) = (g.input, g.kernel, g.stride, g.dilation, g.before);
    let inner = g.channels / g.groups;
    let y = Array::from_fn(shape, |at| {
        let [n, i, j, k] = *at else { return f64::NAN };
        let group = k / (g.filters / g.groups);
        let mut sum = bias.map_or(0.0, |b| b.flat(k));
        for r in 0..kh {
            for s in 0..kw {
                let (row, column) = (i * sy + r * dy, j * sx + s * dx);
                if row < top || column < left || row - top >= h || column - left >= w {
                    continue;
                }
                for c in 0..inner {
                    sum += x.at(&[n, row - top, column - left, group * inner + c]) * weight.at(&[k, r, s, c]);
                }
            }
        }
        sum
    });
    // Of the map as it is stored: that is what a batch norm reads.
    let stored = |y: &Array| if x.dtype == DType::F16 { y.map(|v| half::f16::from_f64(v).to_f64()) } else { y.clone() };
    let partials = conv.statistics.then(|| statistics::reference(&stored(&y)));
    Ok([y].into_iter().chain(partials).collect())
}

/// Two operations a multiply-add; every tensor once.
pub(super) fn cost(conv: &Conv2d, inputs: &[Spec], outputs: &[Spec]) -> Cost {
    let flops = match inputs {
        [x, weight, ..] => conv.geometry(x, weight).map_or(0.0, |g| g.flops()),
        _ => 0.0,
    };
    Cost { flops, ..Cost::streaming(inputs, outputs, 0.0) }
}

/// What it is tested on.
pub(super) fn samples() -> Vec<Sample> {
    let sample = |x: [usize; 4], weight: [usize; 4], bias: bool, options: Conv2dFuncOptions| {
        let mut inputs: Vec<Input> = vec![normal(x), normal_with(weight, 0.3, 0.0)];
        if bias {
            inputs.push(normal([weight[0]]));
        }
        Sample::new(Conv2d::new(options), inputs)
    };
    let with =
        |stride: [usize; 2], padding: Padding, dilation: [usize; 2], groups: usize| Conv2dFuncOptions { stride, padding, dilation, groups };
    let plain = Conv2dFuncOptions::default();
    let same = with([1, 1], 1.into(), [1, 1], 1);
    let measured = |x: [usize; 4], weight: [usize; 4], options: Conv2dFuncOptions| {
        Sample::new(Conv2d::new(options).with_statistics(), [normal(x), normal_with(weight, 0.3, 0.0)])
    };
    vec![
        measured([0, 5, 5, 3], [4, 3, 3, 3], same),
        measured([2, 7, 9, 4], [68, 3, 3, 4], same),
        measured([1, 9, 15, 3], [5, 3, 3, 3], same),
        measured([1, 17, 9, 4], [40, 3, 3, 2], with([2, 1], 1.into(), [1, 1], 2)),
        measured([2, 8, 8, 12], [20, 1, 1, 12], plain),
        measured([1, 13, 5, 6], [67, 1, 1, 6], plain),
        Sample::new(
            Conv2d::new(plain).with_statistics(),
            [normal([1, 8, 9, 5]), normal_with([7, 1, 1, 5], 0.3, 0.0), normal_with([7], 1.0, 50.0)],
        ),
        Sample::new(
            Conv2d::new(same).with_statistics(),
            [normal([1, 8, 9, 4]), normal_with([8, 3, 3, 4], 0.3, 0.0), normal_with([8], 1.0, 50.0)],
        ),
        sample([0, 5, 5, 3], [4, 3, 3, 3], true, same),
        sample([1, 1, 1, 1], [1, 1, 1, 1], false, plain),
        sample([2, 5, 7, 3], [5, 3, 3, 3], true, same),
        sample([1, 7, 5, 1], [33, 3, 1, 1], true, same),
        sample([1, 5, 3, 4], [12, 3, 3, 4], false, same),
        sample([1, 3, 5, 12], [36, 3, 3, 12], true, same),
        sample([1, 5, 13, 33], [65, 1, 1, 33], true, plain),
        sample([1, 1, 9, 65], [3, 1, 1, 65], false, plain),
        sample([1, 9, 8, 8], [20, 3, 3, 8], true, with([2, 2], Padding::Same, [1, 1], 1)),
        sample([1, 9, 8, 8], [4, 3, 5, 8], true, with([3, 2], [1, 0, 2, 1].into(), [1, 1], 1)),
        sample([1, 11, 9, 4], [8, 3, 3, 4], false, with([2, 3], 3.into(), [2, 3], 1)),
        sample([1, 12, 7, 3], [8, 4, 2, 3], true, with([2, 4], 2.into(), [2, 1], 1)),
        sample([1, 7, 6, 16], [32, 3, 3, 16], true, with([2, 1], 1.into(), [1, 2], 1)),
        sample([1, 5, 6, 32], [48, 3, 2, 16], false, with([1, 1], 1.into(), [1, 1], 2)),
        sample([2, 6, 5, 12], [8, 3, 3, 3], true, with([1, 2], 1.into(), [1, 1], 4)),
        sample([2, 5, 4, 8], [40, 3, 3, 4], true, with([1, 1], 1.into(), [1, 1], 2)),
        sample([1, 4, 4, 6], [6, 2, 2, 1], false, with([2, 2], 0.into(), [1, 1], 6)),
    ]
}

/// What it must refuse.
pub(super) fn bad() -> Vec<Bad> {
    let plain = || Conv2d::new(Conv2dFuncOptions::default());
    vec![
        Bad::new(plain(), [normal([1, 4, 4, 3])], "it takes x, weight and perhaps bias, 1 inputs were given"),
        Bad::new(plain(), [normal([4, 4, 3]), normal([2, 3, 3, 3])], "x must be images [N, H, W, C]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([2, 3, 3])], "a weight has the shape [K, kh, kw, C / groups]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([2, 3, 3, 4])], "C groups times the weight's last size"),
        Bad::new(
            Conv2d::new(Conv2dFuncOptions { groups: 2, ..Default::default() }),
            [normal([1, 4, 4, 4]), normal([3, 3, 3, 2])],
            "K must be a multiple of the groups",
        ),
        Bad::new(plain(), [normal([1, 2, 4, 3]), normal([2, 3, 3, 3])], "a kernel that spans 3 pixels does not fit into 2 pixels"),
        Bad::new(
            Conv2d::new(Conv2dFuncOptions { stride: [1, 0], ..Default::default() }),
            [normal([1, 4, 4, 3]), normal([2, 3, 3, 3])],
            "must be at least 1",
        ),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([2, 3, 3, 3]), normal([3])], "expected [2]: one element an output channel"),
        Bad::new(plain(), [indices([1, 4, 4, 3], 2), normal([2, 3, 3, 3])], "x must hold floats"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), indices([2, 3, 3, 3], 2)], "weight must be f32"),
    ]
}

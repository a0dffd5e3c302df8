//! What a depthwise convolution must give: the float64 reference, samples, bad inputs, and what it
//! costs.

use super::super::geometry::{Padding, split};
use super::{DepthwiseConv2d, DepthwiseConv2dFuncOptions, NAME};
use crate::error::Result;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Cost};
use crate::tensor::Spec;

/// Plain loops in float64.
pub(super) fn reference(conv: &DepthwiseConv2d, inputs: &[Array]) -> Result<Vec<Array>> {
    let (x, weight, bias) = split(NAME, inputs)?;
    let g = conv.geometry(&Spec::f32(x.shape.clone()), &Spec::f32(weight.shape.clone()))?;
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

/// Two operations a multiply-add; every tensor once.
pub(super) fn cost(conv: &DepthwiseConv2d, inputs: &[Spec], outputs: &[Spec]) -> Cost {
    let flops = match inputs {
        [x, weight, ..] => conv.geometry(x, weight).map_or(0.0, |g| g.flops()),
        _ => 0.0,
    };
    Cost { flops, ..Cost::streaming(inputs, outputs, 0.0) }
}

/// What it is tested on.
pub(super) fn samples() -> Vec<Sample> {
    let sample = |x: [usize; 4], weight: [usize; 3], bias: bool, options: DepthwiseConv2dFuncOptions| {
        let mut inputs: Vec<Input> = vec![normal(x), normal_with(weight, 0.3, 0.0)];
        if bias {
            inputs.push(normal([weight[2]]));
        }
        Sample::new(DepthwiseConv2d::new(options), inputs)
    };
    let with = |stride: [usize; 2], padding: Padding, dilation: [usize; 2]| DepthwiseConv2dFuncOptions { stride, padding, dilation };
    let same = with([1, 1], Padding::Same, [1, 1]);
    let two = with([2, 2], Padding::Same, [1, 1]);
    vec![
        sample([0, 5, 5, 4], [3, 3, 4], true, same),
        sample([1, 1, 1, 1], [1, 1, 1], false, DepthwiseConv2dFuncOptions::default()),
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

/// What it must refuse.
pub(super) fn bad() -> Vec<Bad> {
    let plain = || DepthwiseConv2d::new(DepthwiseConv2dFuncOptions::default());
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

//! What group norm must give: the float64 reference that layer norm shares, samples, bad inputs,
//! and what it costs.

use super::{GroupNorm, Groups};
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with, uniform};
use crate::ops::{Array, Cost, Tolerance};
use crate::tensor::{Shape, Spec};

impl Groups {
    /// y, means and inverse deviations by plain loops.
    pub fn reference(&self, x: &Array, weight: &Array, bias: &Array, statistics: &Shape) -> Vec<Array> {
        let (c, eps) = (self.groups * self.channels, f64::from(self.eps));
        let mut y = Array::zeros(&x.shape);
        let (mut means, mut inverses) = (Array::zeros(statistics), Array::zeros(statistics));
        for image in 0..self.images {
            for group in 0..self.groups {
                let places: Vec<(usize, usize)> = (0..self.pixels)
                    .flat_map(|pixel| (group * self.channels..(group + 1) * self.channels).map(move |channel| (pixel, channel)))
                    .map(|(pixel, channel)| ((image * self.pixels + pixel) * c + channel, channel))
                    .collect();
                let count = places.len() as f64;
                let mean = places.iter().map(|(at, _)| x.flat(*at)).sum::<f64>() / count;
                let variance = places.iter().map(|(at, _)| (x.flat(*at) - mean).powi(2)).sum::<f64>() / count;
                let inverse = 1.0 / (variance + eps).sqrt();
                for (at, channel) in places {
                    y.set(at, (x.flat(at) - mean) * inverse * weight.flat(channel) + bias.flat(channel));
                }
                means.set(image * self.groups + group, mean);
                inverses.set(image * self.groups + group, inverse);
            }
        }
        vec![y, means, inverses]
    }
}

/// What both tolerate.
pub(crate) const TOLERANCE: Tolerance =
    Tolerance { absolute: 1e-5, relative: 1e-4, reason: "sums of a whole group in f32, in one thread on the software schedule" };

/// Reads x twice more than the streaming cost says, from a cache.
pub(crate) fn norm_cost(inputs: &[Spec], outputs: &[Spec]) -> Cost {
    Cost { flops: 8.0 * outputs.first().map_or(0, |s| s.shape.numel()) as f64, ..Cost::streaming(inputs, outputs, 0.0) }
}

fn group_norm(groups: usize) -> GroupNorm {
    GroupNorm { groups, eps: 1e-5 }
}

/// What it is tested on.
pub(super) fn samples() -> Vec<Sample> {
    let sample = |groups: usize, shape: &[usize]| {
        let c = shape.last().copied().unwrap_or(1);
        Sample::new(group_norm(groups), [normal_with(shape, 2.0, 1.5), uniform([c], 0.5, 1.5), normal([c])])
    };
    vec![
        sample(3, &[2, 4, 4, 6]),
        sample(8, &[1, 3, 5, 8]),
        sample(2, &[3, 5, 7, 8]),
        sample(1, &[2, 3, 3, 5]),
        sample(4, &[2, 9, 33, 16]),
        sample(5, &[1, 1, 65, 5]),
        sample(2, &[7, 6]),
        sample(1, &[1, 3, 1, 65]),
        sample(2, &[0, 3, 3, 4]),
        Sample::new(group_norm(2), [normal_with([2, 3, 3, 8], 0.5, 50.0), uniform([8], 0.5, 1.5), normal([8])]),
    ]
}

/// What it must refuse.
pub(super) fn bad() -> Vec<Bad> {
    let with = |groups: usize, x: &[usize], w: usize, b: usize| (group_norm(groups), [normal(x), normal([w]), normal([b])]);
    let bad = |(operator, inputs): (GroupNorm, [Input; 3]), expect: &'static str| Bad::new(operator, inputs, expect);
    vec![
        bad(with(1, &[3], 3, 3), "x must be [N, .., C]"),
        bad(with(4, &[1, 2, 2, 6], 6, 6), "do not form 4 groups"),
        bad(with(0, &[1, 2, 2, 6], 6, 6), "do not form 0 groups"),
        bad(with(2, &[1, 2, 2, 6], 4, 6), "weight must be [6]"),
        bad(with(2, &[1, 2, 2, 6], 6, 1), "bias must be [6]"),
        Bad::new(
            GroupNorm { groups: 1, eps: -1.0 },
            [normal([2, 3]), normal([3]), normal([3])],
            "eps must be finite and at least 0, found -1",
        ),
        Bad::new(group_norm(1), [indices([2, 3], 4), normal([3]), normal([3])], "x must hold floats"),
        Bad::new(group_norm(1), [normal([2, 3]), indices([3], 4), normal([3])], "weight must be f32"),
    ]
}

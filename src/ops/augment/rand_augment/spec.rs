//! What RandAugment must give: the float64 reference, samples and bad inputs.

use super::super::{Draws, bad_drawn, below, sample_draws, sample_inputs, samples_of};
use super::{RandAugment, Sampling};
use crate::error::Result;
use crate::ops::array::{maximum, minimum};
use crate::ops::sample::{Bad, Input, Sample, indices};
use crate::ops::{Array, Operator, exactly};

/// What was drawn, and what it does to each image, in float64.
pub(super) fn reference(augment: &RandAugment, inputs: &[Array]) -> Result<Vec<Array>> {
    let [images, indices] = exactly(augment.name(), inputs)?;
    let [_, h, w, c] = [0, 1, 2, 3].map(|axis| images.shape.dim(axis));
    let draws = augment.draws.reference(indices, 4 * augment.num_ops, |bits| {
        let magnitudes = augment.magnitudes([h, w]);
        (0..augment.num_ops).flat_map(|number| record(&magnitudes, bits(number as u32))).collect()
    });
    let mut y = images.clone();
    for (pixels, records) in y.data.chunks_mut(h * w * c).zip(draws.rows()) {
        let mut image = Image { pixels: pixels.to_vec(), height: h, width: w, channels: c };
        for record in records.chunks(4) {
            image = image.after(record, augment.sampling);
        }
        pixels.copy_from_slice(&image.pixels);
    }
    Ok(vec![y, draws])
}

/// What is drawn of the random numbers of one operation.
fn record(m: &super::Magnitudes, [which, sign]: [u32; 2]) -> [f64; 4] {
    let (operation, sign) = (below(which, 14), if sign >> 31 == 1 { -1.0 } else { 1.0 });
    let magnitude = match operation {
        1 | 2 => sign * m.shear,
        3 => sign * m.across,
        4 => sign * m.down,
        5 => sign * m.degrees,
        6..=9 => sign * m.change,
        10 => m.bits,
        11 => m.threshold,
        _ => 0.0,
    };
    let angle = if operation == 5 { f64::from(magnitude).to_radians() } else { 0.0 };
    [operation as f64, magnitude.into(), angle.cos(), angle.sin()]
}

struct Image {
    pixels: Vec<f64>,
    height: usize,
    width: usize,
    channels: usize,
}

impl Image {
    /// Black outside.
    fn at(&self, x: i64, y: i64, c: usize) -> f64 {
        let inside = (0..self.width as i64).contains(&x) && (0..self.height as i64).contains(&y);
        let place = (y * self.width as i64 + x) * self.channels as i64 + c as i64;
        if inside { self.pixels.get(place as usize).copied().unwrap_or(f64::NAN) } else { 0.0 }
    }

    /// The same with pixel (x, y), channel c become `f(x, y, c)`.
    fn mapped(&self, f: impl Fn(i64, i64, usize) -> f64) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..self.height as i64 {
            for x in 0..self.width as i64 {
                pixels.extend((0..self.channels).map(|c| f(x, y, c)));
            }
        }
        Self { pixels, ..*self }
    }

    /// The same with its colours become `f(x, y, c, value)`.
    fn coloured(&self, f: impl Fn(i64, i64, usize, f64) -> f64) -> Self {
        self.mapped(|x, y, c| if c < 3 { f(x, y, c, self.at(x, y, c)) } else { self.at(x, y, c) })
    }

    fn sampled(&self, x: f64, y: f64, c: usize, sampling: Sampling) -> f64 {
        if sampling == Sampling::Nearest {
            return self.at(x.round_ties_even() as i64, y.round_ties_even() as i64, c);
        }
        let (left, top) = (x.floor(), y.floor());
        let (s, t) = (x - left, y - top);
        let corner = |dx: f64, dy: f64, weight: f64| {
            if weight == 0.0 { 0.0 } else { weight * self.at((left + dx) as i64, (top + dy) as i64, c) }
        };
        corner(0.0, 0.0, (1.0 - s) * (1.0 - t))
            + corner(1.0, 0.0, s * (1.0 - t))
            + corner(0.0, 1.0, (1.0 - s) * t)
            + corner(1.0, 1.0, s * t)
    }

    fn grey(&self, x: i64, y: i64) -> f64 {
        let [r, g, b] = [0, 1, 2].map(|c| self.at(x, y, c));
        if self.channels == 1 { r } else { 0.2989 * r + 0.587 * g + 0.114 * b }
    }

    /// The values of a channel.
    fn channel(&self, c: usize) -> impl Iterator<Item = f64> {
        self.pixels.iter().skip(c).step_by(self.channels).copied()
    }

    /// What 256 bytes of a channel become: `None` where all stay.
    fn equalizer(&self, c: usize) -> Option<Vec<usize>> {
        let mut counts = vec![0usize; 256];
        self.channel(c).filter(|v| !v.is_nan()).for_each(|v| {
            if let Some(count) = counts.get_mut(byte(v)) {
                *count += 1;
            }
        });
        let last = counts.iter().rev().find(|count| **count > 0).copied().unwrap_or(0);
        let step = (counts.iter().sum::<usize>() - last) / 255;
        let mut before = 0;
        let mut table = Vec::new();
        for count in counts {
            table.push((before + step / 2).checked_div(step)?.min(255));
            before += count;
        }
        Some(table)
    }

    fn after(&self, record: &[f64], sampling: Sampling) -> Self {
        let [operation, m, cosine, sine] = record else { return self.mapped(|_, _, _| f64::NAN) };
        let (half_w, half_h) = (self.width as f64 / 2.0, self.height as f64 / 2.0);
        let moved = |place: &dyn Fn(f64, f64) -> [f64; 2]| {
            self.mapped(|x, y, c| {
                let [x, y] = place(x as f64 + 0.5, y as f64 + 0.5);
                self.sampled(x - 0.5, y - 0.5, c, sampling)
            })
        };
        let blended =
            |base: &dyn Fn(i64, i64, usize, f64) -> f64| self.coloured(|x, y, c, v| ((1.0 + m) * v - m * base(x, y, c, v)).clamp(0.0, 1.0));
        match *operation as usize {
            1 => moved(&|x, y| [x + m * y, y]),
            2 => moved(&|x, y| [x, y + m * x]),
            3 => moved(&|x, y| [x - m, y]),
            4 => moved(&|x, y| [x, y - m]),
            5 => moved(&|x, y| {
                let (x, y) = (x - half_w, y - half_h);
                [cosine * x - sine * y + half_w, sine * x + cosine * y + half_h]
            }),
            6 => blended(&|_, _, _, _| 0.0),
            7 if self.channels > 1 => blended(&|x, y, _, _| self.grey(x, y)),
            8 => {
                let all = self.mapped(|x, y, _| self.grey(x, y));
                let mean = all.channel(0).sum::<f64>() / (self.height * self.width) as f64;
                blended(&|_, _, _, _| mean)
            }
            9 if self.width > 2 && self.height > 2 => blended(&|x, y, c, v| {
                let inner = x > 0 && y > 0 && x + 1 < self.width as i64 && y + 1 < self.height as i64;
                let around = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))).map(|(dx, dy)| self.at(x + dx, y + dy, c));
                if inner { (around.sum::<f64>() + 4.0 * v) / 13.0 } else { v }
            }),
            10 => self.coloured(|_, _, _, v| {
                let step = 1usize << (8 - *m as usize);
                if v.is_nan() { v } else { (byte(v) / step * step) as f64 / 255.0 }
            }),
            11 => self.coloured(|_, _, _, v| if v >= *m { 1.0 - v } else { v }),
            12 => {
                let limits = [0, 1, 2].map(|c| {
                    let (low, high) = (self.channel(c).reduce(minimum), self.channel(c).reduce(maximum));
                    low.zip(high).filter(|(low, high)| high > low)
                });
                let stretched = |c: usize, v: f64| limits.get(c).copied().flatten().map_or(v, |(low, high)| (v - low) / (high - low));
                self.coloured(|_, _, c, v| stretched(c, v).clamp(0.0, 1.0))
            }
            13 => {
                let tables = [0, 1, 2].map(|c| self.equalizer(c));
                let become_ = |c: usize, v: usize| tables.get(c).and_then(|table| table.as_ref()?.get(v).copied()).unwrap_or(v);
                self.coloured(|_, _, c, v| if v.is_nan() { v } else { become_(c, byte(v)) as f64 / 255.0 })
            }
            _ => self.mapped(|x, y, c| self.at(x, y, c)),
        }
    }
}

/// In f32, as kernels have it: one product, which every adapter rounds alike.
fn byte(v: f64) -> usize {
    (v as f32 * 255.999).floor().clamp(0.0, 255.0) as usize
}

fn make(num_ops: usize, magnitude: usize, sampling: Sampling, draws: Draws) -> RandAugment {
    RandAugment { num_ops, magnitude, num_magnitude_bins: RandAugment::BINS, sampling, draws }
}

/// What it is tested on.
pub(super) fn samples() -> Vec<Sample> {
    let with = |num_ops, magnitude, sampling| move || make(num_ops, magnitude, sampling, sample_draws());
    let mut samples = samples_of(with(2, 9, Sampling::Bilinear));
    samples.extend(samples_of(with(1, 17, Sampling::Nearest)));
    samples.extend(
        [[65, 5, 9, 3], [65, 4, 3, 1], [9, 1, 1, 4], [5, 2, 7, 3]]
            .map(|shape| Sample::new(with(1, 30, Sampling::Bilinear)(), sample_inputs(shape))),
    );
    samples.push(Sample::new(with(3, 0, Sampling::Nearest)(), sample_inputs([33, 7, 5, 3])));
    // Bytes, few of them, over enough pixels for Equalize to have something to do.
    let bytes = Array::new([33, 24, 24, 1], (0..33 * 576).map(|i| f64::from((i * i / 7 % 23 * 9) as f32 / 255.0)).collect());
    samples.push(Sample::new(with(1, 9, Sampling::Bilinear)(), [Input::Values(bytes), indices([33], 60_000)]));
    // Channels that are all alike stay.
    let flat = Array::new([33, 3, 4, 3], vec![0.25; 33 * 36]);
    samples.push(Sample::new(with(1, 9, Sampling::Nearest)(), [Input::Values(flat), indices([33], 60_000)]));
    samples
}

/// What it must refuse.
pub(super) fn bad() -> Vec<Bad> {
    let good = || make(2, 9, Sampling::Nearest, sample_draws());
    let mut bad = bad_drawn(|draws| RandAugment { draws, ..good() });
    let cases = [
        (RandAugment { num_ops: 0, ..good() }, "num_ops must lie in 1..=16, found 0"),
        (RandAugment { num_ops: 17, ..good() }, "num_ops must lie in 1..=16, found 17"),
        (RandAugment { magnitude: 31, ..good() }, "magnitude must be below num_magnitude_bins, 31, found 31"),
        (RandAugment { num_magnitude_bins: 1, ..good() }, "num_magnitude_bins must lie in 2..=65536, found 1"),
    ];
    bad.extend(cases.map(|(augment, words)| Bad::new(augment, sample_inputs([2, 5, 5, 3]), words)));
    bad.extend(Bad::sizes(|num_ops| RandAugment { num_ops, ..good() }, sample_inputs([2, 5, 5, 3]), "num_ops must lie in"));
    bad
}

//! What colours must become: the float64 reference, samples and bad inputs.

use super::super::{Draws, bad_drawn, below, between, sample_draws, sample_inputs, samples_of, unit};
use super::{Color, JitterStyle};
use crate::error::Result;
use crate::ops::array::{maximum, minimum};
use crate::ops::sample::{Bad, Input, Sample, indices};
use crate::ops::{Array, Operator, exactly};

/// What was drawn, and what it does to each image, in float64.
pub(super) fn reference(color: &Color, inputs: &[Array]) -> Result<Vec<Array>> {
    let [images, indices] = exactly(color.name(), inputs)?;
    let [_, h, w, c] = [0, 1, 2, 3].map(|axis| images.shape.dim(axis));
    let draws = color.draws.reference(indices, 8, |bits| record(color, bits));
    let mut y = images.clone();
    for (image, record) in y.data.chunks_mut(h * w * c).zip(draws.rows()) {
        jitter(color, image, c, record);
        let [.., greyed, solarized, _] = record else { continue };
        for pixel in image.chunks_mut(c) {
            let own = grey(pixel);
            for value in pixel.iter_mut().take(3) {
                *value = if *greyed == 1.0 { own } else { *value };
                *value = if *solarized == 1.0 && *value >= f64::from(color.threshold) { 1.0 - *value } else { *value };
            }
        }
    }
    Ok(vec![y, draws])
}

/// What is drawn of the random numbers of one image.
fn record(color: &Color, bits: &dyn Fn(u32) -> [u32; 2]) -> Vec<f64> {
    let ([whether, order], [b, c], [s, h], [grey, sun]) = (bits(0), bits(1), bits(2), bits(3));
    let factor = |bits, strength: f32| between(bits, [(1.0 - strength).max(0.0), 1.0 + strength]);
    let mut record = vec![1.0, 1.0, 1.0, 0.0, -1.0];
    let mut hue_at = 0;
    if unit(whether) < f64::from(color.p) {
        let (mut left, mut number) = (vec![0u32, 1, 2, 3], below(order, 24));
        let mut operations = Vec::new();
        for radix in [6, 2, 1, 1] {
            operations.push(left.remove(number / radix));
            number %= radix;
        }
        hue_at = operations.iter().position(|operation| *operation == 3).unwrap_or(0);
        let packed = operations.iter().rev().fold(0, |packed, operation| packed * 4 + operation);
        let hue = between(h, [-color.hue, color.hue]);
        record = vec![between(b, color.brightnesses()), factor(c, color.contrast), factor(s, color.saturation), hue, f64::from(packed)];
    }
    let flag = |bits, p: f32| f64::from(u8::from(unit(bits) < f64::from(p)));
    record.extend([flag(grey, color.grayscale), flag(sun, color.solarize), hue_at as f64]);
    record
}

/// One image, jittered in place.
fn jitter(color: &Color, pixels: &mut [f64], channels: usize, record: &[f64]) {
    let [brightness, contrast, saturation, hue, order, ..] = record else { return };
    if *order < 0.0 {
        return;
    }
    let tensorflow = color.style != JitterStyle::Torchvision;
    let blend = |v: &mut f64, factor: f64, base: f64| *v = (factor * *v + (1.0 - factor) * base).clamp(0.0, 1.0);
    for slot in 0..4 {
        let mean = |of: &dyn Fn(&[f64]) -> f64| pixels.chunks(channels).map(of).sum::<f64>() / (pixels.len() / channels).max(1) as f64;
        let means = [0, 1, 2].map(|c| mean(&|pixel| if tensorflow { pixel.get(c).copied().unwrap_or(0.0) } else { grey(pixel) }));
        for pixel in pixels.chunks_mut(channels) {
            let own = grey(pixel);
            match (*order as u32 >> (2 * slot) & 3, &mut *pixel) {
                (0, _) if color.style == JitterStyle::Byol => {
                    pixel.iter_mut().take(3).for_each(|v| *v = (*v + brightness).clamp(0.0, 1.0));
                }
                (0, _) => pixel.iter_mut().take(3).for_each(|v| blend(v, *brightness, 0.0)),
                (1, _) => pixel.iter_mut().zip(means).for_each(|(v, mean)| blend(v, *contrast, mean)),
                (2, [r, g, b, ..]) if tensorflow => [*r, *g, *b] = saturate([*r, *g, *b], *saturation),
                (2, [r, g, b, ..]) => [r, g, b].into_iter().for_each(|v| blend(v, *saturation, own)),
                (3, [r, g, b, ..]) => [*r, *g, *b] = turn_hue([*r, *g, *b], *hue),
                _ => {}
            }
        }
    }
}

/// A pixel's grey; the fourth channel does not count.
fn grey(pixel: &[f64]) -> f64 {
    match pixel {
        [r, g, b, ..] => 0.299 * r + 0.587 * g + 0.114 * b,
        _ => pixel.iter().sum(),
    }
}

/// Hue turned.
fn turn_hue(color: [f64; 3], turn: f64) -> [f64; 3] {
    let [hue, saturation, value] = to_hsv(color);
    to_rgb([(hue + turn).rem_euclid(1.0), saturation, value])
}

/// HSV's saturation multiplied.
fn saturate(color: [f64; 3], factor: f64) -> [f64; 3] {
    let [hue, saturation, value] = to_hsv(color);
    to_rgb([hue, minimum(saturation * factor, 1.0), value])
}

/// The textbook's way from RGB to HSV, all in 0..1.
fn to_hsv([r, g, b]: [f64; 3]) -> [f64; 3] {
    let (max, min) = (maximum(maximum(r, g), b), minimum(minimum(r, g), b));
    let chroma = max - min;
    if chroma == 0.0 {
        return [0.0, 0.0, max];
    }
    let degree = if max == r {
        (g - b) / chroma
    } else if max == g {
        2.0 + (b - r) / chroma
    } else {
        4.0 + (r - g) / chroma
    };
    [(degree / 6.0).rem_euclid(1.0), chroma / max, max]
}

/// And back.
fn to_rgb([hue, saturation, max]: [f64; 3]) -> [f64; 3] {
    let hue = hue * 6.0;
    let fraction = hue - hue.floor();
    let (p, q, t) = (max * (1.0 - saturation), max * (1.0 - saturation * fraction), max * (1.0 - saturation * (1.0 - fraction)));
    match hue.floor() as u32 % 6 {
        0 => [max, t, p],
        1 => [q, max, p],
        2 => [p, max, t],
        3 => [p, q, max],
        4 => [t, p, max],
        _ => [max, p, q],
    }
}

fn sample_operator(name: &str, draws: Draws) -> Color {
    match name {
        "color_jitter" => Color { grayscale: 0.2, ..Color::jitter([0.8, 0.8, 0.8, 0.2], 0.8, draws) },
        "solarize" => Color { solarize: 0.6, threshold: 0.5, draws, ..Color::default() },
        _ => Color { grayscale: 0.5, draws, ..Color::default() },
    }
}

/// What it is tested on.
pub(super) fn samples(name: &str) -> Vec<Sample> {
    let mut samples = samples_of(|| sample_operator(name, sample_draws()));
    let inputs = || sample_inputs([33, 3, 7, 3]);
    match name {
        "color_jitter" => {
            samples.push(Sample::new(Color::jitter([0.0, 0.0, 0.0, 0.5], 1.0, sample_draws()), inputs()));
            samples.push(Sample::new(Color::jitter([2.0, 2.0, 2.0, 0.0], 1.0, sample_draws()), inputs()));
            for style in [JitterStyle::Simclr, JitterStyle::Byol] {
                samples.extend(samples_of(|| Color { style, ..sample_operator(name, sample_draws()) }));
                let strong = || Color { style, ..Color::jitter([1.0, 1.0, 5.0, 0.5], 1.0, sample_draws()) };
                samples.push(Sample::new(strong(), inputs()));
                samples.push(Sample::new(strong(), [Input::Values(Array::new([3, 2, 2, 3], vec![0.7; 36])), indices([3], 9)]));
            }
        }
        "solarize" => {
            let all = Color { solarize: 1.0, threshold: 0.25, draws: sample_draws(), ..Color::default() };
            let edge = Array::new([1, 1, 4, 3], (0..12).map(|i| f64::from(i) / 8.0).collect());
            let at = Array::integers([1], vec![0.0]);
            samples.push(Sample::new(all, [Input::Values(edge), Input::Values(at)]));
        }
        _ => {}
    }
    samples
}

/// What it must refuse.
pub(super) fn bad(name: &str) -> Vec<Bad> {
    let mut bad = bad_drawn(|draws| sample_operator(name, draws));
    let good = sample_operator(name, sample_draws());
    let cases = [
        (Color { brightness: -0.1, ..good.clone() }, "brightness must lie in"),
        (Color { hue: 0.6, ..good.clone() }, "hue must lie in 0..=0.5, found 0.6"),
        (Color { grayscale: 1.1, ..good.clone() }, "grayscale must lie in 0..=1"),
        (Color { threshold: f32::NAN, ..good.clone() }, "threshold must lie in"),
    ];
    bad.extend(cases.map(|(color, words)| Bad::new(color, sample_inputs([2, 5, 5, 3]), words)));
    bad
}

#[cfg(test)]
mod tests {
    use super::super::launch::apply;
    use super::*;
    use crate::gpu::{Gpu, GpuOptions};
    use crate::tensor::Tensor;

    /// An image of 2 x 2 pixels after what `record` says.
    fn jittered(style: JitterStyle, record: [f32; 8]) -> Vec<f32> {
        let gpu = Gpu::with(GpuOptions::from_env().unwrap()).unwrap();
        let images = Tensor::from_slice(&gpu, &image(), [1, 2, 2, 3]).unwrap();
        let draws = Tensor::from_slice(&gpu, &record, [1, 8]).unwrap();
        apply(&Color { style, p: 1.0, ..Color::default() }, &images, &draws).unwrap().to_vec::<f32>().unwrap()
    }

    fn image() -> Vec<f32> {
        (0..12).map(|i| ((i * 37 + 11) % 101) as f32 / 100.0).collect()
    }

    fn close(found: &[f32], expected: &[f32], tolerance: f32) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance), "{found:?}\n{expected:?}");
    }

    /// Contrast 1.6, a turn of 0.13, brightness 0.7, saturation 1.5, in this order.
    #[test]
    fn equal_factors_give_the_sources_colours() {
        let record = |brightness| [brightness, 1.6, 1.5, 0.13, f32::from(1u8 | 3 << 2 | 2 << 6), 0.0, 0.0, 1.0];
        // torchvision 0.29's adjust_contrast, adjust_hue, adjust_brightness, adjust_saturation.
        let torchvision = [0.2573, 0.0, 0.9772, 0.1379, 0.0, 0.9827, 0.0, 0.6468, 0.2620, 0.0, 0.7833, 0.1936];
        close(&jittered(JitterStyle::Torchvision, record(0.7)), &torchvision, 1e-4);
        // Python's colorsys, and NumPy for the mean of each channel.
        let simclr = [0.2817, 0.0, 0.7, 0.2301, 0.0, 0.7, 0.0, 0.4970, 0.1497, 0.0, 0.6090, 0.1250];
        close(&jittered(JitterStyle::Simclr, record(0.7)), &simclr, 1e-4);
        let byol = [0.1144, 0.0, 0.7, 0.1496, 0.0, 0.7, 0.0, 0.41, 0.0, 0.0, 0.57, 0.0];
        close(&jittered(JitterStyle::Byol, record(-0.3)), &byol, 1e-4);
    }

    #[test]
    fn a_hue_turned_by_the_whole_circle_is_the_same() {
        for turn in [-1.0, 1.0] {
            close(
                &jittered(JitterStyle::Torchvision, [1.0, 1.0, 1.0, turn, f32::from(3u8 | 1 << 4 | 2 << 6), 0.0, 0.0, 0.0]),
                &image(),
                2e-6,
            );
        }
        for color in [[0.2, 0.7, 0.4], [0.9, 0.1, 0.3], [0.5, 0.5, 0.5], [0.0, 0.0, 1.0]] {
            let [half, whole] = [turn_hue(turn_hue(color, 0.5), 0.5), turn_hue(color, 1.0)];
            assert!(color.iter().zip(half).zip(whole).all(|((c, h), w)| (c - h).abs() < 1e-12 && (c - w).abs() < 1e-12));
        }
    }
}

//! What is drawn has the distribution asked for, and what should change nothing changes no bit.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::gpu::{Gpu, GpuOptions};
use crate::tensor::random::Stream;

const COUNT: usize = 4096;

fn gpu() -> Gpu {
    Gpu::with(GpuOptions { poison: true, ..GpuOptions::from_env().unwrap() }).unwrap()
}

/// What an operator draws for many images of `side * side`, one record an image.
fn drawn(operator: impl Operator, side: usize) -> Vec<Vec<f64>> {
    let gpu = gpu();
    let images = Tensor::zeros(&gpu, [COUNT, side, side, 1], DType::F32).unwrap();
    let indices = Tensor::from_slice(&gpu, &(0..COUNT as i32).collect::<Vec<_>>(), [COUNT]).unwrap();
    let outputs = apply(operator, &[&images, &indices]).unwrap();
    let width = outputs[1].shape().last();
    outputs[1].to_f64().unwrap().chunks(width).map(<[f64]>::to_vec).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Whether `count` of [`COUNT`] is within five standard deviations of the chance `p`.
fn likely(count: usize, p: f64) -> bool {
    (count as f64 - COUNT as f64 * p).abs() < 5.0 * (COUNT as f64 * p * (1.0 - p)).sqrt()
}

#[test]
fn flips_and_shifts_are_even() {
    let records = drawn(ReflectCrop { pad: 4, flip: 0.3, draws: sample_draws() }, 5);
    assert!(likely(records.iter().filter(|r| r[2] == 1.0).count(), 0.3));
    for axis in 0..2 {
        for shift in -4..=4 {
            assert!(likely(records.iter().filter(|r| r[axis] == f64::from(shift)).count(), 1.0 / 9.0), "axis {axis}, shift {shift}");
        }
    }
    // Independent of each other: both negative in 16 of 81.
    assert!(likely(records.iter().filter(|r| r[0] < 0.0 && r[1] < 0.0).count(), 16.0 / 81.0));
}

#[test]
fn crops_have_the_areas_and_ratios_asked_for() {
    let crop = RandomResizedCrop {
        size: [1, 1],
        scale: [0.2, 0.6],
        ratio: RandomResizedCrop::RATIO,
        flip: 0.5,
        interpolation: Interpolation::Bilinear,
        draws: sample_draws(),
    };
    let records = drawn(crop, 64);
    assert!(likely(records.iter().filter(|r| r[2] < 0.0).count(), 0.5));
    // At most 0.6 of the area at 4 : 3 always fits, so areas are uniform; rounding a side shifts
    // one by up to 2 %.
    let areas: Vec<f64> = records.iter().map(|r| (r[2] * r[3]).abs() / 4096.0).collect();
    assert!(areas.iter().all(|a| (0.19..0.62).contains(a)));
    for quarter in 0..4 {
        let low = 0.2 + 0.1 * f64::from(quarter);
        let count = areas.iter().filter(|a| (low..low + 0.1).contains(*a)).count();
        assert!((0.22..0.28).contains(&(count as f64 / COUNT as f64)), "{count} areas from {low}");
    }
    // Uniform in the logarithm: as often wide as high. Standard error 0.17 / sqrt(4096) = 0.0026.
    let logarithm = mean(records.iter().map(|r| (r[2].abs() / r[3]).ln()));
    assert!(logarithm.abs() < 0.01, "{logarithm}");
    for record in &records {
        assert!(record[0] >= 0.0 && record[1] >= 0.0 && record[0] + record[2].abs() <= 64.0 && record[1] + record[3] <= 64.0);
    }
    // Centres lie in the middle on average.
    let centre = mean(records.iter().map(|r| r[0] + r[2].abs() / 2.0));
    approx::assert_abs_diff_eq!(centre, 32.0, epsilon = 0.6);
}

/// Pearson's statistic of equal bins of `low..high`; values beyond count to the last bins.
fn chi_square<const BINS: usize>(values: &[f64], low: f64, high: f64) -> f64 {
    let mut counts = [0usize; BINS];
    values.iter().for_each(|v| counts[(((v - low) / (high - low) * BINS as f64).max(0.0) as usize).min(BINS - 1)] += 1);
    let expected = values.len() as f64 / BINS as f64;
    counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum()
}

#[test]
fn areas_and_logarithms_of_ratios_are_uniform() {
    let gpu = gpu();
    let crop = RandomResizedCrop {
        size: [1, 1],
        scale: [0.2, 0.6],
        ratio: RandomResizedCrop::RATIO,
        flip: 0.0,
        interpolation: Interpolation::Bilinear,
        draws: sample_draws(),
    };
    // Sides of many pixels, so that whole ones hardly matter.
    let (side, count) = (192, 256);
    let images = Tensor::zeros(&gpu, [count, side, side, 1], DType::F32).unwrap();
    let (mut areas, mut logarithms) = (Vec::new(), Vec::new());
    for part in 0..8 {
        let indices: Vec<i32> = (0..count as i32).map(|i| part * count as i32 + i).collect();
        let indices = Tensor::from_slice(&gpu, &indices, [count]).unwrap();
        let boxes = apply(crop.clone(), &[&images, &indices]).unwrap()[1].to_f64().unwrap();
        for record in boxes.chunks(4) {
            areas.push(record[2] * record[3] / (side * side) as f64);
            logarithms.push((record[2] / record[3]).ln());
        }
    }
    // Of 15 degrees of freedom, one in a thousand is above 37.7.
    let [low, high] = RandomResizedCrop::RATIO.map(|ratio| f64::from(ratio).ln());
    let found = [chi_square::<16>(&areas, 0.2, 0.6), chi_square::<16>(&logarithms, low, high)];
    assert!(found.iter().all(|statistic| *statistic < 37.7), "{found:?}");
    // What it finds: the ratio itself is not uniform.
    let ratios: Vec<f64> = logarithms.iter().map(|v| v.exp()).collect();
    assert!(chi_square::<16>(&ratios, 0.75, 4.0 / 3.0) > 37.7);
}

#[test]
fn equal_widths_blur_as_torchvision_and_pillow_do() {
    let gpu = gpu();
    let image: Vec<f32> = (0..20).map(|i| ((i * 37 + 11) % 101) as f32 / 100.0).collect();
    let images = Tensor::from_slice(&gpu, &image, [1, 5, 4, 1]).unwrap();
    let indices = Tensor::from_slice(&gpu, &[3], [1]).unwrap();
    let blur = |kernel, edge| {
        let blur = GaussianBlur { kernel, sigma: [1.3, 1.3], p: 1.0, edge, draws: sample_draws() };
        images.gaussian_blur(&indices, blur).unwrap().to_vec::<f32>().unwrap()
    };
    // torchvision 0.29's gaussian_blur.
    let torchvision = [
        0.5497, 0.5488, 0.5421, 0.5496, 0.5507, 0.5480, 0.5340, 0.5391, 0.5425, 0.5333, 0.5125, 0.5102, 0.5727, 0.5500, 0.5017, 0.4829,
        0.5761, 0.5482, 0.4955, 0.4708,
    ];
    let found = blur(5, Edge::Reflect);
    assert!(found.iter().zip(torchvision).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
    // A constant stays one where edges are repeated, and grows darker towards the edge where
    // nothing is outside.
    let dark = blur(5, Edge::Zeros);
    assert!(dark.iter().sum::<f32>() < 0.9 * found.iter().sum::<f32>() && dark[0] < 0.6 * blur(13, Edge::Replicate)[0]);
}

#[test]
fn jitter_draws_every_order_and_the_whole_range() {
    let records = drawn(Color { grayscale: 0.2, ..Color::jitter([0.8, 0.8, 1.5, 0.2], 0.8, sample_draws()) }, 1);
    let jittered: Vec<&Vec<f64>> = records.iter().filter(|r| r[4] >= 0.0).collect();
    assert!(likely(jittered.len(), 0.8));
    assert!(likely(records.iter().filter(|r| r[5] == 1.0).count(), 0.2));
    assert!(records.iter().filter(|r| r[4] < 0.0).all(|r| r[..4] == [1.0, 1.0, 1.0, 0.0]));
    let mut orders = std::collections::BTreeMap::new();
    for record in &jittered {
        *orders.entry(record[4] as u32).or_insert(0usize) += 1;
    }
    assert_eq!(orders.len(), 24);
    for (order, count) in orders {
        let operations: std::collections::BTreeSet<u32> = (0..4).map(|slot| order >> (2 * slot) & 3).collect();
        assert_eq!(operations.len(), 4);
        assert!(likely(count, 0.8 / 24.0), "order {order:#x}: {count}");
    }
    for (factor, [low, high]) in [[0.2, 1.8], [0.2, 1.8], [0.0, 2.5], [-0.2, 0.2]].into_iter().enumerate() {
        let values = || jittered.iter().map(|r| r[factor]);
        assert!(values().all(|v| v >= low - 1e-6 && v <= high + 1e-6), "factor {factor}");
        assert!((mean(values()) - (low + high) / 2.0).abs() < 0.02 * (high - low), "factor {factor}");
    }
}

#[test]
fn blur_and_cutout_draw_what_they_should() {
    let blurs = drawn(GaussianBlur { kernel: 3, sigma: [0.1, 2.0], p: 0.5, edge: Edge::Reflect, draws: sample_draws() }, 3);
    let sigmas: Vec<f64> = blurs.iter().map(|r| r[0]).filter(|s| *s > 0.0).collect();
    assert!(likely(sigmas.len(), 0.5));
    assert!(sigmas.iter().all(|s| (0.099..2.001).contains(s)) && (mean(sigmas.iter().copied()) - 1.05).abs() < 0.05);
    let cuts = drawn(Cutout { size: 4, p: 0.25, draws: sample_draws() }, 7);
    let squares: Vec<&Vec<f64>> = cuts.iter().filter(|r| r[2] != r[0]).collect();
    assert!(likely(squares.len(), 0.25));
    assert!(squares.iter().all(|r| r[2] - r[0] == 4.0 && r[3] - r[1] == 4.0 && (-2.0..=4.0).contains(&r[0])));
}

#[test]
fn rand_augment_draws_every_operation_with_both_signs() {
    let augment = RandAugment { num_ops: 2, magnitude: 9, num_magnitude_bins: 31, sampling: Sampling::Nearest, draws: sample_draws() };
    let records = drawn(augment, 5);
    for number in 0..2 {
        for operation in 0..14 {
            let found: Vec<f64> = records.iter().map(|r| &r[4 * number..]).filter(|r| r[0] == f64::from(operation)).map(|r| r[1]).collect();
            assert!(likely(found.len(), 1.0 / 14.0), "operation {operation}: {}", found.len());
            let negative = found.iter().filter(|m| **m < 0.0).count();
            // A translation of 5 pixels by 9 of 30 is none.
            let signed = (1..=9).contains(&operation) && ![3, 4].contains(&operation);
            assert!(if signed { likely(negative, 1.0 / 28.0) } else { negative == 0 }, "{operation}");
        }
    }
    // Independent of each other: the same twice in one of 14.
    assert!(likely(records.iter().filter(|r| r[0] == r[4]).count(), 1.0 / 14.0));
}

#[test]
fn erasing_draws_boxes_and_noise_as_asked_for() {
    let erasing = |value| RandomErasing { p: 0.5, scale: [0.1, 0.3], ratio: RandomErasing::RATIO, value, draws: sample_draws() };
    let records = drawn(erasing(ErasingValue::default()), 64);
    let boxes: Vec<&Vec<f64>> = records.iter().filter(|r| r[2] > 0.0).collect();
    assert!(likely(boxes.len(), 0.5));
    let areas: Vec<f64> = boxes.iter().map(|r| (r[2] - r[0]) * (r[3] - r[1]) / 4096.0).collect();
    assert!(areas.iter().all(|a| (0.09..0.32).contains(a)) && (mean(areas.iter().copied()) - 0.2).abs() < 0.01);
    assert!(boxes.iter().all(|r| r[0] >= 0.0 && r[1] >= 0.0 && r[2] <= 64.0 && r[3] <= 64.0));
    // Noise has mean 0 and variance 1, and pixels, channels and images have nothing in common.
    let gpu = gpu();
    let images = Tensor::full(&gpu, [2, 64, 64, 3], 9.0, DType::F32).unwrap();
    let draws: Vec<f32> = [[0.0, 0.0, 64.0, 64.0, 1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 64.0, 64.0, 1.0, 2.0, 3.0, 5.0]].concat();
    let draws = Tensor::from_slice(&gpu, &draws, [2, 8]).unwrap();
    let noise = erasing(ErasingValue::Noise(Noisy::Random)).replay(&images, &draws).unwrap().to_f64().unwrap();
    let n = noise.len() as f64;
    let product = |shift: usize| mean(noise.iter().zip(&noise[shift..]).map(|(a, b)| a * b));
    assert!(mean(noise.iter().copied()).abs() < 5.0 / n.sqrt());
    assert!((product(0) - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{}", product(0));
    for shift in [1, 2, 3, 192, 64 * 64 * 3] {
        assert!(product(shift).abs() < 5.0 / (n / 2.0).sqrt(), "shift {shift}: {}", product(shift));
    }
}

/// A record that was drawn does the same again, and what fits no image is refused.
#[test]
fn records_are_replayed() {
    let gpu = gpu();
    let mut stream = Stream::new(2, Purpose::Test);
    let data: Vec<f32> = (0..3 * 7 * 9 * 3).map(|_| stream.uniform()).collect();
    let images = Tensor::from_slice(&gpu, &data, [3, 7, 9, 3]).unwrap();
    let indices = Tensor::from_slice(&gpu, &[5, 0, 9], [3]).unwrap();
    let augment = RandAugment { num_ops: 3, magnitude: 9, num_magnitude_bins: 31, sampling: Sampling::Bilinear, draws: sample_draws() };
    let erasing =
        RandomErasing { p: 1.0, scale: [0.2, 0.5], ratio: [1.0, 1.0], value: ErasingValue::Noise(Noisy::Random), draws: sample_draws() };
    let pairs = [
        (
            apply(augment.clone(), &[&images, &indices]).unwrap(),
            augment.replay(&images, &apply(augment.clone(), &[&images, &indices]).unwrap()[1]),
        ),
        (
            apply(erasing.clone(), &[&images, &indices]).unwrap(),
            erasing.replay(&images, &apply(erasing.clone(), &[&images, &indices]).unwrap()[1]),
        ),
    ];
    for (outputs, again) in pairs {
        assert_eq!(outputs[0].to_vec::<f32>().unwrap(), again.unwrap().to_vec::<f32>().unwrap());
        assert_ne!(outputs[0].to_vec::<f32>().unwrap(), data);
    }
    let error = augment.replay(&images, &Tensor::zeros(&gpu, [3, 8], DType::F32).unwrap()).unwrap_err().to_string();
    assert!(error.contains("3 images need draws of shape [3, 12], found [3, 8]"), "{error}");
}

#[test]
fn what_asks_for_nothing_changes_no_bit() {
    let gpu = gpu();
    for channels in [1, 3, 4] {
        let mut stream = Stream::new(1, Purpose::Test);
        let data: Vec<f32> = (0..3 * 7 * 7 * channels).map(|_| stream.uniform()).collect();
        let images = Tensor::from_slice(&gpu, &data, [3, 7, 7, channels]).unwrap();
        let indices = Tensor::from_slice(&gpu, &[5, 0, 9], [3]).unwrap();
        let whole = RandomResizedCrop {
            size: [7, 7],
            scale: [1.0, 1.0],
            ratio: [1.0, 1.0],
            flip: 0.0,
            interpolation: Interpolation::Bilinear,
            draws: sample_draws(),
        };
        let still = |style| images.color_jitter(&indices, Color { style, ..Color::jitter([0.0; 4], 1.0, sample_draws()) }).unwrap();
        let sharp = |edge| GaussianBlur { kernel: 5, sigma: [0.1, 2.0], p: 0.0, edge, draws: sample_draws() };
        let flipped = |images: &Tensor| images.horizontal_flip(&indices, 1.0, sample_draws()).unwrap();
        let [scale, ratio] = [RandomErasing::SCALE, RandomErasing::RATIO];
        let unerased = RandomErasing { p: 0.0, scale, ratio, value: ErasingValue::Number(0.5), draws: sample_draws() };
        let results = [
            images.random_resized_crop(&indices, whole.clone()).unwrap(),
            images.random_resized_crop(&indices, RandomResizedCrop { interpolation: Interpolation::Bicubic, ..whole.clone() }).unwrap(),
            images.center_resize([7, 7], 1.0).unwrap(),
            flipped(&flipped(&images)),
            flipped(&images.random_resized_crop(&indices, RandomResizedCrop { flip: 1.0, ..whole.clone() }).unwrap()),
            images.reflect_crop(&indices, 0, 0.0, sample_draws()).unwrap(),
            still(JitterStyle::Torchvision),
            still(JitterStyle::Simclr),
            still(JitterStyle::Byol),
            images.color_jitter(&indices, Color::jitter([0.8, 0.8, 0.8, 0.2], 1e-9, sample_draws())).unwrap(),
            images.grayscale(&indices, 0.0, sample_draws()).unwrap(),
            images.solarize(&indices, 0.5, 0.0, sample_draws()).unwrap(),
            images.gaussian_blur(&indices, sharp(Edge::Reflect)).unwrap(),
            images.gaussian_blur(&indices, sharp(Edge::Replicate)).unwrap(),
            images.gaussian_blur(&indices, sharp(Edge::Zeros)).unwrap(),
            images.cutout(&indices, 3, 0.0, sample_draws()).unwrap(),
            images.random_erasing(&indices, unerased).unwrap(),
            images.mix_images(&flipped(&images), MixImages { lam: 1.0.into(), ..MixImages::default() }).unwrap(),
            images.normalize_images([0.0; 3], [1.0; 3]).unwrap(),
        ];
        for (number, result) in results.iter().enumerate() {
            assert_eq!(result.to_vec::<f32>().unwrap(), data, "result {number} of {channels} channels");
        }
    }
}

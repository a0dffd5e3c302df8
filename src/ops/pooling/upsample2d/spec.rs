//! What resampling must give: the float64 reference, samples, bad inputs, and what it costs.

use super::ratio::Ratio;
use super::{Upsample, Upsample2d, UpsampleMode};
use crate::error::Result;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Cost, exactly};
use crate::tensor::Spec;

/// Each pixel by the weights of the pixels around it, in float64.
pub(super) fn reference(upsample: &Upsample2d, inputs: &[Array]) -> Result<Vec<Array>> {
    let [x] = exactly("upsample2d", inputs)?;
    let ([_, h, w, _], [rows, columns]) = upsample.ratios(&Spec::f32(&x.shape))?;
    let taps = |o: usize, ratio: Ratio, size: usize| -> Vec<(usize, f64)> {
        let step = ratio.num as f64 / ratio.den as f64;
        if upsample.mode == UpsampleMode::Nearest {
            return vec![((o * ratio.num / ratio.den).min(size - 1), 1.0)];
        }
        let s = if upsample.align_corners { o as f64 * step } else { (o as f64 + 0.5) * step - 0.5 };
        let kernel = |d: f64| match (upsample.mode, d.abs()) {
            (UpsampleMode::Bicubic, d) if d <= 1.0 => 1.25 * d.powi(3) - 2.25 * d.powi(2) + 1.0,
            (UpsampleMode::Bicubic, d) if d < 2.0 => -0.75 * (d.powi(3) - 5.0 * d.powi(2) + 8.0 * d - 4.0),
            (UpsampleMode::Bicubic, _) => 0.0,
            (_, d) => (1.0 - d).max(0.0),
        };
        let s = if upsample.mode == UpsampleMode::Bicubic { s } else { s.max(0.0) };
        let around = s.floor() as isize - 1..=s.floor() as isize + 2;
        around.map(|i| (i.clamp(0, size as isize - 1) as usize, kernel(s - i as f64))).filter(|(_, weight)| *weight != 0.0).collect()
    };
    Ok(vec![Array::from_fn(upsample.output(&Spec::f32(&x.shape))?, |at| {
        let [n, i, j, c] = <[usize; 4]>::try_from(at).unwrap_or_default();
        let mut sum = 0.0;
        for (r, weight_r) in taps(i, rows, h) {
            for (q, weight_q) in taps(j, columns, w) {
                sum += weight_r * weight_q * x.at(&[n, r, q, c]);
            }
        }
        sum
    })])
}

/// Every tensor once; what a pixel costs depends on the mode.
pub(super) fn cost(upsample: &Upsample2d, inputs: &[Spec], outputs: &[Spec]) -> Cost {
    let flops = match upsample.mode {
        UpsampleMode::Nearest => 0.0,
        UpsampleMode::Bilinear => 9.0,
        UpsampleMode::Bicubic => 40.0,
    };
    Cost::streaming(inputs, outputs, flops)
}

fn size(to: [usize; 2], mode: UpsampleMode) -> Upsample2d {
    Upsample2d { to: Upsample::Size(to), mode, align_corners: false }
}

fn scale(by: f64, mode: UpsampleMode) -> Upsample2d {
    Upsample2d { to: Upsample::Scale([by; 2]), mode, align_corners: false }
}

fn aligned(operator: Upsample2d) -> Upsample2d {
    Upsample2d { align_corners: true, ..operator }
}

/// What it is tested on.
pub(super) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for mode in [UpsampleMode::Nearest, UpsampleMode::Bilinear, UpsampleMode::Bicubic] {
        samples.extend([
            Sample::new(size([7, 9], mode), [normal([2, 5, 6, 3])]),
            Sample::new(size([3, 2], mode), [normal([2, 5, 6, 4])]),
            Sample::new(size([1, 33], mode), [normal([1, 3, 1, 1])]),
            Sample::new(size([7, 65], mode), [normal([1, 1, 5, 8])]),
            Sample::new(scale(2.0, mode), [normal([1, 4, 5, 4])]),
            Sample::new(scale(1.5, mode), [normal([1, 5, 3, 5])]),
            Sample::new(scale(0.5, mode), [normal([1, 7, 5, 3])]),
            Sample::new(scale(1.0 / 3.0, mode), [normal([1, 7, 10, 1])]),
            Sample::new(scale(1.0, mode), [normal([1, 3, 3, 1])]),
            Sample::new(scale(2.0, mode), [normal([0, 3, 3, 1])]),
            Sample::new(scale(std::f64::consts::SQRT_2, mode), [normal([1, 5, 7, 3])]),
            Sample::new(scale(0.618_033_988, mode), [normal([1, 9, 8, 4])]),
        ]);
        if mode != UpsampleMode::Nearest {
            samples.extend([
                Sample::new(aligned(size([7, 9], mode)), [normal([2, 5, 6, 3])]),
                Sample::new(aligned(size([3, 2], mode)), [normal([1, 5, 6, 4])]),
                Sample::new(aligned(size([1, 4], mode)), [normal([1, 3, 1, 1])]),
                Sample::new(aligned(scale(1.7, mode)), [normal([1, 4, 7, 2])]),
                Sample::new(aligned(size([5, 5], mode)), [normal([1, 5, 5, 1])]),
            ]);
        }
    }
    samples
}

/// What it must refuse.
pub(super) fn bad() -> Vec<Bad> {
    let mode = UpsampleMode::Bilinear;
    vec![
        Bad::new(size([4, 4], mode), [normal([4, 4, 3])], "x must be images [N, H, W, C]"),
        Bad::new(size([4, 4], mode), [indices([1, 4, 4, 3], 5)], "x must hold floats"),
        Bad::new(size([0, 4], mode), [normal([1, 4, 4, 3])], "both need pixels"),
        Bad::new(scale(0.1, mode), [normal([1, 4, 4, 3])], "both need pixels"),
        Bad::new(scale(f64::NAN, mode), [normal([1, 4, 4, 3])], "a scale must lie between 0 and 1e6"),
        Bad::new(scale(-1.0, mode), [normal([1, 4, 4, 3])], "a scale must lie between 0 and 1e6"),
        Bad::new(aligned(size([4, 4], UpsampleMode::Nearest)), [normal([1, 4, 4, 3])], "align_corners goes with bilinear and bicubic"),
    ]
}

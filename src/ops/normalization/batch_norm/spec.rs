//! What batch norm must give: the float64 reference, samples, bad inputs, and what it costs.

use super::{BatchNorm, BatchNormFuncOptions, statistics};
use crate::error::Result;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with, uniform};
use crate::ops::{Activation, Array, Cost, Operator};
use crate::tensor::Spec;

/// Two walks over each channel in float64.
pub(super) fn reference(norm: &BatchNorm, inputs: &[Array]) -> Result<Vec<Array>> {
    let inputs: Vec<&Array> = inputs.iter().collect();
    let ([x, weight, bias, running_mean, running_var], _, residual) = norm.split(&inputs)?;
    let (c, momentum, eps) = (x.shape.last(), f64::from(norm.options.momentum), f64::from(norm.options.eps));
    let n = (x.shape.numel() / c.max(1)) as f64;
    let (mut y, mut affine) = (Array::zeros(&x.shape), Array::zeros([5, c]));
    let (mut new_mean, mut new_var) = (running_mean.clone(), running_var.clone());
    for channel in 0..c {
        let values = || x.rows().map(|row| row.get(channel).copied().unwrap_or(f64::NAN));
        let (mut mean, mut var) = (running_mean.flat(channel), running_var.flat(channel));
        if norm.options.training {
            mean = values().sum::<f64>() / n;
            let squares: f64 = values().map(|v| (v - mean) * (v - mean)).sum();
            var = squares / n;
            new_mean.set(channel, (1.0 - momentum) * running_mean.flat(channel) + momentum * mean);
            new_var.set(channel, (1.0 - momentum) * running_var.flat(channel) + momentum * squares / (n - 1.0));
        }
        let inverse = 1.0 / (var + eps).sqrt();
        for (row, value) in [mean, 0.0, inverse, weight.flat(channel) * inverse, bias.flat(channel)].into_iter().enumerate() {
            affine.set(row * c + channel, value);
        }
        for (row, value) in values().enumerate() {
            let position = row * c + channel;
            let shortcut: f64 = residual.iter().map(|r| r.flat(position)).sum();
            let z = (value - mean) * inverse * weight.flat(channel) + bias.flat(channel) + shortcut;
            y.set(position, norm.options.activation.reference(z));
        }
    }
    Ok(if norm.options.training { vec![y, affine, new_mean, new_var] } else { vec![y, affine] })
}

/// How large the terms are that cancel.
pub(super) fn summed(norm: &BatchNorm, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
    // dx is a (g - mean(g) - xhat mean(g xhat)), a the third row of affine.
    let largest = |affine: &Array| affine.rows().nth(3).map_or(0.0, |a| a.iter().fold(0.0, |m: f64, a| m.max(a.abs())));
    let affine = || norm.reference(inputs).ok()?.get(1).map(largest);
    if gradient_of == Some(0) && norm.options.training { 2.0 * affine().unwrap_or(0.0) } else { 0.0 }
}

/// x is read twice where its statistics are not given.
pub(super) fn cost(norm: &BatchNorm, inputs: &[Spec], outputs: &[Spec]) -> Cost {
    let x = inputs.first();
    let (bytes, elements) = (x.map_or(0, Spec::bytes), x.map_or(0, |s| s.shape.numel()));
    let streaming = Cost::streaming(inputs, outputs, 0.0);
    // Statistics read x once more: 4 operations an element, and 3 to normalise.
    let (flops, again) = if norm.options.training && !norm.statistics { (7.0, bytes as f64) } else { (3.0, 0.0) };
    Cost { flops: flops * elements as f64, bytes: streaming.bytes + again }
}

/// The inputs for x of `shape` around `shift`.
fn sample_inputs(shape: &[usize], scale: f64, shift: f64) -> Vec<Input> {
    let c = shape.last().copied().unwrap_or(1);
    vec![normal_with(shape, scale, shift), uniform([c], 0.5, 1.5), normal([c]), normal_with([c], scale, shift), uniform([c], 0.5, 1.5)]
}

/// What it is tested on.
pub(super) fn samples(training: bool) -> Vec<Sample> {
    let with = |activation| BatchNorm::new(BatchNormFuncOptions { activation, training, ..Default::default() });
    let plain = [&[2, 1][..], &[33, 7], &[3, 5, 7, 12], &[5, 65], &[2, 9, 9, 33], &[7, 3, 3, 72], &[1, 5, 7, 132], &[1500, 4], &[700, 3]];
    let mut samples: Vec<Sample> = plain.iter().map(|shape| Sample::new(with(Activation::None), sample_inputs(shape, 2.0, 1.5))).collect();
    for activation in Activation::ALL {
        samples.push(Sample::new(with(activation), sample_inputs(&[33, 3], 3.0, 0.5)));
        let mut inputs = sample_inputs(&[3, 5, 5, 8], 3.0, 0.5);
        inputs.push(normal([3, 5, 5, 8]));
        samples.push(Sample::new(with(activation), inputs));
    }
    let mut same = sample_inputs(&[65, 5], 1.0, 0.0);
    same.push(Input::Same(0));
    samples.push(Sample::new(with(Activation::Relu), same));
    if training {
        // A mean a thousand deviations away.
        samples.push(Sample::new(with(Activation::None), sample_inputs(&[400, 8], 1.0, 1000.0)));
        // Large enough to be walked in slabs everywhere.
        samples.push(Sample::new(with(Activation::Silu), sample_inputs(&[3990, 33], 1.0, 100.0)));
        samples.push(Sample::new(with(Activation::Silu), sample_inputs(&[8200, 68], 2.0, 0.5)));
        // Squares overflow.
        samples.push(Sample::new(with(Activation::None), sample_inputs(&[8200, 4], 1e19, 0.0)));
        // With statistics that were brought along; a mean a hundred deviations away, and a
        // residual.
        for (shape, residual) in [
            (&[64, 4][..], false),
            (&[5, 13, 3], true),
            (&[3, 9, 9, 40], true),
            (&[4200, 3], false),
            (&[17_000, 8], false),
            (&[16_450, 3], true),
        ] {
            let mut inputs = sample_inputs(shape, 1.0, 0.0);
            let x = Array::from_fn(shape, |at| at.iter().fold(100.0, |sum, i| sum + f64::from((*i as f32 * 1.7 + sum as f32).sin())));
            let x = x.map(|v| f64::from(v as f32));
            inputs.push(Input::Values(statistics::reference(&x)));
            inputs.splice(..1, [Input::Values(x)]);
            inputs.extend(residual.then(|| normal(shape)));
            samples.push(Sample::new(with(Activation::Silu).with_statistics(), inputs));
        }
    } else {
        samples.push(Sample::new(with(Activation::Relu), sample_inputs(&[0, 8], 1.0, 0.0)));
    }
    samples
}

/// What it must refuse.
pub(super) fn bad(training: bool) -> Vec<Bad> {
    let operator = || BatchNorm::new(BatchNormFuncOptions { training, ..Default::default() });
    let replaced = |index: usize, input: Input| {
        let mut inputs = sample_inputs(&[4, 3], 1.0, 0.0);
        if let Some(slot) = inputs.get_mut(index) {
            *slot = input;
        }
        inputs
    };
    let mut residual = sample_inputs(&[4, 3], 1.0, 0.0);
    residual.push(normal([3, 4]));
    let mut statistics = sample_inputs(&[4, 3], 1.0, 0.0);
    statistics.push(normal([4, 3]));
    let set = |eps: f32, momentum: f32| BatchNorm::new(BatchNormFuncOptions { training, eps, momentum, ..Default::default() });
    let mut bad = vec![
        Bad::new(set(-1.0, 0.1), sample_inputs(&[4, 3], 1.0, 0.0), "eps must be finite and at least 0, found -1"),
        Bad::new(set(f32::INFINITY, 0.1), sample_inputs(&[4, 3], 1.0, 0.0), "eps must be finite and at least 0, found inf"),
        Bad::new(set(1e-5, 2.0), sample_inputs(&[4, 3], 1.0, 0.0), "momentum must lie in 0..=1, found 2"),
        Bad::new(set(1e-5, f32::NAN), sample_inputs(&[4, 3], 1.0, 0.0), "momentum must lie in 0..=1, found NaN"),
        Bad::new(operator(), [normal([4, 3])], "1 inputs were given"),
        Bad::new(operator(), replaced(0, normal([3])), "rank 2 or more"),
        Bad::new(operator(), replaced(1, normal([4])), "weight must have shape [3]"),
        Bad::new(operator(), replaced(4, indices([3], 2)), "running_var must be f32"),
        Bad::new(operator(), residual, "residual must be like x"),
        Bad::new(operator().with_statistics(), sample_inputs(&[4, 3], 1.0, 0.0), "5 inputs were given"),
        Bad::new(operator().with_statistics(), statistics, "statistics of x of shape [4, 3] must be f32 [1, 2, 3]"),
    ];
    if training {
        bad.push(Bad::new(operator(), sample_inputs(&[1, 1, 1, 3], 1.0, 0.0), "expected more than 1 value per channel"));
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, GpuOptions};
    use crate::tensor::{DType, Tensor};
    use half::f16;

    /// x, y and their gradients stored as f16 differ from f32 by rounding alone; parameters'
    /// gradients hardly at all.
    #[test]
    fn f16_storage_only_rounds() {
        let gpu = Gpu::with(GpuOptions { poison: true, ..GpuOptions::from_env().unwrap() }).unwrap();
        if !gpu.capabilities().f16 {
            let refused = crate::tensor::Tensor::zeros(&gpu, [1], crate::tensor::DType::F16);
            assert!(matches!(refused, Err(crate::error::Error::Limit { .. })));
            return;
        }
        for c in [5, 72] {
            let halves = |k: usize| -> Vec<f16> { (0..33 * c).map(|i| f16::from_f32(((i * k) % 101) as f32 / 25.0 - 2.0)).collect() };
            let vector = |from: f32| Tensor::from_slice(&gpu, &(0..c).map(|i| from + i as f32 * 0.01).collect::<Vec<_>>(), [c]).unwrap();
            let run = |storage: DType| -> Vec<Vec<f64>> {
                let upload = |values: Vec<f16>| match storage {
                    DType::F16 => Tensor::from_slice(&gpu, &values, [33, c]).unwrap(),
                    _ => Tensor::from_slice(&gpu, &values.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), [33, c]).unwrap(),
                };
                let (x, residual) = (upload(halves(37)).watch(), upload(halves(53)).watch());
                let (weight, bias) = (vector(0.5).watch(), vector(-0.3).watch());
                let options = BatchNormFuncOptions { activation: Activation::Hardswish, ..Default::default() };
                let y = x.batch_norm(&weight, &bias, &vector(0.0), &vector(1.0), &options, Some(&residual)).unwrap();
                let gradients = y.backward_from(&upload(halves(29))).unwrap();
                let found = [&x, &residual, &weight, &bias].map(|t| gradients.get(t).unwrap().to_f64().unwrap());
                [y.to_f64().unwrap()].into_iter().chain(found).collect()
            };
            for (half, full) in run(DType::F16).iter().zip(&run(DType::F32)) {
                let largest = full.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                assert!(half.iter().zip(full).all(|(h, f)| (h - f).abs() <= 1e-3 * largest));
            }
        }
    }
}

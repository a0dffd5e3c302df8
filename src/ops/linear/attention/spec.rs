//! What attention must give: the float64 reference, samples, bad inputs, and what it costs.

use super::ScaledDotProductAttention;
use crate::error::Result;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Cost};
use crate::tensor::Spec;

/// Plain loops in float64: each query over the keys that it sees.
pub(super) fn reference(attention: &ScaledDotProductAttention, inputs: &[Array]) -> Result<Vec<Array>> {
    let ([q, k, v] | [q, k, v, _]) = inputs else { return Ok(Vec::new()) };
    let mask = inputs.get(3);
    let (keys, depth) = (k.shape.dim(2), k.shape.dim(3));
    // (score, key) of every key that a query may see.
    let seen = |b: usize, h: usize, l: usize| -> Vec<(f64, usize)> {
        let score = |s: usize| (0..depth).map(|d| q.at(&[b, h, l, d]) * k.at(&[b, h, s, d])).sum::<f64>() / (depth as f64).sqrt();
        let shown = |s: &usize| mask.is_none_or(|m| m.at(&[b, *s]) != 0.0) && (!attention.causal || *s <= l);
        (0..keys).filter(shown).map(|s| (score(s), s)).collect()
    };
    let largest = |scores: &[(f64, usize)]| scores.iter().fold(f64::NEG_INFINITY, |m, (score, _)| m.max(*score));
    let sum = |scores: &[(f64, usize)]| scores.iter().map(|(score, _)| (score - largest(scores)).exp()).sum::<f64>();
    let stats = Array::from_fn(q.shape.with(3, 2), |index| {
        let [b, h, l, which] = index else { return f64::NAN };
        let scores = seen(*b, *h, *l);
        if scores.is_empty() {
            0.0
        } else if *which == 0 {
            largest(&scores)
        } else {
            sum(&scores)
        }
    });
    let y = Array::from_fn(q.shape.with(3, v.shape.dim(3)), |index| {
        let [b, h, l, e] = index else { return f64::NAN };
        let (largest, sum) = (stats.at(&[*b, *h, *l, 0]), stats.at(&[*b, *h, *l, 1]));
        let scores = seen(*b, *h, *l);
        // A hidden key weighs 0.
        let weight = |s: usize| scores.iter().find(|(_, key)| *key == s).map_or(0.0, |(score, _)| (score - largest).exp() / sum);
        (0..keys).map(|s| weight(s) * v.at(&[*b, *h, s, *e])).sum()
    });
    Ok(vec![y, stats])
}

/// Two products and about five operations a score; a causal one still computes all.
pub(super) fn cost(inputs: &[Spec], outputs: &[Spec]) -> Cost {
    let streaming = Cost::streaming(inputs, outputs, 0.0);
    let [q, k, v, ..] = inputs else { return streaming };
    let scores = q.shape.iter().take(3).product::<usize>() as f64 * k.shape.dim(2) as f64;
    Cost { flops: scores * (2.0 * (k.shape.last() + v.shape.last()) as f64 + 5.0), ..streaming }
}

/// What it is tested on.
pub(super) fn samples() -> Vec<Sample> {
    let sizes: [[usize; 6]; 7] = [
        [1, 1, 1, 1, 1, 1],
        [2, 3, 5, 7, 3, 3],
        [1, 2, 33, 33, 8, 8],
        [2, 1, 7, 5, 16, 4],
        [1, 1, 3, 65, 5, 2],
        [0, 2, 3, 3, 4, 4],
        [1, 1, 3, 0, 4, 4],
    ];
    let inputs = |[b, h, l, s, d, e]: [usize; 6]| vec![normal([b, h, l, d]), normal_with([b, h, s, d], 2.0, 0.0), normal([b, h, s, e])];
    let mut samples = Vec::new();
    for causal in [false, true] {
        for size @ [batch, _, _, keys, ..] in sizes {
            let operator = ScaledDotProductAttention { causal };
            samples.push(Sample::new(operator, inputs(size)));
            let mask = indices([batch, keys], 2);
            samples.push(Sample::new(operator, inputs(size).into_iter().chain([mask]).collect::<Vec<_>>()));
        }
        let operator = ScaledDotProductAttention { causal };
        samples.push(Sample::new(operator, [normal([1, 2, 5, 4]), Input::Same(0), Input::Same(0)]));
        // The second image's keys are all hidden.
        let hidden = Input::Values(Array::integers([2, 3], vec![1.0, 0.0, 1.0, 0.0, 0.0, 0.0]));
        samples.push(Sample::new(operator, [normal([2, 1, 3, 4]), normal([2, 1, 3, 4]), normal([2, 1, 3, 4]), hidden]));
    }
    samples
}

/// What it must refuse.
pub(super) fn bad() -> Vec<Bad> {
    let operator = ScaledDotProductAttention::default();
    let x = || normal([2, 3, 5, 4]);
    vec![
        Bad::new(operator, [x(), x()], "2 inputs were given"),
        Bad::new(operator, [normal([3, 5, 4]), normal([3, 5, 4]), normal([3, 5, 4])], "expected q [B, H, L, D]"),
        Bad::new(operator, [x(), normal([2, 3, 5, 3]), x()], "expected q [B, H, L, D]"),
        Bad::new(operator, [x(), x(), normal([2, 3, 6, 4])], "expected q [B, H, L, D]"),
        Bad::new(operator, [x(), x(), indices([2, 3, 5, 4], 2)], "floats of one type"),
        Bad::new(operator, [x(), x(), x(), normal([2, 5])], "mask must be i32"),
        Bad::new(operator, [x(), x(), x(), indices([2, 4], 2)], "mask must be [2, 5], found [2, 4]"),
    ]
}

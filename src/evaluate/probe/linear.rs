//! The linear probe: a linear classifier on frozen features, by AdamW along half a cosine. Few rows
//! are learnt all at once, many in batches.

use crate::capture::Capture;
use crate::error::Result;
use crate::evaluate::argmax;
use crate::gpu::{Gpu, ScalarCell};
use crate::nn::{Linear, Mode, Module, Parameters};
use crate::optim::{AdamOptions, AdamW, Optimizer, OptimizerOptions, Schedule};
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

use super::features::Features;

/// Most rows that are one batch.
const WHOLE: usize = 8192;
/// Rows of a batch where there are more.
const BATCH: usize = 1024;
/// Least steps, and least passes over batches.
const STEPS: u64 = 150;
const PASSES: usize = 10;

/// The classifier `classifier` of `classes` that is fitted to the rows of `x`.
///
/// # Errors
/// Out of memory; a lost device.
pub fn fit(gpu: &Gpu, x: &Features, labels: &[i32], classes: usize, seed: u32) -> Result<Linear> {
    let params = Parameters::new(gpu, seed);
    let classifier = Linear::new(&params, "classifier", x.width(), classes)?;
    let common = OptimizerOptions { weight_decay: 0.5, ..Default::default() };
    let mut optimizer = AdamW::new(&params, AdamOptions { common, ..Default::default() })?;
    let rows = x.len();
    let whole = rows <= WHOLE;
    let steps = if whole { STEPS } else { STEPS.max((PASSES * rows / BATCH) as u64) };
    let schedule = Schedule::Cosine { rate: 0.02, end: 0.0, steps };
    let range = Some((0, i32::try_from(classes).unwrap_or(i32::MAX) - 1));
    let upload = |x: &Features, y: &[i32]| Ok(vec![x.upload(gpu)?, Tensor::from_slice(gpu, y, [y.len()])?.with_range(range)?]);
    let all = if whole { upload(x, labels)? } else { Vec::new() };
    let mut batches = batches(rows, BATCH, seed);
    let mut draw = || {
        let places = batches.next().unwrap_or_default();
        let labels: Vec<i32> = places.iter().filter_map(|i| labels.get(*i)).copied().collect();
        upload(&x.pick(&places), &labels)
    };
    let (mut captured, rate) = (Capture::new(gpu), ScalarCell::new(0.0f32));
    for step in 0..steps {
        rate.set(schedule.rate(step));
        let batch = if whole { all.clone() } else { draw()? };
        captured.run(&batch, |batch| {
            if let [x, y] = batch.as_slice() {
                let loss = classifier.forward(x, Mode::Train)?.cross_entropy(y, 0.0)?;
                optimizer.step(&loss.backward()?, &rate)?;
            }
            Ok(())
        })?;
    }
    Ok(classifier)
}

/// The part of the rows of `x` that `classifier` gives the right label.
///
/// # Errors
/// Out of memory; a lost device.
pub fn accuracy(gpu: &Gpu, classifier: &Linear, x: &Features, labels: &[i32]) -> Result<f64> {
    Ok(share_right(&x.map(gpu, |x| classifier.forward(x, Mode::Eval))?, labels))
}

/// The part of the rows of logits, or votes, whose largest is the label's.
pub(super) fn share_right(logits: &[f32], labels: &[i32]) -> f64 {
    let rows = logits.chunks_exact((logits.len() / labels.len().max(1)).max(1));
    let right = rows.zip(labels).filter(|(row, label)| argmax(row) as i32 == **label).count();
    right as f64 / labels.len().max(1) as f64
}

/// Places below `count` without end, `size` at once: all of them in a random order, then in
/// another.
pub(super) fn batches(count: usize, size: usize, seed: u32) -> impl Iterator<Item = Vec<usize>> {
    let mut places = (0..).flat_map(move |pass| Stream::keyed(seed, Purpose::Shuffle.key(), pass).permutation(count as u32));
    std::iter::from_fn(move || Some(places.by_ref().take(size).map(|i| i as usize).collect()))
}

//! Running a network over a data set: accuracy, confusion, features.

use std::sync::Arc;

use super::images::result_size;
use crate::data::{Augmentation, Dataset, HostBatch, Loader, PackedBatch};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::nn::{Mode, Module};

/// Images a step when nothing is recorded, and pixels at most.
const BATCH: usize = 250;
const PIXELS: usize = BATCH * 64 * 64;

/// How well a classifier does.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// `confusion[true class][predicted class]` counts images.
    pub confusion: Vec<Vec<usize>>,
    /// Mean cross entropy.
    pub loss: f64,
}

impl Evaluation {
    /// The part of images whose class was predicted.
    pub fn accuracy(&self) -> f64 {
        let total: usize = self.confusion.iter().flatten().sum();
        let right: usize = self.confusion.iter().enumerate().filter_map(|(i, row)| row.get(i)).sum();
        right as f64 / total.max(1) as f64
    }
}

/// A batch of `dataset` on the device.
///
/// # Errors
/// Out of memory.
pub fn upload(gpu: &Gpu, batch: &HostBatch, dataset: &Dataset) -> Result<PackedBatch> {
    let channels = dataset.channels();
    PackedBatch::upload(gpu, batch, [dataset.height(), dataset.width(), channels], channels)
}

/// The output of `model` for every image of `dataset`, in its order, `width` values an image, after `preprocessing` with the draws of
/// `view`.
///
/// # Errors
/// Those of the model and of the data.
pub fn outputs(gpu: &Gpu, model: &dyn Module, dataset: &Arc<Dataset>, preprocessing: &Augmentation, view: u32) -> Result<Vec<f32>> {
    let mut rows = Vec::new();
    let mut pending = Vec::new();
    let [height, width] = result_size(preprocessing, [dataset.height(), dataset.width()]);
    let size = (PIXELS / (height * width).max(1)).clamp(1, BATCH);
    for batch in Loader::evaluation(dataset.clone(), size)?.epoch(0) {
        let batch = upload(gpu, &batch?, dataset)?.unpack()?;
        let images = preprocessing.apply(&batch, 0, view)?;
        pending.push(model.forward(&images, Mode::Eval)?.read_later()?);
    }
    for read in pending {
        rows.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&read.wait()?));
    }
    Ok(rows)
}

/// The index of the largest value, the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    let best = row.iter().enumerate().fold(None, |best: Option<(usize, f32)>, (i, v)| match best {
        Some((_, top)) if *v <= top => best,
        _ => Some((i, *v)),
    });
    best.map_or(0, |(i, _)| i)
}

/// Classifies every image of `dataset`.
///
/// # Errors
/// Those of the model and of the data.
pub fn evaluate(gpu: &Gpu, model: &dyn Module, dataset: &Arc<Dataset>, preprocessing: &Augmentation) -> Result<Evaluation> {
    let classes = dataset.classes();
    let logits = outputs(gpu, model, dataset, preprocessing, 0)?;
    Ok(judge(&logits, dataset.labels(), classes))
}

/// Compares rows of logits with the labels.
pub fn judge(logits: &[f32], labels: &[i32], classes: usize) -> Evaluation {
    let mut confusion = vec![vec![0; classes]; classes];
    let mut loss = 0.0;
    for (row, label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        let label = usize::try_from(*label).unwrap_or(0);
        let top = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
        let sum: f64 = row.iter().map(|v| (f64::from(*v) - top).exp()).sum();
        loss += top + sum.ln() - row.get(label).map_or(f64::NAN, |v| f64::from(*v));
        if let Some(count) = confusion.get_mut(label).and_then(|r| r.get_mut(argmax(row))) {
            *count += 1;
        }
    }
    Evaluation { confusion, loss: loss / labels.len().max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_and_loss_of_known_logits() {
        let found = judge(&[2.0, 0.0, 0.0, 1.0, 3.0, 3.0], &[0, 0, 1], 2);
        assert_eq!(found.confusion, vec![vec![1, 1], vec![1, 0]]);
        assert!((found.accuracy() - 1.0 / 3.0).abs() < 1e-12);
        let expected = (0.126_928 + 1.313_262 + std::f64::consts::LN_2) / 3.0;
        assert!((found.loss - expected).abs() < 1e-5, "{}", found.loss);
    }
}

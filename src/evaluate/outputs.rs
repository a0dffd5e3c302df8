//! Running a network over a data set: accuracy, confusion, features.

use std::sync::Arc;

use crate::data::{Augmentation, Dataset, ImageOptions, LabelledFile, Loader, PackedBatch, PictureBatch, stream_pictures};
use crate::error::{Result, require_finite_rows};
use crate::gpu::{Gpu, Pending};
use crate::nn::{Mode, Module};
use crate::tensor::{DType, InputShape};
use crate::train::images::result_size;

/// Images a step when nothing is recorded, and pixels at most.
const BATCH: usize = 250;
const PIXELS: usize = BATCH * 64 * 64;

/// How well a classifier does on the images that were [added](Self::add).
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// `confusion[true class][predicted class]` counts images.
    pub confusion: Vec<Vec<usize>>,
    /// The sum of the cross entropies.
    entropy: f64,
    /// Images whose class is among the first five.
    among_five: usize,
}

impl Evaluation {
    /// Of no images yet.
    pub fn new(classes: usize) -> Self {
        Self { confusion: vec![vec![0; classes]; classes], entropy: 0.0, among_five: 0 }
    }

    /// Compares rows of logits with the labels; images without one do not count.
    ///
    /// # Errors
    /// As [`require_finite_rows`]; nothing was added then.
    pub fn add(&mut self, logits: &[f32], labels: &[i32]) -> Result<()> {
        require_finite_rows("logits", logits, self.confusion.len())?;
        for (row, label) in logits.chunks_exact(self.confusion.len().max(1)).zip(labels) {
            let Ok(label) = usize::try_from(*label) else { continue };
            let own = row.get(label).copied().unwrap_or(f32::NAN);
            let top = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
            let sum: f64 = row.iter().map(|v| (f64::from(*v) - top).exp()).sum();
            self.entropy += top + sum.ln() - f64::from(own);
            // Of equals the first counts as the larger one, as in `argmax`.
            let before = row.iter().enumerate().filter(|(i, v)| **v > own || (**v == own && *i < label)).count();
            self.among_five += usize::from(before < 5);
            if let Some(count) = self.confusion.get_mut(label).and_then(|r| r.get_mut(argmax(row))) {
                *count += 1;
            }
        }
        Ok(())
    }

    /// How many images were added.
    pub fn images(&self) -> usize {
        self.confusion.iter().flatten().sum()
    }

    /// The part of images whose class was predicted: top-1.
    pub fn accuracy(&self) -> f64 {
        let right: usize = self.confusion.iter().enumerate().filter_map(|(i, row)| row.get(i)).sum();
        right as f64 / self.images().max(1) as f64
    }

    /// The part of images whose class is among the five likeliest.
    pub fn top_5(&self) -> f64 {
        self.among_five as f64 / self.images().max(1) as f64
    }

    /// Mean cross entropy.
    pub fn loss(&self) -> f64 {
        self.entropy / self.images().max(1) as f64
    }

    /// Mistakes as (true class, predicted class, images), the most frequent first.
    pub fn mistakes(&self) -> Vec<(usize, usize, usize)> {
        let rows = self.confusion.iter().enumerate();
        let cells = rows.flat_map(|(truth, row)| row.iter().enumerate().map(move |(found, count)| (truth, found, *count)));
        let mut mistakes: Vec<_> = cells.filter(|(truth, found, count)| truth != found && *count > 0).collect();
        mistakes.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        mistakes
    }
}

/// The output of `model` for every image of `dataset`, in its order, `width` values an image, after
/// `preprocessing` with the draws of `view`.
///
/// # Errors
/// Those of the model and of the data; as [`require_finite_rows`].
pub fn outputs(gpu: &Gpu, model: &dyn Module, dataset: &Arc<Dataset>, preprocessing: &Augmentation, view: u32) -> Result<Vec<f32>> {
    let mut rows = Vec::new();
    let mut pending = Vec::new();
    let area = match dataset.input() {
        InputShape::Image([height, width, _]) => result_size(preprocessing, [height, width]).iter().product(),
        InputShape::Tokens(length) => length,
    };
    let size = (PIXELS / area.max(1)).clamp(1, BATCH);
    for batch in Loader::evaluation(dataset.clone(), size)?.epoch(0) {
        let batch = PackedBatch::upload(gpu, &batch?)?.unpack()?;
        let images = preprocessing.apply(&batch, 0, view)?;
        pending.push(model.forward(&images, Mode::Eval)?.cast(DType::F32)?.read_later()?);
    }
    for read in pending {
        rows.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&read.wait()?));
    }
    require_finite_rows(&format!("the network's outputs for {}", dataset.name()), &rows, rows.len() / dataset.len().max(1))?;
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
/// As [`outputs`].
pub fn evaluate(gpu: &Gpu, model: &dyn Module, dataset: &Arc<Dataset>, preprocessing: &Augmentation) -> Result<Evaluation> {
    let mut found = Evaluation::new(dataset.classes());
    found.add(&outputs(gpu, model, dataset, preprocessing, 0)?, dataset.labels())?;
    Ok(found)
}

/// Runs `model` on pictures as they are read: hands each batch with its rows of outputs to `each`,
/// in the order of `files`.
///
/// # Errors
/// As [`stream_pictures`]; those of the model; as [`require_finite_rows`], naming the first
/// picture; the first of `each`.
pub fn stream_outputs(
    gpu: &Gpu,
    model: &dyn Module,
    files: &[LabelledFile],
    classes: usize,
    input: &PictureInput,
    mut each: impl FnMut(&PictureBatch, &[f32]) -> Result<()>,
) -> Result<()> {
    let preprocessing = &input.preprocessing;
    // One batch behind, so that neither host nor device waits for the other.
    let mut running: Option<(PictureBatch, Option<Pending>)> = None;
    let mut hand_over = |(pictures, outputs): (PictureBatch, Option<Pending>)| {
        let outputs = bytemuck::pod_collect_to_vec::<u8, f32>(&outputs.map_or(Ok(vec![]), Pending::wait)?);
        let width = outputs.len() / pictures.batch.indices.len().max(1);
        for (place, row) in pictures.batch.indices.iter().zip(outputs.chunks(width.max(1))) {
            let name = files.get(*place as usize).map_or_else(String::new, |(file, _)| file.display().to_string());
            require_finite_rows(&format!("{name}: the network's outputs"), row, width)?;
        }
        each(&pictures, &outputs)
    };
    stream_pictures(files, classes, input.options, input.batch, |pictures| {
        let outputs = if pictures.batch.indices.is_empty() {
            None
        } else {
            let images = preprocessing.apply(&PackedBatch::upload(gpu, &pictures.batch)?.unpack()?, 0, 0)?;
            Some(model.forward(&images, Mode::Eval)?.cast(DType::F32)?.read_later()?)
        };
        running.replace((pictures, outputs)).map_or(Ok(()), &mut hand_over)
    })?;
    running.map_or(Ok(()), hand_over)
}

/// How picture files become batches of a network's input.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureInput {
    /// Size, colour, crop.
    pub options: ImageOptions,
    /// What is done to pictures of that size.
    pub preprocessing: Augmentation,
    /// Pictures at once.
    pub batch: usize,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn accuracy_and_loss_of_known_logits() {
        let mut found = Evaluation::new(2);
        found.add(&[2.0, 0.0, 0.0, 1.0], &[0, 0]).unwrap();
        found.add(&[3.0, 3.0], &[1]).unwrap();
        assert_eq!(found.confusion, vec![vec![1, 1], vec![1, 0]]);
        approx::assert_abs_diff_eq!(found.accuracy(), 1.0 / 3.0, epsilon = 1e-12);
        let expected = (0.126_928 + 1.313_262 + std::f64::consts::LN_2) / 3.0;
        found.add(&[0.0, 9.0], &[-1]).unwrap();
        approx::assert_abs_diff_eq!(found.loss(), expected, epsilon = 1e-5);
        assert_eq!((found.images(), found.top_5(), found.mistakes()), (3, 1.0, vec![(0, 1, 1), (1, 0, 1)]));
    }

    #[test]
    fn the_fifth_place_counts_and_the_sixth_does_not() {
        let mut found = Evaluation::new(7);
        let row = [6.0, 5.0, 4.0, 3.0, 2.0, 2.0, 0.0];
        found.add(&[row; 3].concat(), &[4, 5, 0]).unwrap();
        approx::assert_abs_diff_eq!(found.top_5(), 2.0 / 3.0, epsilon = 1e-12);
        assert_eq!(found.mistakes(), [(4, 0, 1), (5, 0, 1)]);
    }

    #[test]
    fn logits_that_are_not_finite_are_no_answer() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut found = Evaluation::new(3);
            let rows = [0.0, 1.0, 2.0, 0.0, bad, 2.0, bad, bad, bad, 1.0, 1.0, 0.0];
            let error = found.add(&rows, &[2, 2, 0, 0]).unwrap_err().to_string();
            assert!(error.contains("2 of 4 rows hold NaN or infinity, the first is row 1"), "{error}");
            assert_eq!(found, Evaluation::new(3));
        }
    }
}

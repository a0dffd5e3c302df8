//! Fine-tuning: the whole network with a linear head, from the run's weights and from scratch, on
//! few labels.
//!
//! One protocol for every number of labels: batches of 64 views, each image in as many new views of
//! the probe's augmentation as its turn comes (so ten images are a full batch, too); AdamW with
//! weight decay 0.05 on weights, gradients clipped to 1. The head, which begins with zeros, learns
//! alone in 100 steps at up to 0.02: a random head's gradients would spoil good features (Kumar et
//! al. 2022, arXiv:2202.10054). Then all learn, one cycle up to the rate in 200 steps, or in 5
//! passes where that is more; one rate for all layers; batch norm by the batch, judged by its
//! running statistics.

use std::ops::Range;
use std::sync::Arc;

use super::linear::{batches, share_right};
use super::report::Source;
use super::{ProbeSubject, RANDOM};
use crate::capture::Capture;
use crate::data::{Augmentation, Dataset, HostBatch, PackedBatch};
use crate::error::Result;
use crate::evaluate::outputs;
use crate::gpu::{Gpu, ScalarCell};
use crate::io::Archive;
use crate::models::Backbone;
use crate::nn::{Init, Linear, LinearOptions, Mode, Module, Parameters, Role, Summary, state_dict};
use crate::optim::{AdamOptions, AdamW, Optimizer, OptimizerOptions, Schedule};
use crate::tensor::{Shape, Tensor};

/// Views of a step.
const BATCH: usize = 64;
/// Steps of the head alone, and their highest rate.
const HEAD_STEPS: u64 = 100;
const HEAD_RATE: f32 = 0.02;
/// Least steps of all layers, and least passes over the images.
const STEPS: u64 = 200;
const PASSES: usize = 5;
/// The highest rate, where none is asked for. Small convolutional networks take more.
pub const RATE: f32 = 1e-3;

/// What runs of fine-tuning share.
pub struct Tuner<'a> {
    gpu: &'a Gpu,
    subject: &'a ProbeSubject<'a>,
    augmentation: &'a Augmentation,
    test_view: u32,
    rate: f32,
    weights: Archive,
}

/// An encoder with a head of its own.
struct Tuned {
    encoder: Box<dyn Backbone>,
    head: Linear,
}

impl Module for Tuned {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.forward(&self.encoder.forward(x, mode)?, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let features = self.encoder.summarize(input, summary)?;
        self.head.summarize(&features, summary)
    }
}

impl<'a> Tuner<'a> {
    /// Reads the weights to begin from; they stay as they are. `test_view` is the view that test
    /// images are judged in, `rate` the highest learning rate.
    ///
    /// # Errors
    /// A lost device.
    pub fn new(gpu: &'a Gpu, subject: &'a ProbeSubject, (augmentation, test_view): (&'a Augmentation, u32), rate: f32) -> Result<Self> {
        let mut weights = state_dict::to_archive(subject.params)?;
        // The encoder's alone: what stands behind it is made anew.
        let own = Parameters::new(gpu, 0);
        subject.recipe.encoder(&own, subject.train)?;
        let own = state_dict::to_archive(&own)?.tensors;
        weights.tensors.retain(|name, _| own.contains_key(name));
        Ok(Self { gpu, subject, augmentation, test_view, rate, weights })
    }

    /// The accuracy on augmented test images after learning from `images`: beginning with the run's
    /// weights, or of [`Source::Random`] with new ones. `seed` decides these, and order and views
    /// of the images.
    ///
    /// # Errors
    /// Those of the network; out of memory.
    pub fn accuracy(&self, images: &Arc<Dataset>, source: Source, seed: u32) -> Result<f64> {
        let ProbeSubject { recipe, train, test, .. } = *self.subject;
        let params = Parameters::new(self.gpu, recipe.seed.wrapping_add(RANDOM).wrapping_add(seed));
        let encoder = recipe.encoder(&params, train)?;
        if source == Source::Trained {
            state_dict::fill(&params, &self.weights, "the run", &[])?;
        }
        let options = LinearOptions { init: Some(Init::ZEROS), ..Default::default() };
        let head = Linear::with(&params, "probe", encoder.features(), train.classes(), options)?;
        let network = Tuned { encoder, head };
        params.freeze("*", true)?;
        params.freeze("probe", false)?;
        if params.slots().iter().any(|slot| slot.role == Role::Statistic) {
            params.freeze("*running_*", false)?;
        }
        let head = Schedule::one_cycle(HEAD_RATE, HEAD_STEPS).with_pct_start(0.1);
        self.train(&network, &params, images, seed, 0..HEAD_STEPS, head)?;
        params.freeze("*", false)?;
        let steps = STEPS.max((PASSES * images.len() / BATCH) as u64);
        let all = Schedule::one_cycle(self.rate, steps).with_pct_start(0.1);
        self.train(&network, &params, images, seed, HEAD_STEPS..HEAD_STEPS + steps, all)?;
        let logits = outputs(self.gpu, &network, test, self.augmentation, self.test_view)?;
        Ok(share_right(&logits, test.labels()))
    }

    /// The steps `numbers`, by which images become new views each time.
    fn train(
        &self,
        network: &Tuned,
        params: &Parameters,
        images: &Dataset,
        seed: u32,
        numbers: Range<u64>,
        schedule: Schedule,
    ) -> Result<()> {
        let common = OptimizerOptions { weight_decay: 0.05, exclude_bias_and_norm: true, clip_norm: Some(1.0), ..Default::default() };
        let mut optimizer = AdamW::new(params, AdamOptions { common, ..Default::default() })?;
        let (mut captured, rate) = (Capture::new(self.gpu), ScalarCell::new(0.0f32));
        let augmentation = Augmentation { seed, ..self.augmentation.clone() };
        let begin = numbers.start;
        for (places, number) in batches(images.len(), BATCH, seed).zip(numbers) {
            rate.set(schedule.rate(number - begin));
            let first = number as u32 * BATCH as u32;
            let batch = HostBatch { indices: (first..).take(places.len()).collect(), ..HostBatch::of(images, &places)? };
            captured.run(&PackedBatch::upload(self.gpu, &batch)?, |batch| {
                let batch = batch.unpack()?;
                let views = augmentation.apply(&batch, 0, 0)?;
                let loss = network.forward(&views, Mode::Train)?.cross_entropy(&batch.labels, 0.0)?;
                optimizer.step(&loss.backward()?, &rate)
            })?;
        }
        Ok(())
    }
}

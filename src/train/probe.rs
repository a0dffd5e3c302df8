//! What an encoder has learnt: a linear classifier and nearest neighbours on its frozen features, always beside a randomly initialised
//! encoder of the same kind and raw pixels, by one protocol.
//!
//! A draw takes some labelled images of each class. Features of several augmented views of each are what the classifiers see; they are
//! judged on one augmented view of every test image (and, without a gate, on clean images, where raw pixels do well already). The three
//! kinds of features share the draws and the views, so their differences are paired.

use std::sync::Arc;

use serde_json::{Value, json};

use super::evaluate::{argmax, outputs};
use super::learner::learner;
use super::recipe::Recipe;
use crate::data::Dataset;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::methods::Clock;
use crate::models::Pixels;
use crate::nn::{Linear, Mode, Module, Parameters};
use crate::optim::{AdamConfig, AdamW, Common, Optimizer, Schedule};
use crate::tensor::Tensor;

/// How encoders are probed.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeOptions {
    /// Labelled images of each class.
    pub per_class: usize,
    /// Independent choices of them.
    pub draws: u32,
    /// Augmented views of each labelled image.
    pub views: u32,
    /// Decides the draws.
    pub seed: u32,
    /// The views' augmentation preset.
    pub augmentation: String,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { per_class: 20, draws: 5, views: 4, seed: 0, augmentation: "grey_simclr".into() }
    }
}

/// Accuracies of one kind of features, one value a draw.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Accuracies {
    /// `trained encoder`, `random encoder` or `raw pixels`.
    pub features: String,
    /// A linear classifier, on augmented test images.
    pub linear: Vec<f64>,
    /// Weighted nearest neighbours, on augmented test images.
    pub neighbours: Vec<f64>,
    /// A linear classifier, on clean test images.
    pub clean: Vec<f64>,
}

/// The mean and the standard deviation of a sample.
pub fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

impl Accuracies {
    /// As JSON, means with spread.
    pub fn to_json(&self) -> Value {
        let field = |values: &[f64]| {
            let (mean, spread) = mean_and_spread(values);
            json!({ "mean": mean, "spread": spread, "draws": values })
        };
        json!({ "features": self.features, "linear": field(&self.linear), "neighbours": field(&self.neighbours), "clean": field(&self.clean) })
    }
}

/// View numbers of test images start here, so that no test view is a training view's twin.
pub(super) const TEST_VIEW: u32 = 200;
/// Nearest neighbours that vote, and the temperature of their weights (Wu et al. 2018).
const NEIGHBOURS: usize = 20;
const NEIGHBOUR_TEMPERATURE: f32 = 0.07;
/// Full-batch steps of the linear classifier.
const STEPS: u64 = 150;

/// Probes the encoder in `trained` beside a random one and raw pixels.
///
/// # Errors
/// A class with fewer labelled images than asked for; those of the device.
pub fn probe(
    gpu: &Gpu,
    trained: &dyn Module,
    recipe: &Recipe,
    train: &Arc<Dataset>,
    test: &Arc<Dataset>,
    options: &ProbeOptions,
) -> Result<Vec<Accuracies>> {
    let random_params = Parameters::new(gpu, recipe.seed.wrapping_add(0x5eed));
    let random = learner(&random_params, recipe, train, Clock::default())?;
    let pixels = Pixels::new(recipe.input(train).iter().product());
    let kinds: [(&str, &dyn Module); 3] = [("trained encoder", trained), ("random encoder", random.encoder()), ("raw pixels", &pixels)];
    let augmentation = recipe.preprocessing(&options.augmentation, options.seed, train)?;
    let clean = recipe.preprocessing("none", 0, train)?;
    let mut results = Vec::new();
    for (name, encoder) in kinds {
        let test_views = outputs(gpu, encoder, test, &augmentation, TEST_VIEW)?;
        let test_clean = outputs(gpu, encoder, test, &clean, 0)?;
        let mut found = Accuracies { features: name.into(), ..Default::default() };
        for draw in 0..options.draws {
            let (labelled, _) = train.split(options.per_class, options.seed.wrapping_add(draw))?;
            let labelled = Arc::new(labelled);
            let (mut features, mut labels) = (Vec::new(), Vec::new());
            for view in 0..options.views {
                features.extend(outputs(gpu, encoder, &labelled, &augmentation, view)?);
                labels.extend_from_slice(labelled.labels());
            }
            let scale = Standardizer::fit(&features, features.len() / labels.len().max(1));
            let train_x = scale.upload(gpu, &features)?;
            let train_y = Tensor::from_slice(gpu, &labels, [labels.len()])?;
            let classifier = fit(gpu, &train_x, &train_y, train.classes(), options.seed)?;
            let test_x = scale.upload(gpu, &test_views)?;
            let classify = |x: &Tensor| {
                Ok::<_, crate::error::Error>(share_right(&classifier.forward(x, Mode::Eval)?.to_vec()?, test.labels(), train.classes()))
            };
            found.linear.push(classify(&test_x)?);
            found.clean.push(classify(&scale.upload(gpu, &test_clean)?)?);
            found.neighbours.push(nearest(&train_x, &labels, &test_x, test.labels(), train.classes())?);
        }
        results.push(found);
    }
    Ok(results)
}

fn share_right(logits: &[f32], labels: &[i32], classes: usize) -> f64 {
    let right = logits.chunks_exact(classes.max(1)).zip(labels).filter(|(row, label)| argmax(row) as i32 == **label).count();
    right as f64 / labels.len().max(1) as f64
}

/// Features shifted and scaled to mean 0 and deviation 1 on the labelled images.
struct Standardizer {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Standardizer {
    fn fit(features: &[f32], width: usize) -> Self {
        let rows = (features.len() / width.max(1)).max(1) as f64;
        let mut mean = vec![0.0f64; width];
        let mut square = vec![0.0f64; width];
        for row in features.chunks_exact(width.max(1)) {
            for ((m, s), v) in mean.iter_mut().zip(&mut square).zip(row) {
                *m += f64::from(*v) / rows;
                *s += f64::from(*v).powi(2) / rows;
            }
        }
        let scale = mean.iter().zip(&square).map(|(m, s)| (1.0 / ((s - m * m).max(0.0).sqrt() + 1e-5)) as f32).collect();
        Self { mean: mean.into_iter().map(|m| m as f32).collect(), scale }
    }

    fn upload(&self, gpu: &Gpu, features: &[f32]) -> Result<Tensor> {
        let width = self.mean.len();
        let rows = features.chunks_exact(width.max(1));
        let count = rows.len();
        let data: Vec<f32> = rows.flat_map(|row| row.iter().zip(&self.mean).zip(&self.scale).map(|((v, m), s)| (v - m) * s)).collect();
        Tensor::from_slice(gpu, &data, [count, width])
    }
}

/// A linear classifier fitted to all rows at once.
fn fit(gpu: &Gpu, x: &Tensor, y: &Tensor, classes: usize, seed: u32) -> Result<Linear> {
    let params = Parameters::new(gpu, seed);
    let classifier = Linear::new(&params, "classifier", x.shape().last(), classes)?;
    let common = Common { weight_decay: 0.5, ..Default::default() };
    let mut optimizer = AdamW::new(&params, AdamConfig { common, ..Default::default() })?;
    let schedule = Schedule::Cosine { rate: 0.02, end: 0.0, steps: STEPS };
    for step in 0..STEPS {
        let loss = classifier.forward(x, Mode::Train)?.cross_entropy(y, 0.0)?;
        optimizer.step(&loss.backward()?, schedule.rate(step))?;
    }
    Ok(classifier)
}

/// Weighted vote of the nearest labelled features by cosine.
fn nearest(train_x: &Tensor, train_y: &[i32], test_x: &Tensor, test_y: &[i32], classes: usize) -> Result<f64> {
    let k = NEIGHBOURS.min(train_y.len());
    let (values, indices) = test_x.similarity_matrix(train_x, 1.0)?.topk(k, 1)?;
    let (values, indices) = (values.to_vec::<f32>()?, indices.to_vec::<i32>()?);
    let mut votes = vec![0.0f32; test_y.len() * classes];
    let rows = votes.chunks_exact_mut(classes.max(1)).zip(values.chunks_exact(k.max(1)).zip(indices.chunks_exact(k.max(1))));
    for (row, (similarities, neighbours)) in rows {
        for (similarity, neighbour) in similarities.iter().zip(neighbours) {
            let label = usize::try_from(*neighbour).ok().and_then(|n| train_y.get(n)).and_then(|l| usize::try_from(*l).ok());
            if let Some(vote) = label.and_then(|l| row.get_mut(l)) {
                *vote += (similarity / NEIGHBOUR_TEMPERATURE).exp();
            }
        }
    }
    Ok(share_right(&votes, test_y, classes))
}

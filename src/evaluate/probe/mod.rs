//! What an encoder has learnt, asked in several ways (docs/evaluation.md), always beside a randomly
//! initialised encoder of the same kind and raw pixels, by one protocol each.
//!
//! A draw takes some labelled images of each class. Features of several augmented views of each are
//! what classifiers see; they are judged on one augmented view of every test image (and, without a
//! gate, on clean images, where raw pixels do well already). The three sources of features share
//! the draws and the views, so their differences are paired. What a row holds does not depend on
//! the other rows that are asked for.

pub mod features;
pub mod finetune;
pub mod geometry;
pub mod linear;
pub mod neighbours;
mod report;
pub mod retrieval;

use std::sync::Arc;

pub use features::Features;
pub use neighbours::Neighbours;
pub use report::{Protocol, Report, Row, Source, mean_and_spread};

use super::outputs::outputs;
use crate::data::{Augmentation, Dataset};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::models::Pixels;
use crate::nn::{Module, Parameters};
use crate::tensor::random::{Purpose, Stream};
use crate::train::recipe::Recipe;
use features::Standardizer;

/// View numbers of test images start here, so that no test view is a training view's twin.
pub(super) const TEST_VIEW: u32 = 200;
/// Images that one is to be found among.
const GALLERY: usize = 1000;
/// Views of labelled images at most, where one of each is not more.
const ROWS: usize = 50_000;
/// What the seed of a random encoder is away from the run's.
const RANDOM: u32 = 0x5eed;

/// How encoders are probed.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeOptions {
    /// Labelled images of each class, one row of results each; 0 for all that there are, which
    /// makes a single draw.
    pub labels: Vec<usize>,
    /// Independent choices of them, and of the images of retrieval.
    pub draws: u32,
    /// Augmented views of each labelled image, or of very many as many as make 50,000 rows.
    pub views: u32,
    /// Decides the draws.
    pub seed: u32,
    /// The views' augmentation preset.
    pub augmentation: String,
    /// How nearest neighbours vote.
    pub neighbours: Neighbours,
    /// The highest learning rate to fine-tune the whole network by, too, which takes much longer
    /// than all else; `None` not to do it.
    pub finetune: Option<f32>,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        let (augmentation, neighbours) = ("grey_simclr".into(), Neighbours::DINO);
        Self { labels: vec![10, 20], draws: 5, views: 4, seed: 0, augmentation, neighbours, finetune: None }
    }
}

/// An encoder, and what it was trained with.
#[derive(Clone, Copy)]
pub struct ProbeSubject<'a> {
    /// Images to features.
    pub encoder: &'a dyn Module,
    /// The run's parameters, which fine-tuning begins from.
    pub params: &'a Parameters,
    /// The run's recipe.
    pub recipe: &'a Recipe,
    /// Where labelled images are drawn from.
    pub train: &'a Arc<Dataset>,
    /// What is judged on.
    pub test: &'a Arc<Dataset>,
}

/// Probes an encoder beside a random one and raw pixels; `seen` is called with each row of the
/// report as it is ready.
///
/// # Errors
/// A class with fewer labelled images than asked for; an unknown augmentation; those of the device.
pub fn probe(gpu: &Gpu, subject: &ProbeSubject, options: &ProbeOptions, seen: &mut dyn FnMut(&Row)) -> Result<Report> {
    let ProbeSubject { recipe, train, test, .. } = *subject;
    let labelled = options.labels.iter().map(|n| Ok((*n, options.labelled(train, *n)?))).collect::<Result<Vec<_>>>()?;
    let augmentation = recipe.preprocessing(&options.augmentation, options.seed, train)?;
    let clean = recipe.preprocessing("none", 0, train)?;
    let random_params = Parameters::new(gpu, recipe.seed.wrapping_add(RANDOM));
    let random = recipe.encoder(&random_params, train)?;
    let pixels = Pixels::new(recipe.input(train).numel());
    let sources: [(Source, &dyn Module); 3] = [(Source::Trained, subject.encoder), (Source::Random, &random), (Source::Pixels, &pixels)];
    let mut report = Report::default();
    let mut add = |protocol, labels, source, draws| {
        let row = Row { protocol, labels, source, draws };
        seen(&row);
        report.rows.push(row);
    };
    for (source, encoder) in sources {
        let encode = |data: &Arc<Dataset>, pipeline: &Augmentation, view| encode(gpu, encoder, data, pipeline, view);
        let views = [encode(test, &augmentation, TEST_VIEW)?, encode(test, &augmentation, TEST_VIEW + 1)?];
        let clean = encode(test, &clean, 0)?;
        for (labels, draws) in &labelled {
            let [mut linear, mut neighbours, mut on_clean] = [const { Vec::new() }; 3];
            for images in draws {
                let (features, classes) = options.views(images, |view| encode(images, &augmentation, view))?;
                let scale = Standardizer::fit(&features);
                let [features, test_view, test_clean] = [&features, &views[0], &clean].map(|f| scale.apply(f));
                let classifier = linear::fit(gpu, &features, &classes, train.classes(), options.seed)?;
                linear.push(linear::accuracy(gpu, &classifier, &test_view, test.labels())?);
                on_clean.push(linear::accuracy(gpu, &classifier, &test_clean, test.labels())?);
                neighbours.push(options.neighbours.accuracy(gpu, (&features, &classes), (&test_view, test.labels()), train.classes())?);
            }
            add(Protocol::Linear, Some(*labels), source, linear);
            add(Protocol::Neighbours, Some(*labels), source, neighbours);
            add(Protocol::LinearClean, Some(*labels), source, on_clean);
        }
        let [mut instance, mut class, mut alignment, mut uniformity] = [const { Vec::new() }; 4];
        for gallery in options.galleries(test.len()) {
            let [first, second] = views.each_ref().map(|view| view.pick(&gallery));
            let classes: Vec<i32> = gallery.iter().filter_map(|i| test.label(*i)).collect();
            let found = retrieval::at_1(gpu, &first, &second, &classes)?;
            instance.push(found.instance);
            class.push(found.class);
            alignment.push(geometry::alignment(gpu, &first, &second)?);
            uniformity.push((geometry::uniformity(gpu, &first)? + geometry::uniformity(gpu, &second)?) / 2.0);
        }
        add(Protocol::InstanceRetrieval, None, source, instance);
        add(Protocol::ClassRetrieval, None, source, class);
        add(Protocol::Alignment, None, source, alignment);
        add(Protocol::Uniformity, None, source, uniformity);
    }
    if let Some(rate) = options.finetune {
        let tuner = finetune::Tuner::new(gpu, subject, (&augmentation, TEST_VIEW), rate)?;
        for (labels, draws) in &labelled {
            for source in [Source::Trained, Source::Random] {
                let one = |(images, seed): (_, u32)| tuner.accuracy(images, source, options.seed.wrapping_add(seed));
                add(Protocol::Finetune, Some(*labels), source, draws.iter().zip(0..).map(one).collect::<Result<_>>()?);
            }
        }
    }
    report.gallery = test.len().min(GALLERY);
    Ok(report)
}

/// The accuracy on clean test images of a linear classifier on the encoder's features, draw by
/// draw: of all that [`probe`] finds, the row [`Protocol::LinearClean`] of `labels` images a class.
///
/// # Errors
/// As [`probe`].
pub fn linear_clean(gpu: &Gpu, subject: &ProbeSubject, options: &ProbeOptions, labels: usize) -> Result<Vec<f64>> {
    let ProbeSubject { encoder, recipe, train, test, .. } = *subject;
    let augmentation = recipe.preprocessing(&options.augmentation, options.seed, train)?;
    let clean = encode(gpu, encoder, test, &recipe.preprocessing("none", 0, train)?, 0)?;
    let one = |images: &Arc<Dataset>| {
        let (features, classes) = options.views(images, |view| encode(gpu, encoder, images, &augmentation, view))?;
        let scale = Standardizer::fit(&features);
        let classifier = linear::fit(gpu, &scale.apply(&features), &classes, train.classes(), options.seed)?;
        linear::accuracy(gpu, &classifier, &scale.apply(&clean), test.labels())
    };
    options.labelled(train, labels)?.iter().map(one).collect()
}

fn encode(gpu: &Gpu, encoder: &dyn Module, data: &Arc<Dataset>, pipeline: &Augmentation, view: u32) -> Result<Features> {
    Ok(Features::new(outputs(gpu, encoder, data, pipeline, view)?, data.len()))
}

impl ProbeOptions {
    /// Features of all views of labelled images, and their classes.
    fn views(&self, images: &Dataset, encode: impl Fn(u32) -> Result<Features>) -> Result<(Features, Vec<i32>)> {
        let number = self.views.min((ROWS / images.len()).max(1) as u32);
        let features = Features::concat((0..number).map(encode).collect::<Result<_>>()?);
        Ok((features, images.labels().repeat(number as usize)))
    }

    /// The labelled images of each draw.
    fn labelled(&self, train: &Arc<Dataset>, labels: usize) -> Result<Vec<Arc<Dataset>>> {
        if labels == 0 {
            return Ok(vec![train.clone()]);
        }
        let draw = |draw| train.subset(&train.split_indices(labels, self.seed.wrapping_add(draw))?.0).map(Arc::new);
        (0..self.draws).map(draw).collect()
    }

    /// The places of each draw's images for retrieval among `images`.
    fn galleries(&self, images: usize) -> Vec<Vec<usize>> {
        let one = |draw| {
            let order = Stream::keyed(self.seed, Purpose::Split.key(), draw).permutation(images as u32);
            order.into_iter().take(GALLERY).map(|i| i as usize).collect()
        };
        (0..self.draws).map(one).collect()
    }
}

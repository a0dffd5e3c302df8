//! Steps over shards as a run takes them: by a [`Trainer`], with a network and images of a test.

use std::sync::Arc;

use wgrad::autograd::Gradients;
use wgrad::data::{Dataset, Loader};
use wgrad::error::Result;
use wgrad::gpu::Gpu;
use wgrad::methods::{Batch, Contrast, Method, TrainStep, TrainedNetwork};
use wgrad::nn::Parameters;
use wgrad::tensor::Tensor;
use wgrad::train::progress::Style;
use wgrad::train::{Recipe, Trainer};

/// A run of one step an epoch. Its data set holds as many black images as a batch has; what is
/// learnt from takes their places.
pub struct Sharded {
    trainer: Trainer,
    dataset: Arc<Dataset>,
}

impl Sharded {
    /// `settings` are the recipe's, number of steps, batch and shards among them.
    pub fn new(gpu: &Gpu, batch: usize, settings: &[String]) -> Self {
        let dataset = Dataset::new("black", [1; 3], vec![0; batch], vec![0; batch], vec!["black".into()]);
        let dataset = Arc::new(dataset.unwrap());
        // The trainer's own network is one without layers, and leaves with its method.
        let own = ["model=pixels", "augmentation=none", "schedule=constant", "weight_decay=0"].map(String::from);
        let recipe = Recipe::default().with(own.iter().chain(settings).map(String::as_str)).unwrap();
        Self { trainer: Trainer::new(gpu, recipe, dataset.clone()).unwrap(), dataset }
    }

    /// Where the method's networks are to be made.
    pub fn parameters(&self) -> &Parameters {
        &self.trainer.params
    }

    /// The losses of `method` on `views` of each step's batch.
    pub fn train<M: Method + 'static>(self, method: M, views: impl Fn(u64, &dyn Method) -> Vec<Tensor>) -> Vec<f64> {
        let Self { mut trainer, dataset } = self;
        let steps = trainer.recipe.epochs;
        let images: Vec<Tensor> = views(0, &method).iter().map(|view| view.copy().unwrap()).collect();
        trainer.method = Box::new(Shown { method, images: images.clone() });
        let loader = Loader::training(dataset.clone(), dataset.len(), trainer.recipe.seed).unwrap();
        let one_step = |epoch: u32| {
            // The data set's image i stands in row places[i] of the batch.
            let mut places = vec![0; dataset.len()];
            loader.order(epoch).iter().zip(0..).for_each(|(index, row)| places[*index as usize] = row);
            let places = Tensor::from_slice(trainer.params.gpu(), &places, [places.len()]).unwrap();
            for (images, view) in images.iter().zip(views(epoch.into(), &*trainer.method)) {
                images.copy_from(&view.index_select(0, &places).unwrap()).unwrap();
            }
            trainer.run(None, Style::Silent, &mut |_| true).unwrap().loss
        };
        (0..steps).map(one_step).collect()
    }
}

/// A method that is shown tensors in place of the data set's images: row i for image i.
struct Shown<M> {
    method: M,
    images: Vec<Tensor>,
}

impl<M> Shown<M> {
    fn batch(&self, batch: &Batch) -> Result<Batch> {
        let views = self.images.iter().map(|images| images.index_select(0, &batch.indices)).collect::<Result<_>>()?;
        Ok(Batch { views, labels: batch.labels.clone(), indices: batch.indices.clone(), epoch: batch.epoch.clone() })
    }
}

impl<M: Method> Contrast for Shown<M> {
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        self.method.contrast().unwrap().embed(&self.batch(batch)?)
    }

    fn compare(&self, embeddings: &[Tensor], labels: &Tensor) -> Result<TrainStep> {
        self.method.contrast().unwrap().compare(embeddings, labels)
    }
}

impl<M: Method> Method for Shown<M> {
    fn name(&self) -> &'static str {
        self.method.name()
    }

    fn views(&self) -> usize {
        self.method.views()
    }

    fn begin_step(&self) -> Result<()> {
        self.method.begin_step()
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        self.method.loss(&self.batch(batch)?)
    }

    fn contrast(&self) -> Option<&dyn Contrast> {
        self.method.contrast().is_some().then_some(self as &dyn Contrast)
    }

    fn losses<'a>(&self, step: &'a TrainStep) -> Vec<&'a Tensor> {
        self.method.losses(step)
    }

    fn combine(&self, step: &TrainStep, parts: Vec<Gradients>) -> Result<Gradients> {
        self.method.combine(step, parts)
    }

    fn after_update(&self, step: &TrainStep) -> Result<()> {
        self.method.after_update(step)
    }

    fn begin_epoch(&mut self, epoch: u32) -> Result<()> {
        self.method.begin_epoch(epoch)
    }

    fn network(&self) -> TrainedNetwork<'_> {
        self.method.network()
    }

    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        self.method.averages()
    }
}

//! Multitask learning by hard sharing (Caruana 1997): one trunk, a classifier of the data set's own
//! classes, and a linear head for each task more. An image whose label a task does not know takes
//! no part in that task's loss, which is the mean over the others of the batch.

mod weighting;

use serde::{Deserialize, Serialize};

pub use weighting::Weighting;
use weighting::{Weigher, stack};

use super::{Batch, Build, HIDDEN, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::autograd::Gradients;
use crate::error::{Error, Result, require_not_negative, require_positive, require_share};
use crate::models::{Backbone, Classifier};
use crate::nn::{Linear, Mode, Module, Parameters};
use crate::ops::loss::cross_entropy::CrossEntropyFuncOptions;
use crate::tensor::Tensor;

/// How several tasks are learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultitaskConfig {
    /// How the tasks' losses become one.
    pub weighting: Weighting,
    /// What `fixed` multiplies the losses by, the data set's own classes first; all 1 where it is
    /// empty.
    pub task_weights: Vec<f32>,
    /// Probability spread evenly over all classes of a task.
    pub label_smoothing: f32,
    /// The exponent of `gradnorm`: how strongly tasks that are behind are favoured.
    pub alpha: f32,
    /// The learning rate of the weights of `gradnorm`.
    pub weights_learning_rate: f32,
    /// The temperature of `dwa`: the higher, the more equal the weights.
    pub temperature: f32,
}

impl Default for MultitaskConfig {
    fn default() -> Self {
        Self {
            weighting: Weighting::Fixed,
            task_weights: Vec::new(),
            label_smoothing: 0.0,
            alpha: 1.5,
            weights_learning_rate: 0.025,
            temperature: 2.0,
        }
    }
}

struct Head {
    name: String,
    linear: Linear,
    /// The label of every image of the data set, i32 `[images]`.
    labels: Tensor,
}

/// A trunk with its heads.
pub struct Multitask {
    model: Classifier<Box<dyn Backbone>>,
    heads: Vec<Head>,
    weigher: Weigher,
    label_smoothing: f32,
}

impl MethodFactory for Multitask {
    const CARD: MethodCard = MethodCard {
        name: "multitask",
        title: "Multitask learning",
        text: "One trunk learns several tasks, each with a head",
        supervision: Supervision::Multitask,
        family: "hard parameter sharing",
        year: 1993,
        authors: "Caruana; weighting: Kendall, Gal, Cipolla 2018, Chen and others 2018, Liu, Johns, Davison 2019, Yu and others 2020",
        paper: "Multitask Learning, Machine Learning 28, 1997; arXiv:1705.07115, arXiv:1711.02257, arXiv:1803.10704, arXiv:2001.06782",
        related: &["supervised"],
    };

    const HEADS: &'static [&'static str] = &[Weigher::LOG_VAR];

    type Config = MultitaskConfig;

    fn new(params: &Parameters, build: Build, config: MultitaskConfig, context: &MethodContext) -> Result<Self> {
        require_share(Self::CARD.name, "label_smoothing", config.label_smoothing)?;
        require_not_negative(Self::CARD.name, "alpha", config.alpha)?;
        require_not_negative(Self::CARD.name, "weights_learning_rate", config.weights_learning_rate)?;
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        if context.tasks.is_empty() {
            let message = "there are none beside the classes; set `data.tasks` in the recipe, as in [{ name = \"kind\", classes = [[5, 7, 9], [0, 2]] }], or \
                           put train_tasks.csv into the folder of the data";
            return Err(Error::argument("tasks", message));
        }
        let backbone = build(params)?;
        let (trunk, features) = (params.all(), backbone.features());
        let taken = [backbone.head(), Weigher::LOG_VAR];
        let model = Classifier::new(params, backbone, context.classes)?;
        let mut heads = Vec::new();
        for task in &context.tasks {
            let (name, classes) = (task.name.clone(), task.classes);
            if taken.contains(&name.as_str()) {
                return Err(Error::argument("tasks", format!("{name} is the name of something else; call the task otherwise")));
            }
            let linear = Linear::new(params, &name, features, classes)?;
            let labels = Tensor::from_slice(params.gpu(), &task.labels, [task.labels.len()])?.with_range(None)?;
            heads.push(Head { name, linear, labels });
        }
        let weigher = Weigher::new(params, trunk, heads.len() + 1, &config, &context.clock)?;
        Ok(Self { model, heads, weigher, label_smoothing: config.label_smoothing })
    }
}

impl Method for Multitask {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let options = CrossEntropyFuncOptions { label_smoothing: self.label_smoothing, ignore_index: Some(HIDDEN) };
        let [features, logits] = self.model.features_and_logits(images, Mode::Train)?;
        let own = logits.cross_entropy_with(&batch.labels, &options)?;
        let features = self.model.dropped(&features, Mode::Train)?;
        let mut parts = vec![(self.model.backbone.head().to_string(), own)];
        for Head { name, linear, labels } in &self.heads {
            let labels = labels.index_select(0, &batch.indices)?;
            parts.push((name.clone(), linear.forward(&features, Mode::Train)?.cross_entropy_with(&labels, &options)?));
        }
        let losses = stack(&parts)?;
        Ok(TrainStep { parts, ..TrainStep::new(self.weigher.total(&losses)?, []) })
    }

    fn losses<'a>(&self, step: &'a TrainStep) -> Vec<&'a Tensor> {
        self.weigher.losses(step)
    }

    fn combine(&self, step: &TrainStep, parts: Vec<Gradients>) -> Result<Gradients> {
        self.weigher.combine(step, parts)
    }

    fn after_update(&self, step: &TrainStep) -> Result<()> {
        self.weigher.after_update(step)
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }

    fn heads(&self) -> Vec<&str> {
        let own = std::iter::once(self.model.backbone.head());
        own.chain(self.heads.iter().map(|head| head.name.as_str())).chain(self.weigher.head()).collect()
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.weigher.state()
    }
}

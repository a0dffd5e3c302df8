//! MoCo v2 (He et al. 2019, arXiv:1911.05722; Chen et al. 2020, arXiv:2003.04297): keys of a slowly
//! moving network, and a queue of earlier keys as negatives. Order as in the authors' code:
//! queries, the key network's update, keys, loss against the queue as it was, then the keys enter
//! it.

use serde::{Deserialize, Serialize};

use super::queue::KeyQueue;
use super::{
    Batch, Build, EmaTeacher, EmaTeacherConfig, Embedder, Kept, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep,
    TrainedNetwork,
};
use crate::error::{Result, require_positive};
use crate::models::MlpConfig;
use crate::nn::Parameters;
use crate::tensor::Tensor;

/// How MoCo v2 is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MocoConfig {
    /// Divides the similarities.
    pub temperature: f32,
    /// What the loss sees.
    pub projector: MlpConfig,
    /// The key network.
    pub teacher: EmaTeacherConfig,
    /// Keys in the queue.
    pub queue: usize,
    /// Parts of a batch that batch norms see apart, as several devices would: within one batch,
    /// statistics give away which key belongs to which query.
    pub batch_norm_splits: usize,
    /// Keys are dealt to the parts in another order than queries (ShuffleBN).
    pub shuffle: bool,
    /// Both views are queries, and the losses' mean counts (the authors' CIFAR notebook).
    pub symmetric: bool,
}

impl Default for MocoConfig {
    fn default() -> Self {
        let teacher = EmaTeacherConfig { momentum: 0.99, momentum_end: 0.99 };
        let (projector, queue, batch_norm_splits) = (MlpConfig::default(), 2048, 4);
        Self { temperature: 0.2, projector, teacher, queue, batch_norm_splits, shuffle: true, symmetric: false }
    }
}

/// An encoder with its key network and a queue of earlier keys.
pub struct Moco {
    network: Embedder,
    keys: EmaTeacher,
    queue: KeyQueue,
    config: MocoConfig,
    /// Each step enters the keys of so many batches as the loss sees.
    shards: usize,
}

impl MethodFactory for Moco {
    const CARD: MethodCard = MethodCard {
        name: "moco",
        title: "MoCo v2",
        text: "Keys of a slow network, and a queue of earlier ones",
        supervision: Supervision::SelfSupervised,
        family: "contrastive",
        year: 2019,
        authors: "He, Fan, Wu, Xie, Girshick",
        paper: "Momentum Contrast for Unsupervised Visual Representation Learning, arXiv:1911.05722; v2: arXiv:2003.04297",
        related: &["simclr", "moco_v3"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR];

    type Config = MocoConfig;

    fn new(params: &Parameters, build: Build, config: MocoConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        let network = Embedder::new(params, build, &config.projector)?;
        let keys = EmaTeacher::new(params, config.teacher, &context.clock, |average| Embedder::new(average, build, &config.projector))?;
        let queue = KeyQueue::new(params.gpu(), config.queue, config.projector.outputs, context.seed)?;
        Ok(Self { network, keys, queue, config, shards: context.shards.max(1) })
    }
}

impl Moco {
    /// The loss of queries against their keys and the queue, with both.
    fn contrast(&self, queries: &Tensor, keys: &Tensor) -> Result<[Tensor; 3]> {
        let MocoConfig { batch_norm_splits: splits, shuffle, .. } = self.config;
        let q = self.network.embed_split(queries, splits, false)?;
        // The order of a batch is random already, so one way of dealing is enough to bring the
        // images of a query's part to all parts.
        let k = self.keys.network.embed_split(keys, splits, shuffle)?.l2_normalize(-1, 1e-12)?;
        let loss = q.info_nce_queue(&k, &self.queue.keys, self.config.temperature)?;
        Ok([loss, q, k])
    }
}

impl Method for Moco {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [first, second] = batch.exactly(self.name())?;
        let entering = first.shape().dim(0) * self.shards * if self.config.symmetric { 2 } else { 1 };
        let queue = Some(self.queue.entered_by(entering)?);
        let [loss, q, k] = self.contrast(first, second)?;
        if !self.config.symmetric {
            let kept = Kept::new(vec![k.clone()]);
            return Ok(TrainStep { queue, kept, ..TrainStep::new(loss, [q, k]) });
        }
        let [other, q2, k2] = self.contrast(second, first)?;
        let kept = Kept::new(vec![k, k2]);
        Ok(TrainStep { queue, kept, ..TrainStep::new(loss.add(&other)?.mul_scalar(0.5)?, [q, q2]) })
    }

    fn after_update(&self, step: &TrainStep) -> Result<()> {
        step.kept.get::<Vec<Tensor>>()?.iter().try_for_each(|keys| self.queue.push(keys))
    }

    fn begin_step(&self) -> Result<()> {
        self.keys.update()
    }

    fn begin(&self) -> Result<()> {
        self.keys.reset()
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.network.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        vec![("queue".into(), self.queue.keys.clone()), ("cursor".into(), self.queue.cursor.clone())]
    }

    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        vec![("teacher", self.keys.parameters())]
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("teacher_momentum", self.keys.momentum())]
    }

    fn collapse_hint(&self) -> &'static str {
        "keys in the queue must be comparable: raise teacher.momentum, shorten the queue, or lower the learning rate"
    }
}

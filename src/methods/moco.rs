//! MoCo v2 (He et al. 2019, arXiv:1911.05722; Chen et al. 2020, arXiv:2003.04297): keys of a slowly moving network, and a queue of earlier keys
//! as negatives. Order as in the authors' code: queries, the key network's update, keys, loss against the queue as it was, then the keys enter it.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};

use super::{
    Batch, Build, EmaTeacher, EmaTeacherConfig, Embedder, Method, MethodCard, MethodContext, MethodFactory, Step, Supervision,
    TrainedNetwork,
};
use crate::error::{Error, Result, require_positive};
use crate::models::MlpConfig;
use crate::nn::Parameters;
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

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
    /// Parts of a batch that batch norms see apart, as several devices would: within one batch, statistics give away which key belongs to
    /// which query.
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

/// The queue begins as random directions and is filled from its first row on.
pub struct Moco {
    network: Embedder,
    keys: EmaTeacher,
    /// `[queue, D]`, of length 1.
    queue: Tensor,
    /// The row that the oldest key lies in, i32 `[1]`.
    cursor: Tensor,
    fresh: RefCell<Vec<Tensor>>,
    batch: RefCell<usize>,
    config: MocoConfig,
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

    type Config = MocoConfig;

    fn new(params: &Parameters, build: Build, config: MocoConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        let gpu = params.gpu();
        let network = Embedder::new(params, build, &config.projector)?;
        let keys = EmaTeacher::new(params, config.teacher, &context.clock, |average| Embedder::new(average, build, &config.projector))?;
        if config.queue == 0 {
            return Err(Error::argument("queue", "it needs rows, as many as images in a batch at least"));
        }
        let shape = [config.queue, config.projector.outputs];
        let mut stream = Stream::keyed(context.seed, Purpose::Initialise.key(), 0);
        let queue = stream.normals(gpu, shape)?.l2_normalize(-1, 1e-12)?;
        let last = i32::try_from(config.queue).unwrap_or(i32::MAX) - 1;
        let cursor = Tensor::from_slice(gpu, &[0i32], [1])?.with_range(Some((0, last.max(0))))?;
        Ok(Self { network, keys, queue, cursor, fresh: RefCell::default(), batch: RefCell::default(), config })
    }
}

impl Moco {
    fn contrast(&self, queries: &Tensor, keys: &Tensor) -> Result<(Tensor, Tensor)> {
        let MocoConfig { batch_norm_splits: splits, shuffle, .. } = self.config;
        let q = self.network.embed_split(queries, splits, false)?;
        // The order of a batch is random already, so one way of dealing is enough to bring the images of a query's part to all parts.
        let k = self.keys.network.embed_split(keys, splits, shuffle)?.l2_normalize(-1, 1e-12)?;
        let loss = q.info_nce_queue(&k, &self.queue, self.config.temperature)?;
        self.fresh.borrow_mut().push(k);
        Ok((loss, q))
    }
}

impl Method for Moco {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn loss(&self, batch: &Batch) -> Result<Step> {
        let [first, second] = batch.exactly(self.name())?;
        let entering = first.shape().dim(0) * if self.config.symmetric { 2 } else { 1 };
        if entering == 0 || !self.config.queue.is_multiple_of(entering) {
            let message = format!("{} keys must be a multiple of the {entering} that enter at each step", self.config.queue);
            return Err(Error::argument("queue", message));
        }
        self.batch.replace(entering);
        self.fresh.borrow_mut().clear();
        self.keys.update()?;
        let (loss, q) = self.contrast(first, second)?;
        if !self.config.symmetric {
            let k = self.fresh.borrow().clone();
            return Ok(Step::new(loss, [vec![q], k].concat()));
        }
        let (other, q2) = self.contrast(second, first)?;
        Ok(Step::new(loss.add(&other)?.mul_scalar(0.5)?, [q, q2]))
    }

    fn after_update(&self) -> Result<()> {
        self.fresh.borrow_mut().drain(..).try_for_each(|keys| self.queue.queue_write_next(&keys, &self.cursor))
    }

    fn begin(&self) -> Result<()> {
        self.keys.reset()
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.network.encoder)
    }

    fn heads(&self) -> Vec<&'static str> {
        vec![Embedder::HEAD]
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        vec![("queue".into(), self.queue.clone()), ("cursor".into(), self.cursor.clone())]
    }

    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        vec![("teacher", self.keys.parameters())]
    }

    fn figures(&self) -> Vec<(&'static str, f64)> {
        // The age in steps of the oldest key.
        let age = self.config.queue as f64 / (*self.batch.borrow()).max(1) as f64;
        vec![("queue_age", age), ("teacher_momentum", self.keys.momentum())]
    }

    fn collapse_hint(&self) -> &'static str {
        "keys in the queue must be comparable: raise teacher.momentum, shorten the queue, or lower the learning rate"
    }
}

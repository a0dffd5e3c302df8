//! SwAV (Caron et al. 2020, arXiv:2006.09882): a view predicts to which prototypes another is
//! assigned, where all prototypes get an equal share of the batch (Sinkhorn-Knopp: Cuturi 2013,
//! arXiv:1306.0895). The first two views are assigned, all predict (multi-crop), each on its own
//! (batch norm sees one view at a time, where the authors' code joins views of one size). As there,
//! prototypes are brought to length 1 before each step, and embeddings of earlier steps may be
//! assigned with the batch's.

use serde::{Deserialize, Serialize};

use super::dino::pairs;
use super::queue::KeyQueue;
use super::{
    Batch, Build, Contrast, Embedder, Kept, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork,
};
use crate::error::{Error, Result, require_positive};
use crate::models::MlpConfig;
use crate::nn::{Init, Kind, Mode, Parameter, Parameters};
use crate::tensor::{DType, Tensor};

/// More rounds of Sinkhorn-Knopp are a mistake.
const MOST_ITERATIONS: usize = 100;

/// How SwAV is set up. The authors' numbers for large images in brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwAvConfig {
    /// Features to what the prototypes see (2048 hidden, 128 outputs).
    pub projector: MlpConfig,
    /// Prototypes (3000).
    pub prototypes: usize,
    /// Epochs in which the prototypes stay as they are.
    pub freeze_prototypes_epochs: u32,
    /// Divides the cosines of predictions.
    pub temperature: f32,
    /// Divides those of assignments: the smaller, the surer they are.
    pub sinkhorn_epsilon: f32,
    /// Rounds in which shares of prototypes and images are made equal.
    pub sinkhorn_iterations: usize,
    /// Embeddings of earlier steps, of each of the two views, that are assigned with the batch's:
    /// where a batch has fewer images than there are prototypes (3840); 0 for none.
    pub queue: usize,
    /// The first epoch, counted from 0, in which these take part (15).
    pub epoch_queue_starts: u32,
}

impl Default for SwAvConfig {
    fn default() -> Self {
        Self {
            projector: MlpConfig::hidden_norm(),
            prototypes: 128,
            freeze_prototypes_epochs: 1,
            temperature: 0.1,
            sinkhorn_epsilon: 0.05,
            sinkhorn_iterations: 3,
            queue: 0,
            epoch_queue_starts: 15,
        }
    }
}

/// What differs from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Phase {
    prototypes_frozen: bool,
    queue_used: bool,
}

impl Phase {
    fn new(config: &SwAvConfig, epoch: u32) -> Self {
        Self { prototypes_frozen: epoch < config.freeze_prototypes_epochs, queue_used: epoch >= config.epoch_queue_starts }
    }
}

/// An encoder, a projector (`proj`) and prototypes (`prototypes`).
pub struct SwAv {
    params: Parameters,
    network: Embedder,
    /// `[K, D]`
    prototypes: Parameter,
    /// Of the first and the second view; none where there is no queue.
    queues: Vec<KeyQueue>,
    phase: Phase,
    config: SwAvConfig,
}

impl SwAv {
    const PROTOTYPES: &'static str = "prototypes";

    /// Cosines `[N, K]` of embeddings of length 1 with the prototypes, which learn in
    /// [`Mode::Train`].
    fn scores(&self, z: &Tensor, mode: Mode) -> Result<Tensor> {
        z.linear(&self.prototypes.tensor(mode)?, None)
    }

    /// The assignments `[N, K]` of the batch's `scores` of one view.
    fn assign(&self, scores: &Tensor, queue: Option<&KeyQueue>) -> Result<Tensor> {
        let rows = scores.shape().dim(0);
        let own = scores.detach().cast(DType::F32)?;
        let all = match queue {
            Some(queue) => Tensor::concat(&[&own, &self.scores(&queue.keys, Mode::Eval)?.cast(DType::F32)?], 0)?,
            None => own,
        };
        sinkhorn(&all, self.config.sinkhorn_epsilon, self.config.sinkhorn_iterations)?.slice(0, 0, rows)
    }
}

/// Sinkhorn-Knopp: `exp(scores / epsilon)` `[N, K]` with columns and rows scaled in turn, until each
/// prototype has about the share N / K of the images, and each image exactly 1 in all. Logarithms
/// are scaled, so nothing overflows.
///
/// # Errors
/// Integers; out of memory.
pub fn sinkhorn(scores: &Tensor, epsilon: f32, iterations: usize) -> Result<Tensor> {
    let mut logits = scores.mul_scalar(1.0 / epsilon)?;
    for _ in 0..iterations {
        for dim in [0, 1] {
            logits = logits.sub(&logits.logsumexp(&[dim], true)?)?;
        }
    }
    logits.exp()
}

impl MethodFactory for SwAv {
    const CARD: MethodCard = MethodCard {
        name: "swav",
        title: "SwAV",
        text: "A view predicts to which prototypes another is assigned",
        supervision: Supervision::SelfSupervised,
        family: "clustering",
        year: 2020,
        authors: "Caron, Misra, Mairal, Goyal, Bojanowski, Joulin",
        paper: "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv:2006.09882",
        related: &["dino", "simclr"],
    };

    const HEADS: &'static [&'static str] = &[Embedder::PROJECTOR, Self::PROTOTYPES];

    type Config = SwAvConfig;

    fn new(params: &Parameters, build: Build, config: SwAvConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        require_positive(Self::CARD.name, "sinkhorn_epsilon", config.sinkhorn_epsilon)?;
        if !(1..=MOST_ITERATIONS).contains(&config.sinkhorn_iterations) {
            return Err(Error::argument(
                "sinkhorn_iterations",
                format!("expected 1 to {MOST_ITERATIONS}, found {}", config.sinkhorn_iterations),
            ));
        }
        if config.prototypes == 0 {
            return Err(Error::argument("prototypes", "there must be some to assign images to"));
        }
        let network = Embedder::new(params, build, &config.projector)?;
        let width = config.projector.outputs;
        let prototypes =
            params.scope(Self::PROTOTYPES).parameter("weight", [config.prototypes, width], Kind::Linear, Init::fan_in(width))?;
        let queue = |_| KeyQueue::new(params.gpu(), config.queue, width, context.seed);
        let queues = (0..if config.queue > 0 { 2 } else { 0 }).map(queue).collect::<Result<_>>()?;
        Ok(Self { params: params.clone(), network, prototypes, queues, phase: Phase::new(&config, 0), config })
    }
}

impl Contrast for SwAv {
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        // They wait without a gradient, as in the authors' code; what is frozen is the user's matter.
        let mode = if self.phase.prototypes_frozen { Mode::Eval } else { Mode::Train };
        let embeddings = self.network.embed_each(&batch.views)?;
        let scores = embeddings.iter().map(|z| self.scores(&z.l2_normalize(-1, 1e-12)?, mode)).collect::<Result<Vec<_>>>()?;
        Ok(embeddings.into_iter().take(2).chain(scores).collect())
    }

    fn compare(&self, embeddings: &[Tensor], _: &Tensor) -> Result<TrainStep> {
        let [z1, z2, scores @ ..] = embeddings else {
            return Err(Error::argument(self.name(), "it takes two views or more"));
        };
        let assigned = |view: usize| {
            let Some(scores) = scores.get(view) else { return Err(Error::argument(self.name(), "it takes two views or more")) };
            self.assign(scores, self.queues.get(view).filter(|_| self.phase.queue_used))
        };
        let assignments = [assigned(0)?, assigned(1)?];
        let mut terms = Vec::new();
        for (assigned, predicting) in pairs(scores.len()) {
            let (Some(target), Some(scores)) = (assignments.get(assigned), scores.get(predicting)) else { continue };
            terms.push(scores.mul_scalar(1.0 / self.config.temperature)?.soft_cross_entropy(target)?);
        }
        let scale = 1.0 / terms.len() as f32;
        let sum = terms.into_iter().map(Ok).reduce(|a, b| a?.add(&b?));
        let Some(sum) = sum.transpose()? else { return Err(Error::argument(self.name(), "no views are matched")) };
        let [q1, q2] = &assignments;
        let entering = self.queues.iter().zip([z1, z2]).map(|(_, z)| z.detach().l2_normalize(-1, 1e-12));
        let kept = Kept::new(entering.collect::<Result<Vec<_>>>()?);
        let teacher = Some(Tensor::concat(&[q1, q2], 0)?);
        let queue = self.queues.first().map(|queue| queue.entered_by(z1.shape().dim(0))).transpose()?;
        Ok(TrainStep { teacher, queue, kept, ..TrainStep::new(sum.mul_scalar(scale)?, [z1.clone(), z2.clone()]) })
    }
}

impl Method for SwAv {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn views(&self) -> usize {
        2
    }

    fn begin_step(&self) -> Result<()> {
        let prototypes = self.prototypes.detach()?;
        prototypes.copy_from(&prototypes.l2_normalize(-1, 1e-12)?)
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        self.compare(&self.embed(batch)?, &batch.labels)
    }

    fn contrast(&self) -> Option<&dyn Contrast> {
        Some(self)
    }

    fn after_update(&self, step: &TrainStep) -> Result<()> {
        self.queues.iter().zip(step.kept.get::<Vec<Tensor>>()?).try_for_each(|(queue, z)| queue.push(z))
    }

    fn begin_epoch(&mut self, epoch: u32) -> Result<()> {
        let phase = Phase::new(&self.config, epoch);
        if phase != std::mem::replace(&mut self.phase, phase) {
            self.params.gpu().invalidate_programs();
        }
        Ok(())
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.network.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let of = |(view, queue): (usize, &KeyQueue)| {
            [(format!("queue.{view}"), queue.keys.clone()), (format!("cursor.{view}"), queue.cursor.clone())]
        };
        self.queues.iter().enumerate().flat_map(of).collect()
    }

    fn collapse_hint(&self) -> &'static str {
        "lower the learning rate or sinkhorn_epsilon; with fewer images in a batch than prototypes, set a queue"
    }
}

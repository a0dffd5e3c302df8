//! Partial labels: of each image it is only known that its class is among some candidates. The
//! truth is one of them; each other class joins with the probability `ambiguity`, drawn from the
//! seed. The losses are those of Feng et al. 2020 (arXiv:2007.08929): `cc`, classifier-consistent,
//! is the mean of -log of the summed probability of the candidates, whose gradient is also that of
//! PRODEN (Lv et al. 2020, arXiv:2002.08053) with weights of the present step; `average` is the
//! mean over the candidates of their cross entropies, the baseline.

use serde::{Deserialize, Serialize};

use super::unlabelled::share;
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::Result;
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

/// Added to the logits of classes that are out of the question.
const OUT: f32 = -1e9;

/// What is learnt of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartialLoss {
    /// That it is one of them.
    #[default]
    Cc,
    /// All of them, to the same part.
    Average,
}

/// How partial labels are made and learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartialLabelsConfig {
    /// The probability of each wrong class to be a candidate.
    pub ambiguity: f32,
    /// What is learnt.
    pub loss: PartialLoss,
}

impl Default for PartialLabelsConfig {
    fn default() -> Self {
        Self { ambiguity: 0.5, loss: PartialLoss::Cc }
    }
}

/// Whether each of `classes` is a candidate for each image, `[images, classes]` row by row: the
/// true one, and each other with the probability `ambiguity`. All are, where the label is hidden.
pub fn candidates(labels: &[i32], classes: usize, ambiguity: f32, seed: u32) -> Vec<bool> {
    let image = |(place, label): (u32, &i32)| {
        let mut stream = Stream::keyed(seed, Purpose::Split.numbered((1 << 16) + 1), place);
        let label = *label;
        (0..classes as i32).map(move |class| stream.uniform() < ambiguity || label < 0 || class == label).collect::<Vec<_>>()
    };
    (0..).zip(labels).flat_map(image).collect()
}

/// What has to be added to logits so that only candidates are left.
pub(super) fn offsets(candidates: &[bool]) -> Vec<f32> {
    candidates.iter().map(|candidate| if *candidate { 0.0 } else { OUT }).collect()
}

/// The mean of -log of the summed probability of the candidates, by logits `[N, C]` and [`offsets`]
/// `[N, C]`.
pub(super) fn among(logits: &Tensor, offsets: &Tensor) -> Result<Tensor> {
    logits.logsumexp(&[1], false)?.sub(&logits.add(offsets)?.logsumexp(&[1], false)?)?.mean(&[0], false)
}

/// A classifier that is told candidates.
pub struct PartialLabels {
    model: Classifier<Box<dyn Backbone>>,
    loss: PartialLoss,
    /// Of every image of the data set `[images, C]`: [`offsets`] of the candidates, or each
    /// candidate's part.
    table: Tensor,
}

impl MethodFactory for PartialLabels {
    const CARD: MethodCard = MethodCard {
        name: "partial_labels",
        title: "Partial-label learning",
        text: "Each image has several candidate labels, one of them true",
        supervision: Supervision::WeaklySupervised,
        family: "weak labels",
        year: 2020,
        authors: "Feng, Lv, Han, Xu, Niu and others",
        paper: "Provably Consistent Partial-Label Learning, arXiv:2007.08929",
        related: &["coarse_to_fine", "supervised"],
    };

    type Config = PartialLabelsConfig;

    fn new(params: &Parameters, build: Build, config: PartialLabelsConfig, context: &MethodContext) -> Result<Self> {
        let model = Classifier::new(params, build(params)?, context.classes)?;
        let candidates = candidates(&context.labels, context.classes, share("ambiguity", config.ambiguity)?, context.seed);
        let values = match config.loss {
            PartialLoss::Cc => offsets(&candidates),
            PartialLoss::Average => candidates.chunks(context.classes.max(1)).flat_map(parts).collect(),
        };
        let table = Tensor::from_slice(params.gpu(), &values, [context.labels.len(), context.classes])?;
        Ok(Self { model, loss: config.loss, table })
    }
}

/// One, in equal parts for the candidates.
fn parts(row: &[bool]) -> impl Iterator<Item = f32> + '_ {
    let part = 1.0 / row.iter().filter(|candidate| **candidate).count().max(1) as f32;
    row.iter().map(move |candidate| if *candidate { part } else { 0.0 })
}

impl Method for PartialLabels {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let logits = self.model.forward(images, Mode::Train)?;
        let rows = self.table.index_select(0, &batch.indices)?;
        let loss = match self.loss {
            PartialLoss::Cc => among(&logits, &rows)?,
            PartialLoss::Average => logits.soft_cross_entropy(&rows)?,
        };
        Ok(TrainStep::new(loss, []))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }
}

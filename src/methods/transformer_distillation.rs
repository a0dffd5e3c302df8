//! A small encoder of texts learns from a large one: DistilBERT (Sanh et al. 2019,
//! arXiv:1910.01108) and TinyBERT (Jiao et al. 2019, arXiv:1909.10351) in one, each of whose losses
//! has a weight.
//!
//! Student layer m of M learns from teacher layer m N / M of N, layer 0 being the embeddings. The
//! variants: `logits` is T^2 KL, mean over texts; `hidden` is DistilBERT's 1 - cosine of the last
//! layers, mean over tokens, or TinyBERT's squared error of every layer, summed over layers, behind
//! one learnt projection that all layers and the embeddings share; `attention` is TinyBERT's
//! squared error of scores before the softmax, summed over layers. Squared errors are means over
//! all elements, of which those of padding are 0 (TinyBERT zeroes hidden keys alone).

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::{
    Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, Teacher, TrainStep, TrainedNetwork, aligned_teacher,
};
use crate::error::{Error, Result, require_positive};
use crate::models::{Backbone, Classifier, Encoding, TokenEncoder, text_linear};
use crate::nn::{Linear, Mode, Module, Parameters};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::Tensor;

/// How hidden states are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenLoss {
    /// 1 - cosine of the last layers (DistilBERT).
    #[default]
    Cosine,
    /// Squared error of every layer, behind a learnt projection (TinyBERT).
    Mse,
}

/// What the student begins as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StudentInit {
    /// The teacher's embeddings and, of N layers for M, layer m N / M (from 0) as layer m: of 4 for
    /// 2 every second (DistilBERT).
    #[default]
    #[serde(rename = "every second")]
    EverySecond,
    /// Its own initial values, or those of the recipe's weights.
    #[serde(rename = "own")]
    Own,
}

/// How a transformer is distilled; the defaults are DistilBERT's, with labels where it has masked
/// tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformerDistillationConfig {
    /// Weight of the teacher's logits.
    pub logits: f32,
    /// Softens both logits.
    pub temperature: f32,
    /// Weight of the cross entropy of labels, where they are known.
    pub labels: f32,
    /// Weight of hidden states.
    pub hidden: f32,
    /// How they are compared.
    pub hidden_loss: HiddenLoss,
    /// Weight of attention scores.
    pub attention: f32,
    /// Weight of embeddings.
    pub embeddings: f32,
    /// What the student begins as.
    pub init: StudentInit,
}

impl Default for TransformerDistillationConfig {
    fn default() -> Self {
        let (hidden_loss, init) = (HiddenLoss::Cosine, StudentInit::EverySecond);
        Self { logits: 5.0, temperature: 2.0, labels: 2.0, hidden: 1.0, hidden_loss, attention: 0.0, embeddings: 0.0, init }
    }
}

/// A classifier of texts and its teacher.
pub struct TransformerDistillation {
    model: Classifier<Box<dyn Backbone>>,
    teacher: Arc<Teacher>,
    /// From the student's features to the teacher's.
    projection: Option<Linear>,
    /// The student's classes that the teacher's logits stand for, where they are not all in order.
    classes: Option<Tensor>,
    params: Parameters,
    config: TransformerDistillationConfig,
}

impl MethodFactory for TransformerDistillation {
    const CARD: MethodCard = MethodCard {
        name: "transformer_distillation",
        title: "DistilBERT and TinyBERT",
        text: "A small encoder of texts learns a large one's logits, hidden states and attention",
        supervision: Supervision::Distillation,
        family: "distillation",
        year: 2019,
        authors: "Sanh, Debut, Chaumond, Wolf; Jiao, Yin, Shang and others",
        paper: "DistilBERT, arXiv:1910.01108; TinyBERT, arXiv:1909.10351",
        related: &["masked_tokens", "distillation"],
    };

    const HEADS: &'static [&'static str] = &[Self::HEAD];

    type Config = TransformerDistillationConfig;

    fn uses_labels(config: &TransformerDistillationConfig) -> bool {
        config.labels > 0.0
    }

    fn new(params: &Parameters, build: Build, config: TransformerDistillationConfig, context: &MethodContext) -> Result<Self> {
        require_positive(Self::CARD.name, "temperature", config.temperature)?;
        let weights = [config.logits, config.labels, config.hidden, config.attention, config.embeddings];
        if !weights.iter().all(|w| (0.0..=1e6).contains(w)) || weights.iter().all(|w| *w == 0.0) {
            return Err(Error::argument("options", format!("weights must lie in 0 to 1e6 and one be above 0, found {weights:?}")));
        }
        let [teacher] = context.teachers.as_slice() else {
            let message =
                format!("expected one finished run to learn from, found {}: set it to the directory of one", context.teachers.len());
            return Err(Error::argument("teachers", message));
        };
        let model = Classifier::new(params, build(params)?, context.classes)?;
        let (own, other) = (*text(&*model.backbone)?.config(), *text(teacher.network().backbone())?.config());
        if own.depth == 0 || own.depth > other.depth {
            return Err(Error::argument("model", format!("a student of {} layers cannot follow {}", own.depth, other.depth)));
        }
        if config.attention > 0.0 && own.heads != other.heads {
            return Err(Error::argument("attention", format!("the student has {} heads, the teacher {}", own.heads, other.heads)));
        }
        if config.logits > 0.0 && teacher.network().classifier().is_none() {
            return Err(Error::argument("logits", format!("teacher {} has no classifier; train one, or set logits to 0", teacher.name())));
        }
        let compared = config.hidden > 0.0 || config.embeddings > 0.0;
        let projected = compared && (config.hidden_loss == HiddenLoss::Mse || own.features != other.features);
        let projection = projected.then(|| text_linear(params, Self::HEAD, own.features, other.features)).transpose()?;
        let same = teacher.classes().iter().copied().eq(0..context.classes);
        let numbers: Vec<i32> = teacher.classes().iter().map(|class| *class as i32).collect();
        let classes = (config.logits > 0.0 && !same).then(|| Tensor::from_slice(params.gpu(), &numbers, [numbers.len()])).transpose()?;
        Ok(Self { model, teacher: teacher.clone(), projection, classes, params: params.clone(), config })
    }
}

fn text(network: &dyn Backbone) -> Result<&dyn TokenEncoder> {
    network.token_encoder().ok_or_else(|| Error::argument("model", "student and teacher must be encoders of texts, such as bert_l2_h128"))
}

/// A loss's name and weight, and how it is computed.
type Term<'a> = (&'a str, f32, &'a dyn Fn() -> Result<Tensor>);

/// The mean of `(mask (a - b))^2`.
fn squared(a: &Tensor, b: &Tensor, mask: &Tensor) -> Result<Tensor> {
    fuse([a, b, mask], |[a, b, mask]| ((a - b) * mask).map("square"))?.mean(&[], false)
}

impl TransformerDistillation {
    const HEAD: &'static str = "proj";

    fn project(&self, hidden: &Tensor) -> Result<Tensor> {
        self.projection.as_ref().map_or(Ok(hidden.clone()), |projection| projection.forward(hidden, Mode::Train))
    }

    /// The sum of squared errors of the student's layers, each against the teacher's layer that it
    /// learns from.
    fn layers(own: &[Tensor], other: &[Tensor], mask: &Tensor, project: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let teacher = |m: usize| (m * other.len() / own.len().max(1)).checked_sub(1).and_then(|place| other.get(place));
        let pairs = (1..).zip(own).filter_map(|(m, own)| Some((own, teacher(m)?)));
        let losses = pairs.map(|(own, other)| squared(&project(own)?, other, mask)).collect::<Result<Vec<_>>>()?;
        let (first, rest) = losses.split_first().ok_or_else(|| Error::argument("model", "the student has no layers"))?;
        rest.iter().try_fold(first.clone(), |sum, loss| sum.add(loss))
    }

    fn hidden(&self, own: &Encoding, other: &Encoding) -> Result<Tensor> {
        if let (HiddenLoss::Mse, [_, own_layers @ ..], [_, other_layers @ ..]) = (self.config.hidden_loss, &*own.hidden, &*other.hidden) {
            return Self::layers(own_layers, other_layers, &own.mask, |hidden| self.project(hidden));
        }
        let cosine = self.project(own.last()?)?.cosine_similarity(other.last()?, 1e-8)?;
        let mask = own.mask.reshape(cosine.shape())?;
        let lost = fuse([&cosine, &mask], |[cosine, mask]| (1.0 - cosine) * mask)?.sum(&[], false)?;
        fuse([&lost, &mask.sum(&[], false)?], |[lost, count]| lost / count.maximum(1.0))
    }

    fn attention(own: &Encoding, other: &Encoding) -> Result<Tensor> {
        let (n, l) = (own.mask.shape().dim(0), own.mask.shape().dim(1));
        let keys = own.mask.reshape(&[n, 1, 1, l])?;
        let queries = own.mask.reshape(&[n, 1, l, 1])?;
        Self::layers(&own.scores, &other.scores, &keys.mul(&queries)?, |scores| Ok(scores.clone()))
    }

    fn embeddings(&self, own: &Encoding, other: &Encoding) -> Result<Tensor> {
        let (Some(own_words), Some(other_words)) = (own.hidden.first(), other.hidden.first()) else { return own.last().cloned() };
        squared(&self.project(own_words)?, other_words, &own.mask)
    }

    fn logits(&self, logits: &Tensor, other: &Encoding) -> Result<Tensor> {
        let wrong = || Error::argument("logits", "the teacher has no classifier");
        let classifier = self.teacher.network().classifier().ok_or_else(wrong)?;
        let own = self.classes.as_ref().map_or(Ok(logits.clone()), |classes| logits.index_select(1, classes))?;
        own.distillation_kl(&classifier.classify(&other.features()?, Mode::Eval)?, self.config.temperature)
    }

    /// The teacher's name of what the student's parameter `name` begins as, for networks of so many
    /// layers.
    fn source(name: &str, [own, other]: [usize; 2]) -> Option<String> {
        let Some(rest) = name.strip_prefix("transformer.layer.") else { return name.starts_with("embeddings.").then(|| name.into()) };
        let (layer, rest) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        Some(format!("transformer.layer.{}.{rest}", layer * other / own.max(1)))
    }
}

impl Method for TransformerDistillation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [texts] = batch.exactly(self.name())?;
        let (student, teacher) = (text(&self.model.backbone)?, text(self.teacher.network().backbone())?);
        let scores = self.config.attention > 0.0;
        let own = student.encode(texts, scores, Mode::Train)?;
        let other = teacher.encode(texts, scores, Mode::Eval)?;
        let logits = self.model.classify(&own.features()?, Mode::Train)?;
        let labels = || aligned_teacher::known_cross_entropy(&logits, &batch.labels);
        let config = &self.config;
        let terms: [Term; 5] = [
            ("logits", config.logits, &|| self.logits(&logits, &other)),
            ("labels", config.labels, &labels),
            ("hidden", config.hidden, &|| self.hidden(&own, &other)),
            ("attention", config.attention, &|| Self::attention(&own, &other)),
            ("embeddings", config.embeddings, &|| self.embeddings(&own, &other)),
        ];
        let (mut loss, mut parts): (Option<Tensor>, Vec<(String, Tensor)>) = (None, Vec::new());
        for (name, weight, term) in terms.into_iter().filter(|(_, weight, _)| *weight > 0.0) {
            let term = term()?;
            let weighted = term.mul_scalar(weight)?;
            loss = Some(loss.map_or(Ok(weighted.clone()), |loss| loss.add(&weighted))?);
            parts.push((name.into(), term.detach()));
        }
        let loss = loss.ok_or_else(|| Error::argument("options", "all weights are 0"))?;
        Ok(TrainStep { parts, ..TrainStep::new(loss, []) })
    }

    fn begin(&self) -> Result<()> {
        if self.config.init == StudentInit::Own {
            return Ok(());
        }
        let depths = [text(&self.model.backbone)?.config().depth, text(self.teacher.network().backbone())?.config().depth];
        for slot in self.params.slots() {
            let Some(source) = Self::source(&slot.name, depths) else { continue };
            let (Some(own), Some(other)) = (self.params.get(&slot.name), self.teacher.parameters().get(&source)) else { continue };
            let other = other.detach()?;
            if *other.shape() != slot.shape {
                let message =
                    format!("the teacher's {source} is {}, the student's {} {}; set it to own", other.shape(), slot.name, slot.shape);
                return Err(Error::argument("init", message));
            }
            own.detach()?.copy_from(&other)?;
        }
        self.params.bump_versions(false);
        Ok(())
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }

    fn heads(&self) -> Vec<&str> {
        let head = self.model.backbone.head();
        if self.projection.is_some() { vec![head, Self::HEAD] } else { vec![head] }
    }
}

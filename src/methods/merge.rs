//! Several teachers merged: each knows some of the classes, and one student learns them all from
//! images without true labels.
//!
//! `naive` is unified heterogeneous knowledge distillation (Vongkulbhisal, Vinayavekhin and
//! Visentini-Scarzanella 2019, arXiv:1904.06062, equation 5): the sum over teachers of the cross
//! entropy between what it says and what the student says among its classes. Among disjoint
//! teachers that leaves open which of them an image belongs to: the gradient of each teacher's
//! logits sums to 0. The other two say it. `domain`: each image comes with a tag, the teachers that
//! know its class; their mean, with 0 for all other classes, is what the student should say. The
//! tag is all that is taken of labels. `gate`: nothing is known, and the teacher answers that is
//! surest of itself, by energy (Liu et al. 2020, arXiv:2010.03759, at temperature 1) or by its
//! largest probability (Hendrycks and Gimpel 2017, arXiv:1610.02136).
//!
//! All are cross entropies, means over the batch, at `temperature` T of teacher and student, times
//! T^2. `wgrad eval` says of a merged student how well it, and either gate, tell the teachers'
//! domains apart.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::unlabelled::one_hot;
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, Teacher, TrainStep, TrainedNetwork};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::Tensor;

/// How it is found which teacher is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Not at all: each is asked about its own classes only.
    Naive,
    /// By a tag that each image has.
    #[default]
    Domain,
    /// By how sure they are.
    Gate,
}

/// How sure of an image a teacher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Minus its energy, logsumexp of its logits.
    #[default]
    Energy,
    /// Its largest probability.
    Probability,
}

impl Gate {
    /// How sure it is, `[N, 1]`, by its logits `[N, K]`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn score(self, logits: &Tensor) -> Result<Tensor> {
        match self {
            Self::Energy => logits.logsumexp(&[1], true),
            Self::Probability => logits.softmax(1)?.max(&[1], true),
        }
    }
}

/// How teachers are merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MergeConfig {
    /// How it is found which teacher is right.
    pub choice: Choice,
    /// Divides the logits of teachers and student.
    pub temperature: f32,
    /// What the gate goes by.
    pub gate: Gate,
    /// Divides the gate's scores, of which the softmax over teachers is each one's weight; 0: the
    /// surest alone answers.
    pub softness: f32,
}

impl Default for MergeConfig {
    fn default() -> Self {
        Self { choice: Choice::Domain, temperature: 1.0, gate: Gate::Energy, softness: 0.0 }
    }
}

/// A teacher, and where its classes are among the student's.
struct Member {
    teacher: Arc<Teacher>,
    /// i32 `[K]`
    classes: Tensor,
    /// `[K, C]`, one-hot.
    places: Tensor,
}

/// One student of several teachers.
pub struct Merge {
    model: Classifier<Box<dyn Backbone>>,
    config: MergeConfig,
    members: Vec<Member>,
    /// Each teacher's weight for each image of the data set, `[images, teachers]`: where images
    /// have a tag.
    tags: Option<Tensor>,
    /// One-hot, `[teachers, teachers]`.
    one_hot: Tensor,
}

fn wrong(message: impl Into<String>) -> Error {
    Error::argument("teachers", message)
}

fn member(gpu: &Gpu, teacher: &Arc<Teacher>, classes: usize) -> Result<Member> {
    let own = teacher.classes();
    if own.is_empty() {
        return Err(wrong(format!("{} is an encoder without a classifier; train one", teacher.name())));
    }
    if let Some(outside) = own.iter().find(|class| **class >= classes) {
        return Err(wrong(format!("{} knows class {outside}, the student has {classes}", teacher.name())));
    }
    let numbers: Vec<i32> = own.iter().map(|class| *class as i32).collect();
    let numbers = Tensor::from_slice(gpu, &numbers, [own.len()])?;
    Ok(Member { teacher: teacher.clone(), places: one_hot(gpu, classes, 0)?.index_select(0, &numbers)?, classes: numbers })
}

/// Each image's weights of the teachers that know its class, which add up to 1; all 0 where its
/// label is hidden.
fn tags(teachers: &[Arc<Teacher>], labels: &[i32]) -> Vec<f32> {
    let row = |label: &i32| {
        let knows: Vec<bool> = teachers.iter().map(|teacher| teacher.classes().iter().any(|class| *class as i32 == *label)).collect();
        let part = 1.0 / knows.iter().filter(|knows| **knows).count().max(1) as f32;
        knows.into_iter().map(move |knows| if knows { part } else { 0.0 })
    };
    labels.iter().flat_map(row).collect()
}

impl MethodFactory for Merge {
    const CARD: MethodCard = MethodCard {
        name: "merge",
        title: "Merged teachers",
        text: "One student of teachers that know different classes",
        supervision: Supervision::Distillation,
        family: "distillation",
        year: 2019,
        authors: "Vongkulbhisal, Vinayavekhin, Visentini-Scarzanella",
        paper: "Unifying Heterogeneous Classifiers with Distillation, arXiv:1904.06062; gate: Liu et al. 2020, arXiv:2010.03759",
        related: &["distillation"],
    };

    type Config = MergeConfig;

    fn uses_labels(_config: &MergeConfig) -> bool {
        false
    }

    fn new(params: &Parameters, build: Build, config: MergeConfig, context: &MethodContext) -> Result<Self> {
        let (gpu, teachers) = (params.gpu(), &context.teachers);
        for (key, value, least) in [("temperature", config.temperature, f32::MIN_POSITIVE), ("softness", config.softness, 0.0)] {
            if !(value.is_finite() && value >= least) {
                return Err(Error::argument(key, format!("expected a number of {least} and more, found {value}")));
            }
        }
        if teachers.is_empty() {
            return Err(wrong("it merges finished runs: set `teachers` to their directories, with commas between"));
        }
        let members = teachers.iter().map(|teacher| member(gpu, teacher, context.classes)).collect::<Result<Vec<_>>>()?;
        if let Some(unknown) = (0..context.classes).find(|class| !teachers.iter().any(|teacher| teacher.classes().contains(class))) {
            return Err(wrong(format!("none of them knows class {unknown}; leave it out by `classes`")));
        }
        let model = Classifier::new(params, build(params)?, context.classes)?;
        let tags = (config.choice == Choice::Domain).then(|| tags(teachers, &context.labels));
        let tags = tags.map(|tags| Tensor::from_slice(gpu, &tags, [context.labels.len(), teachers.len()])).transpose()?;
        Ok(Self { model, config, members, tags, one_hot: one_hot(gpu, teachers.len(), 0)? })
    }
}

impl Merge {
    /// The sum over teachers of the cross entropies among their classes.
    fn naive(&self, logits: &Tensor, said: &[Tensor]) -> Result<Tensor> {
        let loss = |(member, said): (&Member, &Tensor)| {
            logits.index_select(1, &member.classes)?.soft_cross_entropy(&said.softmax_with_temperature(1, self.config.temperature)?)
        };
        let losses = self.members.iter().zip(said).map(loss).collect::<Result<Vec<_>>>()?;
        sum(losses)
    }

    /// The cross entropy among all classes, with what the teachers say by their `weights` `[N,
    /// teachers]`.
    fn weighted(&self, logits: &Tensor, said: &[Tensor], weights: &Tensor) -> Result<Tensor> {
        let target = |(at, (member, said)): (usize, (&Member, &Tensor))| {
            said.softmax_with_temperature(1, self.config.temperature)?.mul(&weights.slice(1, at, at + 1)?)?.matmul(&member.places)
        };
        let targets = self.members.iter().zip(said).enumerate().map(target).collect::<Result<Vec<_>>>()?;
        logits.soft_cross_entropy(&sum(targets)?)
    }

    /// How much each teacher is believed by how sure it is, `[N, teachers]`.
    fn gate_weights(&self, said: &[Tensor]) -> Result<Tensor> {
        let scores = said.iter().map(|said| self.config.gate.score(said)).collect::<Result<Vec<_>>>()?;
        let scores = Tensor::concat(&scores.iter().collect::<Vec<_>>(), 1)?;
        if self.config.softness > 0.0 {
            scores.softmax_with_temperature(1, self.config.softness)
        } else {
            self.one_hot.embedding(&scores.argmax(1)?)
        }
    }
}

fn sum(tensors: Vec<Tensor>) -> Result<Tensor> {
    let mut tensors = tensors.into_iter();
    let first = tensors.next().ok_or_else(|| wrong("there are none"))?;
    tensors.try_fold(first, |sum, next| sum.add(&next))
}

impl Method for Merge {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let temperature = self.config.temperature;
        let logits = self.model.forward(images, Mode::Train)?.mul_scalar(1.0 / temperature)?;
        let said = self.members.iter().map(|member| member.teacher.logits(images, &batch.indices)).collect::<Result<Vec<_>>>()?;
        let loss = match (self.config.choice, &self.tags) {
            (Choice::Naive, _) => self.naive(&logits, &said)?,
            (Choice::Domain, Some(tags)) => self.weighted(&logits, &said, &tags.index_select(0, &batch.indices)?)?,
            _ => self.weighted(&logits, &said, &self.gate_weights(&said)?)?,
        };
        Ok(TrainStep::new(loss.mul_scalar(temperature * temperature)?, []))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }
}

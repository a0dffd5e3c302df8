//! What methods are made from.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Method, MethodCard, Supervision, Teacher};
use crate::error::Result;
use crate::gpu::{Scalar, ScalarCell};
use crate::models::Backbone;
use crate::nn::Parameters;
use crate::optim::Schedule;
use crate::tensor::InputShape;

/// Makes the encoder in a home of parameters: once for the network, again for its teacher.
pub type Build<'a> = &'a dyn Fn(&Parameters) -> Result<Box<dyn Backbone>>;

/// Where a run stands. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Optimizer steps taken before the step under way; whoever drives the steps sets it.
    pub step: ScalarCell<u64>,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

impl Clock {
    /// The schedule's value at each step.
    pub fn scalar(&self, schedule: Schedule) -> Scalar {
        self.step.scalar().map(move |step| schedule.rate(step))
    }
}

/// What a method is told of the run.
#[derive(Debug, Clone, Default)]
pub struct MethodContext {
    /// Where the run stands.
    pub clock: Clock,
    /// Classes of the data set.
    pub classes: usize,
    /// What the first view is.
    pub input: InputShape,
    /// Decides what the method draws on its own.
    pub seed: u32,
    /// How many shards a step's batch consists of, of which the loss sees one at a time; one where
    /// it is 0.
    pub shards: usize,
    /// The label of every image of the data set, by its place there, [`HIDDEN`](super::HIDDEN)
    /// where it is not known.
    pub labels: Arc<[i32]>,
    /// What else is known of the images, beyond their class.
    pub tasks: Vec<TaskLabels>,
    /// Finished networks to learn from.
    pub teachers: Vec<Arc<Teacher>>,
}

/// One more thing that is known of every image: a label among some classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskLabels {
    /// What it is called; its head stands in the scope of this name.
    pub name: String,
    /// How many classes it has.
    pub classes: usize,
    /// The label of every image of the data set, by its place there, [`HIDDEN`](super::HIDDEN)
    /// where it is not known.
    pub labels: Arc<[i32]>,
}

/// A method that is made from a configuration.
pub trait MethodFactory: Method + Sized + 'static {
    /// Its settings: what a recipe's `[method]` holds beside the name.
    type Config: Default + Serialize + DeserializeOwned;

    /// Its card.
    const CARD: MethodCard;

    /// The scopes of its own heads, beside the network's classifier: all that [`Method::heads`] may
    /// give. Weights of another task lose them when training begins from a file.
    const HEADS: &'static [&'static str] = &[];

    /// The smallest batch: most losses compare the images of a batch, or normalise over it.
    const MIN_BATCH: usize = 2;

    /// Whether it asks teachers for logits: these are computed once where every epoch shows the
    /// same images.
    const TEACHER_LOGITS: bool = true;

    /// Whether it looks at labels, set up like this. Not where images or teachers are all that it
    /// learns from.
    fn uses_labels(_config: &Self::Config) -> bool {
        Self::CARD.supervision != Supervision::SelfSupervised
    }

    /// Makes networks and state in the scope `params`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::error::Error::Argument) for settings without a meaning; out of
    /// memory; a name that is taken with another shape.
    fn new(params: &Parameters, build: Build, config: Self::Config, context: &MethodContext) -> Result<Self>;
}

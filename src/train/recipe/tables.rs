//! The tables of a recipe: what each key is.
//!
//! A table of which only the key is given that is named first here may be written as that value
//! alone: `model = "resnet18"` is `[model] name = "resnet18"`, as Cargo reads its dependencies.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Table;

use crate::data::{Class, ClassGroup, PictureOptions, TaskGroups, Views};
use crate::error::{Error, Result};
use crate::gpu::Precision;
use crate::nn::ParameterGroup;
use crate::optim::{GradScalerOptions, OptimizerOptions, Rule, Schedule};

/// `[method]`: how it is trained, with the method's own settings beside its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodTable {
    /// Which, see [`METHODS`](crate::train::methods::METHODS).
    pub name: String,
    /// Its own settings: the fields of the configuration that [`methods`](crate::methods) has for
    /// it.
    #[serde(flatten)]
    pub settings: Table,
}

/// `[data]`: what is learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTable {
    /// A folder of MNIST or CIFAR files, of pictures (by folders, a list or tar archives), or of texts;
    /// or a file of packed pictures.
    pub path: PathBuf,
    /// Height and width that the network is given; 0 for the images' own. Of images that are no
    /// squares it is the centre.
    pub resolution: usize,
    /// Pictures of many sizes that random crops are taken from are shrunk to a short side of so many
    /// pixels where theirs is longer; 0: 3/2 of the resolution.
    pub short_side: usize,
    /// Threads that read and decode pictures; 0: one a core.
    pub workers: usize,
    /// Decoded pictures that are kept in memory, in MiB; the others are read again each epoch.
    pub memory_mib: usize,
    /// Pictures that cannot be read are listed and left out, where else the first of them is an error:
    /// all of them are read once before the first step.
    pub skip_bad: bool,
    /// Grey images become red, green and blue: for weights that were learnt on colours.
    pub rgb: bool,
    /// What images are normalised by, see [`NORMALIZATIONS`](crate::train::images::NORMALIZATIONS).
    pub normalize: String,
    /// Images of each class to learn from, chosen by the seed; 0 for all.
    pub per_class: usize,
    /// Classes that no image to learn from shows, though the network knows them: `[3, "Bag"]`.
    pub omit: Vec<Class>,
    /// Images of each class whose labels are known, chosen by the seed; those of all others are
    /// hidden. 0: all are known.
    pub labels_per_class: usize,
    /// The first so many images of each batch are some whose labels are known, the others not; an
    /// epoch is then all of these. 0: all alike.
    pub labelled_batch: usize,
    /// The share of labels that is replaced by any class, the same for each (symmetric noise); the
    /// seed says which.
    pub label_noise: f32,
    /// What the classes are: those of the data set, by number or name, and lists of several as one:
    /// `[[0, 2, 4], "Bag"]`. All of them as they are where it is empty. Images of other classes are
    /// left out, of the test images, too.
    pub classes: Vec<ClassGroup>,
    /// What else is to be told apart, for `multitask`, a table for each task:
    /// `{ name = "kind", classes = [[5, 7, 9], [0, 2]] }`. Those of `train_tasks.csv` in the folder
    /// of the data come first.
    pub tasks: Vec<TaskGroups>,
}

/// `[model]`: the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTable {
    /// Which, see `wgrad models`.
    pub name: String,
    /// Multiplies the network's own width.
    pub width: f32,
    /// Stride of the first convolution; 0 for the network's own.
    pub stem_stride: usize,
    /// Dropout before the classifier.
    pub drop_rate: f32,
    /// Stochastic depth of the last block; earlier ones have less, in proportion.
    pub drop_path: f32,
}

/// `[optimizer]`: how gradients change the weights. The settings that only some optimizers have
/// stand beside the others; one that the chosen optimizer does not have is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerTable {
    /// Which, with the settings that it alone has: `momentum`, `betas`, and so on.
    #[serde(flatten)]
    pub rule: Rule,
    /// The schedule's peak.
    pub learning_rate: f32,
    /// L2 penalty of `sgd`, `adam`, `rmsprop` and `lars`, decoupled decay of `adamw`.
    pub weight_decay: f32,
    /// The weight decay of the last step, along half a cosine; 0 for a constant one.
    pub weight_decay_end: f32,
    /// Biases and normalisations are not decayed; `lars` then takes their gradients as they are.
    pub exclude_bias_and_norm: bool,
    /// Nor are depthwise convolutions.
    pub exclude_depthwise: bool,
    /// Gradients of a larger norm are scaled down to it; 0 for none.
    pub clip_norm: f32,
    /// The same for each parameter's gradient by itself (DINO's 3); 0 for none.
    pub clip_each: f32,
}

impl OptimizerTable {
    /// The settings that every optimizer has, which another optimizer's name leaves as they are.
    pub(super) const COMMON: [&str; 7] =
        ["learning_rate", "weight_decay", "weight_decay_end", "exclude_bias_and_norm", "exclude_depthwise", "clip_norm", "clip_each"];

    /// What [`Rule::build`] takes beside the parameters.
    pub fn options(&self) -> OptimizerOptions {
        OptimizerOptions {
            weight_decay: self.weight_decay,
            exclude_bias_and_norm: self.exclude_bias_and_norm,
            exclude_depthwise: self.exclude_depthwise,
            clip_norm: (self.clip_norm > 0.0).then_some(self.clip_norm),
            clip_each: (self.clip_each > 0.0).then_some(self.clip_each),
            gradient_scale: 1.0,
        }
    }
}

/// `[precision]`: in which types is computed, and the loss scale of mixed precision.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PrecisionTable {
    /// `f32` or `mixed`.
    pub name: Precision,
    /// The loss scale, which only `mixed` has.
    #[serde(flatten)]
    pub scaler: GradScalerOptions,
}

/// `[memory]`: what is traded for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryTable {
    /// Training keeps of each block of the network its input alone, and runs it again on the way
    /// back: less memory, more time, the same bits.
    pub checkpoint_blocks: bool,
}

/// `[parallel]`: what a step's batch consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParallelTable {
    /// Parts of a batch that are computed one after the other, or by several processes (`mpirun`): a
    /// power of two. Losses that compare images see the whole batch.
    pub shards: usize,
    /// Batch norm sees the whole batch, too, and not a shard at a time: a process then has the
    /// activations of all of its shards in memory.
    pub sync_batch_norm: bool,
}

impl Default for ParallelTable {
    fn default() -> Self {
        Self { shards: 1, sync_batch_norm: false }
    }
}

/// `[validation]`: what is looked at while the run goes on. Looking changes nothing that is computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationTable {
    /// The share of each class's images, chosen by the seed, that is not learnt from but judged by; 0
    /// for none.
    pub split: f32,
    /// Epochs from one look to the next; the last epoch has one, too.
    pub every: u32,
    /// How many of these images are looked at, at most; 0 for all.
    pub images: usize,
    /// Early stopping: the run ends after so many looks that were not better than the best; 0: it
    /// goes on to its last epoch.
    pub patience: u32,
    /// A look is better where its accuracy is higher by more than this.
    pub min_delta: f32,
}

impl Default for ValidationTable {
    fn default() -> Self {
        Self { split: 0.0, every: 1, images: 0, patience: 0, min_delta: 0.0 }
    }
}

/// `[schedule]`: the learning rate over the run. Its peak is [`OptimizerTable::learning_rate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleTable {
    /// Always the peak.
    Constant {},
    /// From the peak along half a cosine.
    Cosine {
        /// Epochs, also parts of one, over which the rate first rises in a straight line.
        warm_up_epochs: f32,
        /// The last rate.
        minimum_learning_rate: f32,
    },
    /// PyTorch's `CosineAnnealingWarmRestarts`: from the peak along half a cosine, again and again.
    WarmRestarts {
        /// Epochs of the first cycle.
        restart_epochs: u32,
        /// A cycle's epochs over those of the one before it.
        restart_factor: u32,
        /// What each cycle falls to.
        minimum_learning_rate: f32,
    },
    /// PyTorch's `OneCycleLR`: up to the peak and down again, both along half a cosine.
    OneCycle {
        /// Part of the steps before the peak.
        pct_start: f32,
        /// The peak over the first rate.
        div_factor: f32,
        /// The first rate over the last.
        final_div_factor: f32,
    },
    /// PyTorch's `StepLR`: stairs.
    Step {
        /// Epochs of a stair.
        step_epochs: u32,
        /// Times this at each stair.
        gamma: f32,
    },
}

impl ScheduleTable {
    /// The names that [`Self::named`] knows.
    pub const NAMES: [&str; 5] = ["constant", "cosine", "warm_restarts", "one_cycle", "step"];

    /// The schedule called `name`: `cosine` without warm-up down to 0, the others with PyTorch's
    /// defaults, cycles of 10 epochs, stairs of 30.
    ///
    /// # Errors
    /// [`Error::Argument`] for another name, with those that there are.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "constant" => Self::Constant {},
            "cosine" => Self::Cosine { warm_up_epochs: 0.0, minimum_learning_rate: 0.0 },
            "warm_restarts" => Self::WarmRestarts { restart_epochs: 10, restart_factor: 1, minimum_learning_rate: 0.0 },
            "one_cycle" => Self::OneCycle { pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 },
            "step" => Self::Step { step_epochs: 30, gamma: 0.1 },
            other => return Err(Error::unknown("schedule", other, Self::NAMES)),
        })
    }

    /// The rate of each of `epochs` times `steps_per_epoch` steps, with its peak at `rate`.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings without a meaning.
    pub fn over(&self, rate: f32, epochs: u32, steps_per_epoch: u64) -> Result<Schedule> {
        let steps = steps_per_epoch * u64::from(epochs);
        let schedule = match *self {
            Self::Constant {} => Schedule::Constant { rate },
            Self::Cosine { warm_up_epochs, minimum_learning_rate } => {
                let warm_up = (f64::from(warm_up_epochs) * steps_per_epoch as f64).round() as u64;
                Schedule::cosine([rate, minimum_learning_rate], warm_up, steps)
            }
            Self::WarmRestarts { restart_epochs, restart_factor, minimum_learning_rate: end } => {
                Schedule::WarmRestarts { rate, end, first: steps_per_epoch * u64::from(restart_epochs), factor: restart_factor }
            }
            Self::OneCycle { pct_start, div_factor, final_div_factor } => {
                Schedule::OneCycle { rate, steps, pct_start, div_factor, final_div_factor }
            }
            Self::Step { step_epochs, gamma } => Schedule::Step { rate, gamma, step_size: steps_per_epoch * u64::from(step_epochs) },
        };
        schedule.check().map(|()| schedule)
    }
}

/// `[augmentation]`: what the network is shown of an image.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentationTable {
    /// One [preset](crate::data::Augmentation::preset) for all views, or a list with one for each:
    /// `["dino_global_1", "dino_global_2", { preset = "dino_local", count = 8 }]`.
    pub views: Views,
}

/// `[finetune]`: the weights to begin from, and which of them are trained how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneTable {
    /// A file of weights to begin from; none where it is empty. A head for other classes starts
    /// anew.
    pub weights: PathBuf,
    /// What is not trained: patterns (see [`matches()`](crate::nn::matches())), in their order;
    /// `backbone` is all but the head, and `!PATTERN` is trained after all.
    pub freeze: Vec<String>,
    /// Gradual unfreezing (Howard and Ruder 2018): the head learns alone for so many epochs, then
    /// with the last layer, and so on, a layer more every so many epochs; layers are those of
    /// [`layer_decay`](crate::nn::layer_decay). 0: all learn from the start.
    pub unfreeze_every: u32,
    /// Batch norms normalise by their running statistics and keep them; scale and shift are
    /// trained.
    pub freeze_batch_norm: bool,
    /// The learning rate's factor from one layer to that before it, see
    /// [`layer_decay`](crate::nn::layer_decay); 1 for none.
    pub layer_decay: f32,
    /// Factors of learning rate and weight decay: `{ match = "classifier", lr_scale = 10 }`.
    pub groups: Vec<GroupTable>,
}

/// An entry of [`FinetuneTable::groups`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupTable {
    /// Which parameters, see [`matches()`](crate::nn::matches()).
    #[serde(rename = "match")]
    pub pattern: String,
    /// Multiplies the learning rate.
    #[serde(default = "one")]
    pub lr_scale: f32,
    /// Multiplies the weight decay.
    #[serde(default = "one")]
    pub weight_decay_scale: f32,
}

fn one() -> f32 {
    1.0
}

impl From<&GroupTable> for ParameterGroup {
    fn from(group: &GroupTable) -> Self {
        Self { pattern: group.pattern.clone(), learning_rate: group.lr_scale, weight_decay: group.weight_decay_scale }
    }
}

impl Default for DataTable {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/fashion-mnist"),
            resolution: 0,
            short_side: 0,
            workers: 0,
            memory_mib: PictureOptions::MEMORY_MIB,
            skip_bad: false,
            rgb: false,
            normalize: "auto".into(),
            per_class: 0,
            omit: Vec::new(),
            labels_per_class: 0,
            labelled_batch: 0,
            label_noise: 0.0,
            classes: Vec::new(),
            tasks: Vec::new(),
        }
    }
}

impl Default for ModelTable {
    fn default() -> Self {
        Self { name: "mobilenetv1_025".into(), width: 1.0, stem_stride: 1, drop_rate: 0.0, drop_path: 0.0 }
    }
}

impl Default for OptimizerTable {
    fn default() -> Self {
        Self {
            rule: Rule::Sgd { momentum: 0.9, nesterov: true },
            learning_rate: 0.2,
            weight_decay: 5e-4,
            weight_decay_end: 0.0,
            exclude_bias_and_norm: true,
            exclude_depthwise: false,
            clip_norm: 0.0,
            clip_each: 0.0,
        }
    }
}

impl Default for ScheduleTable {
    fn default() -> Self {
        Self::OneCycle { pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 }
    }
}

impl Default for FinetuneTable {
    fn default() -> Self {
        Self {
            weights: PathBuf::new(),
            freeze: Vec::new(),
            unfreeze_every: 0,
            freeze_batch_norm: false,
            layer_decay: 1.0,
            groups: Vec::new(),
        }
    }
}

//! How a model is trained: a step's loss, what happens after the update, and the state to keep.
//! `train` drives them.
//!
//! A method is a file of about a page: a configuration, the networks, the loss, and what is updated
//! after the step. All of them are made by one call ([`MethodFactory::new`]) from a home of
//! parameters, a function that builds the encoder, and a [`MethodContext`].

mod aligned_teacher;
mod autoencoder;
mod barlow_twins;
mod byol;
mod card;
mod coarse_to_fine;
mod context;
mod contrastive_distillation;
mod covariance;
mod decoupled_distillation;
mod dino;
mod distillation;
mod embedder;
mod embedding_distillation;
mod feature_distillation;
mod fixmatch;
mod info_nce;
mod jigsaw;
mod mae;
mod masked_tokens;
mod mean_teacher;
mod merge;
mod mixing;
mod moco;
mod moco_v3;
mod multitask;
mod mutual;
mod nnclr;
mod partial_labels;
mod pseudo_label;
mod queue;
mod rotation;
mod self_distillation;
mod simclr;
mod simsiam;
mod step;
mod supcon;
mod supervised;
mod swav;
mod teacher;
mod trained_network;
mod transformer_distillation;
mod unlabelled;
mod vae;
mod vicreg;

/// Every method: the module that its recipes are named after, and its type. `$then!` is given the
/// list.
macro_rules! every_method {
    ($then:ident) => {
        $then! {
            supervised Supervised,
            simclr SimClr,
            moco Moco,
            moco_v3 MocoV3,
            byol Byol,
            simsiam SimSiam,
            dino Dino,
            barlow_twins BarlowTwins,
            vicreg VicReg,
            swav SwAv,
            nnclr NnClr,
            supcon SupCon,
            rotation Rotation,
            jigsaw Jigsaw,
            mae Mae,
            autoencoder Autoencoder,
            vae Vae,
            distillation Distillation,
            decoupled_distillation DecoupledDistillation,
            feature_distillation FeatureDistillation,
            contrastive_distillation ContrastiveDistillation,
            embedding_distillation EmbeddingDistillation,
            mutual Mutual,
            self_distillation SelfDistillation,
            merge Merge,
            pseudo_label PseudoLabel,
            mean_teacher MeanTeacher,
            fixmatch FixMatch,
            partial_labels PartialLabels,
            coarse_to_fine CoarseToFine,
            multitask Multitask,
            masked_tokens MaskedTokens,
            transformer_distillation TransformerDistillation,
        }
    };
}
#[cfg(feature = "cli")]
pub(crate) use every_method;

/// What is public in a method's file is public here.
macro_rules! publish {
    ($($module:ident $method:ident,)*) => { $(pub use $module::*;)* };
}
every_method!(publish);

pub use card::{MethodCard, Supervision};
pub use context::{Build, Clock, MethodContext, MethodFactory, TaskLabels};
pub use embedder::{EmaTeacher, EmaTeacherConfig, Embedder};
pub use step::{Batch, Contrast, Kept, Queue, TrainStep};
pub use teacher::Teacher;
pub use trained_network::TrainedNetwork;

use crate::autograd::Gradients;
use crate::error::Result;
use crate::models::Backbone;
use crate::nn::Parameters;
pub use crate::ops::loss::HIDDEN;
use crate::tensor::Tensor;

/// One learning method. [`Self::loss`] and [`Self::after_update`] are recorded and replayed: they
/// neither upload nor read, and numbers that vary in them are live [`Scalar`](crate::gpu::Scalar)s
/// of the [`Clock`].
pub trait Method: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// How many views of each image a step takes where one augmentation serves for all of them.
    fn views(&self) -> usize {
        1
    }

    /// Runs once a step, before the losses of its shards: averages that move first.
    ///
    /// # Errors
    /// Those of their kernels.
    fn begin_step(&self) -> Result<()> {
        Ok(())
    }

    /// The loss of one shard of a step; most steps are one shard.
    ///
    /// # Errors
    /// Those of the model's operators; other views than it takes.
    fn loss(&self, batch: &Batch) -> Result<TrainStep>;

    /// Where the loss compares images of the whole batch, which shards then share, its two halves.
    /// Without them a step's loss is the mean of its shards' losses.
    fn contrast(&self) -> Option<&dyn Contrast> {
        None
    }

    /// The losses of a step that [`Self::combine`] is given gradients of.
    fn losses<'a>(&self, step: &'a TrainStep) -> Vec<&'a Tensor> {
        vec![&step.loss]
    }

    /// The gradients that the optimizer is given, of those of each of [`Self::losses`]: of several
    /// losses a method may combine its own. Of shards, `step` and `parts` are the whole step's.
    ///
    /// # Errors
    /// Those of its kernels.
    fn combine(&self, _step: &TrainStep, parts: Vec<Gradients>) -> Result<Gradients> {
        Ok(parts.into_iter().next().unwrap_or_default())
    }

    /// The gradients that the optimizer is given, of a step of one shard.
    ///
    /// # Errors
    /// Those of going backwards.
    fn gradients(&self, step: &TrainStep) -> Result<Gradients> {
        self.combine(step, step.backward_each(&self.losses(step))?)
    }

    /// Runs after the optimizer's update, on what [`Self::loss`] gave: averages, queues, centres. Of
    /// shards, `step` is the whole step: losses are means, and what it kept has the rows of all
    /// images.
    ///
    /// # Errors
    /// Those of their kernels.
    fn after_update(&self, _step: &TrainStep) -> Result<()> {
        Ok(())
    }

    /// Runs once, when the parameters have the values that the run begins with: teachers become
    /// copies.
    ///
    /// # Errors
    /// A lost device.
    fn begin(&self) -> Result<()> {
        Ok(())
    }

    /// Runs before each epoch, and when one is resumed: what is frozen for some of them.
    ///
    /// # Errors
    /// A pattern that no parameter has.
    fn begin_epoch(&mut self, _epoch: u32) -> Result<()> {
        Ok(())
    }

    /// What is used after training: the encoder, or the classifier where it learns one.
    fn network(&self) -> TrainedNetwork<'_>;

    /// Images to features.
    fn encoder(&self) -> &dyn Backbone {
        self.network().encoder()
    }

    /// The scopes of what lies behind the encoder.
    fn heads(&self) -> Vec<&str> {
        self.network().heads()
    }

    /// Tensors beyond the parameters that a checkpoint must hold, by name.
    fn state(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    /// Parameters that are averages, which a checkpoint must hold, too, by name.
    fn averages(&self) -> Vec<(&'static str, &Parameters)> {
        Vec::new()
    }

    /// Numbers that the host knows, to watch by name: the present momentum or temperature.
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// What is likely to be wrong where embeddings collapse.
    fn collapse_hint(&self) -> &'static str {
        "lower the learning rate"
    }
}

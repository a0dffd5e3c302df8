//! Layers over one home of named parameters.
//!
//! A layer is made inside a scope of [`Parameters`], is called with a [`Mode`], and knows how its
//! output shape follows from its input's ([`Module::summarize`]), so that a model's cost is known
//! before it runs.

mod blocks;
pub mod groups;
pub mod init;
pub mod layers;
pub mod parameters;
pub mod state_dict;
pub mod summary;

pub use blocks::Blocks;
pub use groups::{ParameterGroup, layer_decay, matches};
pub use init::Init;
pub use layers::{BatchNorm, BatchNormOptions, Conv2d, Conv2dOptions, ConvNorm, DepthwiseConv2d, DropPath, Dropout, Embedding};
pub use layers::{LayerNorm, Linear, LinearOptions, SqueezeExcite, SqueezeExciteOptions};
pub use parameters::{Counter, Kind, Parameter, ParameterSlot, Parameters, Role};
pub use summary::Summary;

use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// How a network is run. There is no other switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Batch statistics, dropout, recorded.
    Train,
    /// Running statistics, nothing recorded: layers read their parameters detached.
    Eval,
    /// Running statistics, recorded: for fine-tuning with frozen batch norm.
    FrozenNorm,
    /// As `Train`, a second time in the same step: running statistics stay as they are
    /// ([`checkpoint`](crate::autograd::checkpoint)).
    TrainAgain,
}

impl Mode {
    /// Whether batch statistics and dropout are used.
    pub fn is_training(self) -> bool {
        matches!(self, Self::Train | Self::TrainAgain)
    }

    /// What a second run of the same step is run in.
    #[must_use]
    pub fn again(self) -> Self {
        if self == Self::Train { Self::TrainAgain } else { self }
    }
}

/// What batch norms ask of the other shards of a step, so that they see the whole batch.
pub trait Joint: Send + Sync {
    /// The mean over the shards of `x`, of which every shard has its own, on the tape.
    ///
    /// # Errors
    /// Where another shard failed, or a process does not answer.
    fn mean(&self, x: &Tensor) -> Result<Tensor>;

    /// How many there are.
    fn shards(&self) -> usize;

    /// Whether the shard under way is the one that moves running statistics.
    fn leads(&self) -> bool;
}

/// A layer or a network of one input and one output.
pub trait Module: Send + Sync {
    /// Runs it.
    ///
    /// # Errors
    /// Those of its operators.
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor>;

    /// The shape of the output for an input of shape `input`, without running; adds each layer's
    /// size and cost to `summary`.
    ///
    /// # Errors
    /// A shape that it cannot take.
    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape>;

    /// Multiplies every batch norm into the convolution before it: [`Mode::Eval`] then runs fewer
    /// kernels and gives the same answers up to rounding. What is trained or loaded afterwards
    /// needs another call. Does nothing for a layer that has no such pair.
    ///
    /// # Errors
    /// Out of memory; a lost device.
    fn fold(&mut self) -> Result<()> {
        Ok(())
    }
}

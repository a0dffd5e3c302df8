//! The blocks of a network, one after another.

use std::sync::Arc;

use super::{Mode, Module, Summary};
use crate::autograd::{Pass, checkpoint};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// Blocks that are run one after another. With checkpoints ([`Self::set_checkpoints`]) each keeps
/// its input alone, and is run again by the backward pass.
pub struct Blocks<B> {
    blocks: Vec<Arc<B>>,
    checkpoints: bool,
}

impl<B> From<Vec<B>> for Blocks<B> {
    fn from(blocks: Vec<B>) -> Self {
        Self { blocks: blocks.into_iter().map(Arc::new).collect(), checkpoints: false }
    }
}

impl<B: Module + 'static> Blocks<B> {
    /// Whether training keeps each block's input alone: less memory, a second forward pass, the same
    /// bits.
    pub fn set_checkpoints(&mut self, on: bool) {
        self.checkpoints = on;
    }
}

impl<B: Module + 'static> Module for Blocks<B> {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.blocks.iter().try_fold(x.clone(), |x, block| {
            if !self.checkpoints || mode == Mode::Eval {
                return block.forward(&x, mode);
            }
            let block = block.clone();
            checkpoint(&x, move |x, pass| block.forward(x, if pass == Pass::Again { mode.again() } else { mode }))
        })
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        self.blocks.iter().try_fold(input.clone(), |shape, block| block.summarize(&shape, summary))
    }

    fn fold(&mut self) -> Result<()> {
        let busy = || Error::argument("fold", "a step that was recorded still holds a block; fold when it is done");
        self.blocks.iter_mut().try_for_each(|block| Arc::get_mut(block).ok_or_else(busy)?.fold())
    }
}

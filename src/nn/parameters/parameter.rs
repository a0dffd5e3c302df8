//! Handles of a home's entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Home, ParameterSlot, Role, lock};
use crate::error::{Error, Result};
use crate::nn::Mode;
use crate::tensor::Tensor;

/// A handle of one slot.
#[derive(Clone)]
pub struct Parameter {
    pub(super) home: Arc<Home>,
    pub(super) index: usize,
}

/// A batch norm's count of training batches, an I64 scalar in files.
#[derive(Debug, Clone)]
pub struct Counter(pub(super) Arc<AtomicU64>);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Parameter {
    /// The contents as a layer in this mode sees them: watched in training and frozen mode, unless
    /// the parameter itself is frozen, a statistic, or part of a snapshot.
    ///
    /// # Errors
    /// [`Error::Argument`] where the home has no such slot.
    pub fn tensor(&self, mode: Mode) -> Result<Tensor> {
        let state = lock(&self.home);
        let Some(entry) = state.entries.get(self.index) else { return Err(Error::argument("parameter", "it belongs to no home")) };
        let chunks = if entry.slot.role == Role::Statistic { &state.statistics } else { &state.values };
        let Some(chunk) = chunks.get(entry.slot.chunk) else { return Err(Error::argument(&entry.slot.name, "its chunk is missing")) };
        let view = chunk.tensor.slot(entry.slot.start, entry.slot.shape.clone(), entry.version.clone());
        let watch = self.home.trainable
            && self.home.recorded.load(Ordering::Relaxed)
            && mode != Mode::Eval
            && !entry.slot.frozen
            && entry.slot.role != Role::Statistic;
        Ok(if watch { view.with_origin(entry.origin.clone()) } else { view })
    }

    /// The contents, unwatched.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn detach(&self) -> Result<Tensor> {
        self.tensor(Mode::Eval)
    }

    /// The slot's description.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn slot(&self) -> Result<ParameterSlot> {
        let state = lock(&self.home);
        state.entries.get(self.index).map(|e| e.slot.clone()).ok_or_else(|| Error::argument("parameter", "it belongs to no home"))
    }

    /// The identity that gradients are looked up by.
    pub(crate) fn key(&self) -> Option<usize> {
        let state = lock(&self.home);
        state.entries.get(self.index).map(|e| Arc::as_ptr(&e.origin.node).cast::<()>() as usize)
    }
}

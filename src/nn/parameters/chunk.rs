//! The buffers behind a home's slots.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::tensor::{DType, Tensor};

/// One buffer of a role; grows by doubling, so views are made anew each time they are asked for.
pub(super) struct Chunk {
    pub(super) tensor: Tensor,
    pub(super) used: usize,
}

/// A place for `elements` more in the last chunk, or in a new one: the chunk's index and the first
/// element.
pub(super) fn reserve(gpu: &Gpu, chunks: &mut Vec<Chunk>, elements: usize, limit: usize, name: &str) -> Result<(usize, usize)> {
    if chunks.last().is_none_or(|c| c.used + elements > limit) {
        chunks.push(Chunk { tensor: Tensor::zeros(gpu, [elements], DType::F32)?, used: 0 });
    }
    let index = chunks.len() - 1;
    let Some(chunk) = chunks.last_mut() else { return Err(Error::argument(name, "no chunk")) };
    let needed = chunk.used + elements;
    if needed > chunk.tensor.numel() {
        chunk.tensor = resized(gpu, &chunk.tensor, needed.next_power_of_two().min(limit))?;
    }
    let start = chunk.used;
    chunk.used = needed;
    Ok((index, start))
}

/// A tensor of `elements` that begins with those of `tensor`, as many as fit, and ends with zeros.
pub(crate) fn resized(gpu: &Gpu, tensor: &Tensor, elements: usize) -> Result<Tensor> {
    let fresh = Tensor::zeros(gpu, [elements], DType::F32)?;
    let kept = tensor.numel().min(elements);
    fresh.slot(0, [kept], Arc::default()).copy_from(&tensor.slot(0, [kept], Arc::default()))?;
    Ok(fresh)
}

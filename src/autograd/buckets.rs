//! Gradients side by side, packed while the tape is walked.

use std::collections::HashSet;
use std::sync::Arc;

use super::backward::Sink;
use super::gradients::Gradients;
use super::tape::{Node, leaf_key};
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor};

/// Elements between the starts of packed gradients: 256 bytes, the alignment of a binding.
const ALIGNMENT: usize = 64;
/// How many buckets there are at most, for all but the smallest networks.
const BUCKETS: u64 = 8;
/// Bytes of a bucket at least: what is sent costs the time of a message, too.
const LEAST: u64 = 64 << 10;

/// Gradients side by side in one tensor, so that all of them are added, or travel, at once.
#[derive(Clone)]
pub struct PackedGradients {
    /// f32, one dimension.
    pub values: Tensor,
    /// Each watched tensor's node, and where its gradient begins.
    places: Vec<(Arc<Node>, usize, Shape)>,
}

impl PackedGradients {
    fn new(gradients: &[(Arc<Node>, Tensor)]) -> Result<Option<Self>> {
        let Some((_, any)) = gradients.first() else { return Ok(None) };
        let (mut places, mut length) = (Vec::new(), 0);
        for (node, gradient) in gradients {
            if gradient.dtype() != DType::F32 {
                return Err(Error::dtype("pack", format!("a gradient is {}, expected f32", gradient.spec())));
            }
            places.push((node.clone(), length, gradient.shape().clone()));
            length += gradient.numel().next_multiple_of(ALIGNMENT);
        }
        let values = Tensor::zeros(&any.gpu().plain(), [length], DType::F32)?;
        let version = Arc::default();
        for ((_, gradient), (_, start, shape)) in gradients.iter().zip(&places) {
            values.slot(*start, shape.clone(), Arc::clone(&version)).copy_from(gradient)?;
        }
        Ok(Some(Self { values, places }))
    }

    /// The gradients that were packed as `buckets`, as views of `values`, which take the place of
    /// theirs.
    pub fn unpack(buckets: &[Self], values: &[Tensor]) -> Gradients {
        let mut gradients = Gradients::default();
        for (bucket, values) in buckets.iter().zip(values) {
            let version = Arc::default();
            for (node, start, shape) in &bucket.places {
                gradients.insert(node, values.slot(*start, shape.clone(), Arc::clone(&version)));
            }
        }
        gradients
    }
}

/// Packs gradients as soon as they are final.
struct Buckets {
    /// Whose gradients are kept.
    watched: HashSet<usize>,
    /// Bytes after which a bucket is full.
    full: u64,
    open: Vec<(Arc<Node>, Tensor)>,
    bytes: u64,
    packed: Vec<PackedGradients>,
}

impl Buckets {
    fn pack(&mut self) -> Result<()> {
        if let Some(packed) = PackedGradients::new(&std::mem::take(&mut self.open))? {
            packed.values.gpu().mark();
            self.packed.push(packed);
        }
        self.bytes = 0;
        Ok(())
    }
}

impl Sink for Buckets {
    fn take(&mut self, leaf: &Arc<Node>, gradient: Tensor) -> Result<()> {
        if self.watched.contains(&(Arc::as_ptr(leaf) as usize)) {
            self.bytes += gradient.spec().bytes();
            self.open.push((leaf.clone(), gradient));
            if self.bytes >= self.full {
                self.pack()?;
            }
        }
        Ok(())
    }
}

impl Tensor {
    /// The gradients of `sum(self * cotangent)`, or of this loss, with respect to `watched`, packed in
    /// the order in which the walk finds them, the last layers' first. What is complete is there for
    /// others while the walk goes on: behind each bucket a program has a mark
    /// ([`Gpu::mark`](crate::gpu::Gpu::mark)). Tensors that have no gradient are passed over.
    ///
    /// # Errors
    /// As [`Self::backward_from`]; [`Error::Dtype`] where a gradient is not f32; [`Error::Autograd`]
    /// where there is none.
    pub fn backward_in_buckets(&self, cotangent: Option<&Tensor>, retain: bool, watched: &[Tensor]) -> Result<Vec<PackedGradients>> {
        let full = (watched.iter().map(|x| x.spec().bytes()).sum::<u64>() / BUCKETS).max(LEAST);
        let watched = watched.iter().filter_map(leaf_key).collect();
        let mut buckets = Buckets { watched, full, open: Vec::new(), bytes: 0, packed: Vec::new() };
        self.walk(cotangent, retain, &mut buckets)?;
        buckets.pack()?;
        if buckets.packed.is_empty() {
            return Err(Error::autograd("pack", "the loss depends on none of the parameters: all of them are frozen, or of another model"));
        }
        Ok(buckets.packed)
    }
}

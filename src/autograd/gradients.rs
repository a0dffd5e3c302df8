//! Gradients as values, looked up by the tensor that was watched.

use std::collections::HashMap;
use std::sync::Arc;

use super::tape::{Node, leaf_key};
use crate::error::{Error, Result};
use crate::gpu::{Kernel, Launch, kernel};
use crate::params;
use crate::tensor::Tensor;
use crate::tensor::rows::write_rows;

static ACCUMULATE: Kernel = kernel!("autograd/accumulate");

/// The gradients that one or several backward passes found.
#[derive(Clone, Default)]
pub struct Gradients {
    /// By the leaf's address, which stays its own as long as the leaf is held here.
    by_leaf: HashMap<usize, (Arc<Node>, Tensor)>,
}

impl std::fmt::Debug for Gradients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gradients of {} tensors", self.by_leaf.len())
    }
}

impl Gradients {
    pub(super) fn insert(&mut self, leaf: &Arc<Node>, gradient: Option<Tensor>) {
        if let Some(gradient) = gradient {
            self.by_leaf.insert(Arc::as_ptr(leaf) as usize, (leaf.clone(), gradient));
        }
    }

    /// The gradient with respect to `watched`, any handle of it; `None` where the loss does not depend on it.
    pub fn get(&self, watched: &Tensor) -> Option<&Tensor> {
        self.by_key(leaf_key(watched)?)
    }

    pub(crate) fn by_key(&self, key: usize) -> Option<&Tensor> {
        self.by_leaf.get(&key).map(|(_, gradient)| gradient)
    }

    /// How many watched tensors have a gradient.
    pub fn len(&self) -> usize {
        self.by_leaf.len()
    }

    /// Whether no watched tensor has a gradient.
    pub fn is_empty(&self) -> bool {
        self.by_leaf.is_empty()
    }

    /// Adds the gradients of another micro-batch or loss, term by term.
    ///
    /// # Errors
    /// Out of memory or a lost device.
    pub fn accumulate(&mut self, other: &Gradients) -> Result<()> {
        for (key, (leaf, gradient)) in &other.by_leaf {
            let total = match self.by_leaf.get(key) {
                Some((_, mine)) => sum(mine, gradient)?,
                None => gradient.clone(),
            };
            self.by_leaf.insert(*key, (leaf.clone(), total));
        }
        Ok(())
    }

    /// Replaces every gradient by its image under `f`: clipping, noise, whatever a recipe does to gradients one by one.
    ///
    /// # Errors
    /// Those of `f`; [`Error::Autograd`] where an image has another shape or type.
    pub fn map(&mut self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
        for (_, gradient) in self.by_leaf.values_mut() {
            let image = f(gradient)?;
            if image.spec() != gradient.spec() {
                return Err(Error::autograd("map", format!("a gradient of {} became {}", gradient.spec(), image.spec())));
            }
            *gradient = image.detach();
        }
        Ok(())
    }

    /// Multiplies every gradient by `factor`: 1 / micro-batches, or 1 / loss scale.
    ///
    /// # Errors
    /// Out of memory or a lost device.
    pub fn scale(&mut self, factor: f32) -> Result<()> {
        for (_, gradient) in self.by_leaf.values_mut() {
            *gradient = combine(gradient, gradient, factor, 0.0)?;
        }
        Ok(())
    }
}

/// `a + b` for two gradients of one tensor.
pub(crate) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    combine(a, b, 1.0, 1.0)
}

fn combine(a: &Tensor, b: &Tensor, alpha: f32, beta: f32) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return Err(Error::autograd("accumulate", format!("gradients of {} and {} cannot be added", a.spec(), b.spec())));
    }
    let y = Tensor::empty(a.gpu(), a.shape(), a.dtype())?;
    let (n, launch) = (a.elements(), |part: usize| {
        Launch::new(a.gpu(), &ACCUMULATE, "accumulate").storage(a.dtype().storage()).params(params![part.div_ceil(4), alpha, beta])
    });
    for part in a.bindable() {
        let (a, b) = (a.rows(&part, n)?, b.rows(&part, n)?);
        let write =
            |y: &[Tensor]| y.iter().fold(launch(part.len()).read(&a).read(&b), |l, y| l.write(y)).invocations(part.len().div_ceil(4));
        write_rows(&[&y], &part, n, write)?;
    }
    Ok(y)
}

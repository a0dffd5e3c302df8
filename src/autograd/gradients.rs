//! Gradients as values, looked up by the tensor that was watched.

use std::collections::HashMap;
use std::sync::Arc;

use super::backward::Sink;
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
    pub(super) fn insert(&mut self, leaf: &Arc<Node>, gradient: Tensor) {
        self.by_leaf.insert(Arc::as_ptr(leaf) as usize, (leaf.clone(), gradient));
    }

    /// The gradient with respect to `watched`, any handle of it; `None` where the loss does not
    /// depend on it.
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

    /// Replaces every gradient by its image under `f`: clipping, noise, whatever a recipe does to
    /// gradients one by one.
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

    /// The inner products `[K, K]` of the gradients that `parts`, of K losses, have of `over`,
    /// which count as one vector a loss. What is not watched or has no gradient in one of them is
    /// passed over; the sums are in the order of `over`, so that they repeat.
    ///
    /// # Errors
    /// [`Error::Autograd`] where nothing is left; out of memory.
    pub fn products(parts: &[Gradients], over: &[Tensor]) -> Result<Tensor> {
        let of = |watched: &Tensor| {
            let rows: Option<Vec<&Tensor>> = parts.iter().map(|part| part.get(watched)).collect();
            let rows = rows.unwrap_or_default().into_iter().map(|g| g.reshape(&[1, g.numel()])).collect::<Result<Vec<_>>>()?;
            let all = if rows.is_empty() { None } else { Some(Tensor::concat(&rows.iter().collect::<Vec<_>>(), 0)?) };
            all.map(|g| g.matmul_nt(&g)).transpose()
        };
        let sum = over.iter().try_fold(None, |sum: Option<Tensor>, watched| {
            Ok(match (sum, of(watched)?) {
                (Some(sum), Some(more)) => Some(sum.add(&more)?),
                (sum, more) => sum.or(more),
            })
        })?;
        sum.ok_or_else(|| Error::autograd("products", "the losses have no gradients in common: what they share is frozen"))
    }

    /// The gradients that `parts`, of K losses, have of `over`, times `weights` `[K]`, and added;
    /// those of everything else are added as they are.
    ///
    /// # Errors
    /// [`Error::Shape`] where weights are not as many; out of memory.
    pub fn weighted(parts: &[Gradients], weights: &Tensor, over: &[Tensor]) -> Result<Self> {
        let shared: Vec<usize> = over.iter().filter_map(leaf_key).collect();
        let mut total = Self::default();
        for (part, at) in parts.iter().zip(0..) {
            let weight = weights.slice(0, at, at + 1)?;
            let mut part = part.clone();
            for key in &shared {
                let Some((_, gradient)) = part.by_leaf.get_mut(key) else { continue };
                *gradient = times(gradient, &weight)?;
            }
            total.accumulate(&part)?;
        }
        Ok(total)
    }

    /// Multiplies every gradient by `factor`, one number on the device.
    ///
    /// # Errors
    /// [`Error::Shape`] for more than one number; out of memory.
    pub fn scale_by(&mut self, factor: &Tensor) -> Result<()> {
        let factor = factor.reshape(&[1])?;
        self.map(|gradient| times(gradient, &factor))
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

impl Sink for Gradients {
    fn take(&mut self, leaf: &Arc<Node>, gradient: Tensor) -> Result<()> {
        self.insert(leaf, gradient);
        Ok(())
    }
}

/// `a + b` for two gradients of one tensor.
pub(crate) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    combine(a, b, 1.0, 1.0)
}

/// A gradient times `factor` `[1]`.
fn times(gradient: &Tensor, factor: &Tensor) -> Result<Tensor> {
    Ok(gradient.reshape(&[gradient.numel()])?.mul(factor)?.reshape(gradient.shape())?.detach())
}

fn combine(a: &Tensor, b: &Tensor, alpha: f32, beta: f32) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return Err(Error::autograd("accumulate", format!("gradients of {} and {} cannot be added", a.spec(), b.spec())));
    }
    let y = Tensor::empty(a.gpu(), a.shape(), a.dtype())?;
    let (n, launch) = (a.numel(), |part: usize| {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gpu::Gpu;

    #[test]
    fn gradients_are_multiplied_and_mixed_on_the_device() {
        let gpu = Gpu::new().unwrap();
        let watched = |values: &[f32]| Tensor::from_slice(&gpu, values, [values.len()]).unwrap().watch();
        let (a, b, own) = (watched(&[1.0, -2.0, 3.0]), watched(&[0.5]), watched(&[4.0, 5.0]));
        let half = |x: &Tensor| x.square().unwrap().sum(&[0], false).unwrap().mul_scalar(0.5).unwrap();
        // Gradients (a, b, own) and (-1, -1, -1; 2 b).
        let first = half(&a).add(&half(&b)).unwrap().add(&half(&own)).unwrap();
        let second = half(&b).mul_scalar(2.0).unwrap().sub(&a.sum(&[0], false).unwrap()).unwrap();
        let mut parts = [first, second].map(|loss| loss.backward().unwrap());
        let over = [a.clone(), b.clone(), own.clone(), watched(&[1.0])];
        let products = Gradients::products(&parts, &over).unwrap();
        assert_eq!(products.to_vec::<f32>().unwrap(), [14.25, -1.5, -1.5, 4.0]);
        assert!(Gradients::products(&parts, &over[2..]).unwrap_err().to_string().contains("in common"));
        let weights = Tensor::from_slice(&gpu, &[2.0f32, 10.0], [2]).unwrap();
        let mixed = Gradients::weighted(&parts, &weights, &over[..2]).unwrap();
        let values = |gradients: &Gradients, x: &Tensor| gradients.get(x).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(values(&mixed, &a), [-8.0, -14.0, -4.0]);
        assert_eq!((values(&mixed, &b), values(&mixed, &own)), (vec![11.0], vec![4.0, 5.0]));
        let [first, _] = &mut parts;
        first.scale_by(&weights.slice(0, 0, 1).unwrap()).unwrap();
        assert_eq!(values(first, &own), [8.0, 10.0]);
        assert!(first.scale_by(&weights).is_err());
    }
}

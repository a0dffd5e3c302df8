//! What goes into a training step, and what comes out of it.

use std::any::{Any, type_name};
use std::sync::Arc;

use crate::autograd::{Gradients, PackedGradients};
use crate::capture::Inputs;
use crate::error::{Error, Result};
use crate::gpu::Scalar;
use crate::tensor::Tensor;

/// What a step is given.
pub struct Batch {
    /// The views of each image, `[N, H, W, C]` each, in the order of the recipe's augmentations.
    /// Their sizes may differ.
    pub views: Vec<Tensor>,
    /// i32 `[N]`, [`HIDDEN`](super::HIDDEN) where the label is not known. Methods without labels
    /// ignore it.
    pub labels: Tensor,
    /// Each image's place in the data set, i32 `[N]`: a method draws its own random numbers by it.
    pub indices: Tensor,
    /// The epoch, for the same purpose.
    pub epoch: Scalar<u32>,
}

impl Batch {
    /// Exactly `N` views.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the method where there are more or less.
    pub fn exactly<const N: usize>(&self, method: &str) -> Result<&[Tensor; N]> {
        let wrong = |_| Error::argument(method, format!("it takes {N} views, {} were given", self.views.len()));
        self.views.as_slice().try_into().map_err(wrong)
    }
}

/// What [`Method::loss`](super::Method::loss) gives: the loss, what is worth watching, and what the
/// method needs again later in the same step. A captured step holds it, so it is made of tensors.
#[derive(Clone)]
pub struct TrainStep {
    /// A scalar.
    pub loss: Tensor,
    /// Embeddings of the first and the second view, `[N, D]`, not normalised; collapse is judged by
    /// them. Empty where a method has none.
    pub embeddings: Vec<Tensor>,
    /// A teacher's probabilities `[M, K]`, for their entropy.
    pub teacher: Option<Tensor>,
    /// The queue of earlier keys that the loss contrasts with.
    pub queue: Option<Queue>,
    /// Scalars that the loss consists of, by name.
    pub parts: Vec<(String, Tensor)>,
    /// What the backward pass of a loss begins from: the loss scale of mixed precision; 1 where there
    /// is none. The trainer sets it.
    pub loss_scale: Option<Tensor>,
    /// What the method's own `gradients` and `after_update` need.
    pub kept: Kept,
}

impl TrainStep {
    /// A loss with the embeddings to watch.
    pub fn new(loss: Tensor, embeddings: impl Into<Vec<Tensor>>) -> Self {
        let embeddings = embeddings.into().iter().map(Tensor::detach).collect();
        Self { loss, embeddings, teacher: None, queue: None, parts: Vec::new(), loss_scale: None, kept: Kept::default() }
    }

    /// The gradients of `loss`, one of this step's, times the loss scale.
    ///
    /// # Errors
    /// As [`Tensor::backward`].
    pub fn backward(&self, loss: &Tensor) -> Result<Gradients> {
        self.loss_scale.as_ref().map_or_else(|| loss.backward(), |scale| loss.backward_from(scale))
    }

    /// As [`Self::backward`] of each of `losses`, from one forward pass.
    ///
    /// # Errors
    /// As [`Tensor::backward`].
    pub fn backward_each(&self, losses: &[&Tensor]) -> Result<Vec<Gradients>> {
        each(losses, |loss, retain| match (&self.loss_scale, retain) {
            (Some(scale), true) => loss.backward_from_retain_graph(scale),
            (None, true) => loss.backward_retain_graph(),
            (_, false) => self.backward(loss),
        })
    }

    /// As [`Self::backward_each`], of `watched` alone and packed:
    /// [`Tensor::backward_in_buckets`].
    ///
    /// # Errors
    /// As [`Tensor::backward_in_buckets`].
    pub fn buckets_of_each(&self, losses: &[&Tensor], watched: &[Tensor]) -> Result<Vec<Vec<PackedGradients>>> {
        each(losses, |loss, retain| loss.backward_in_buckets(self.loss_scale.as_ref(), retain, watched))
    }
}

/// What `walk` gives of each of `losses`. All but the last walk leave the tape as it is.
fn each<T>(losses: &[&Tensor], walk: impl Fn(&Tensor, bool) -> Result<T>) -> Result<Vec<T>> {
    let last = losses.len().saturating_sub(1);
    losses.iter().enumerate().map(|(at, loss)| walk(loss, at < last)).collect()
}

/// A loss in two halves, for batches that consist of shards: what is computed of each image, and
/// the loss that compares the images of the whole batch. Gradients of it are exact: the first half
/// is computed twice, without and with the tape, as in GradCache (Gao et al. 2021,
/// arXiv:2101.06983), so that no more than one shard's activations are in memory.
pub trait Contrast: Send + Sync {
    /// What the loss compares: tensors with a row for each image of the batch.
    ///
    /// # Errors
    /// As [`Method::loss`](super::Method::loss).
    fn embed(&self, batch: &Batch) -> Result<Vec<Tensor>>;

    /// The loss of what [`Self::embed`] gave, and of the images' labels. What it keeps has a row for
    /// each of these images. Parameters have their place in the first half: over shards, none that
    /// is used here gets a gradient.
    ///
    /// # Errors
    /// As [`Method::loss`](super::Method::loss).
    fn compare(&self, embeddings: &[Tensor], labels: &Tensor) -> Result<TrainStep>;
}

/// A queue of keys from earlier steps, to watch.
#[derive(Clone)]
pub struct Queue {
    /// The keys, `[Q, D]`.
    pub keys: Tensor,
    /// How many steps ago the oldest key of a full queue entered it.
    pub age: f64,
}

/// What a method hands from `loss` to `after_update` of the same step: a type of its own, made of
/// tensors that have a row for each image. Clones share the value.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use wgrad::methods::Kept;
/// use wgrad::tensor::Tensor;
///
/// let gpu = wgrad::gpu::Gpu::new()?;
/// let kept = Kept::new(Tensor::from_slice(&gpu, &[1.0f32, 2.0], [2, 1])?);
/// assert_eq!(kept.get::<Tensor>()?.to_vec::<f32>()?, [1.0, 2.0]);
/// assert!(Kept::default().get::<Tensor>().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Kept(Option<Arc<dyn Rows>>);

/// Any [`Inputs`], without its type.
trait Rows: Send + Sync {
    fn value(&self) -> &dyn Any;
    fn tensors(&self) -> Vec<Tensor>;
    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Arc<dyn Rows>>;
}

impl<T: Inputs + Any + Send + Sync> Rows for T {
    fn value(&self) -> &dyn Any {
        self
    }

    fn tensors(&self) -> Vec<Tensor> {
        Inputs::tensors(self)
    }

    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Arc<dyn Rows>> {
        Ok(Arc::new(Inputs::with_tensors(self, tensors)?))
    }
}

impl Kept {
    /// Keeps `value`.
    pub fn new(value: impl Inputs + Any + Send + Sync) -> Self {
        Self(Some(Arc::new(value)))
    }

    /// The value, by its type.
    ///
    /// # Errors
    /// [`Error::Argument`] where the step holds no such value: another method made it.
    pub fn get<T: Any>(&self) -> Result<&T> {
        self.0.as_deref().and_then(|value| value.value().downcast_ref()).ok_or_else(|| {
            let message = format!("it holds no {}: pass the step that this method's own `loss` gave", type_name::<T>());
            Error::argument("step", message)
        })
    }
}

impl Inputs for Kept {
    fn tensors(&self) -> Vec<Tensor> {
        self.0.as_ref().map_or_else(Vec::new, |value| value.tensors())
    }

    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self> {
        Ok(Self(self.0.as_ref().map(|value| value.with_tensors(tensors)).transpose()?))
    }
}

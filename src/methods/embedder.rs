//! What methods that compare embeddings share: an encoder with a projector, and its moving average.

use serde::{Deserialize, Serialize};

use super::{Build, Clock};
use crate::error::{Error, Result};
use crate::gpu::Scalar;
use crate::models::{Backbone, Mlp, MlpConfig};
use crate::nn::{Mode, Module, Parameters};
use crate::optim::{Ema, Schedule};
use crate::tensor::Tensor;

/// An encoder with a projector (`proj`): images `[N, H, W, C]` to embeddings `[N, D]`.
pub struct Embedder {
    /// What is kept after training.
    pub encoder: Box<dyn Backbone>,
    projector: Mlp,
}

impl Embedder {
    /// The scope of the projector.
    pub const PROJECTOR: &'static str = "proj";
    /// The scope of the predictor, where a method puts one behind it.
    pub const PREDICTOR: &'static str = "pred";

    /// Makes both in the scope `params`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, build: Build, projector: &MlpConfig) -> Result<Self> {
        let encoder = build(params)?;
        let projector = Mlp::new(&params.scope(Self::PROJECTOR), encoder.features(), projector)?;
        Ok(Self { encoder, projector })
    }

    /// The embeddings of a batch of images.
    ///
    /// # Errors
    /// Those of the model's operators.
    pub fn embed(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.projector.forward(&self.encoder.forward(images, mode)?, mode)
    }

    /// As [`Self::embed`] in training, of each view on its own.
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub fn embed_each(&self, views: &[Tensor]) -> Result<Vec<Tensor>> {
        views.iter().map(|view| self.embed(view, Mode::Train)).collect()
    }

    /// As [`Self::embed`] in training, in `groups` parts of the batch whose batch norms see nothing
    /// of each other: what several devices would do (MoCo's `SplitBatchNorm`; running statistics
    /// are moved once a part). Parts are runs of rows, or, `dealt`, rows dealt out like cards.
    ///
    /// # Errors
    /// [`Error::Argument`] where the parts are not equal.
    pub fn embed_split(&self, images: &Tensor, groups: usize, dealt: bool) -> Result<Tensor> {
        let shape = images.shape();
        let rows = shape.dim(0);
        if groups == 1 {
            return self.embed(images, Mode::Train);
        }
        if groups == 0 || !rows.is_multiple_of(groups) || rows / groups < 2 {
            let message = format!("a batch of {rows} cannot be split into {groups} equal parts of two images or more");
            return Err(Error::argument("batch_norm_splits", message));
        }
        let each = rows / groups;
        // Row i * groups + g is card i of part g.
        let cards = if dealt { Some(images.reshape(&[each, groups, shape.numel() / rows])?) } else { None };
        let part = |g: usize| {
            let part = match &cards {
                Some(cards) => cards.slice(1, g, g + 1)?.reshape(&shape.with(0, each))?,
                None => images.slice(0, g * each, (g + 1) * each)?,
            };
            self.embed(&part, Mode::Train)
        };
        let parts = (0..groups).map(part).collect::<Result<Vec<_>>>()?;
        let embeddings = Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?;
        if !dealt {
            return Ok(embeddings);
        }
        let width = embeddings.shape().last();
        embeddings.reshape(&[groups, each, width])?.permute(&[1, 0, 2])?.reshape(&[rows, width])
    }
}

/// How a teacher follows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaTeacherConfig {
    /// The share that it keeps of itself at the first step.
    pub momentum: f32,
    /// That at the last, along half a cosine (BYOL, Grill et al. 2020); the same number for a
    /// constant one.
    pub momentum_end: f32,
}

impl Default for EmaTeacherConfig {
    fn default() -> Self {
        Self { momentum: 0.99, momentum_end: 1.0 }
    }
}

/// A moving average of a network's parameters, with the network made of them. Batch norm sees the
/// teacher's own batches; its running statistics are its own.
pub struct EmaTeacher<N = Embedder> {
    /// What it is made of: nothing in it can be watched, so it receives no gradient.
    pub network: N,
    average: Ema,
    momentum: Scalar,
}

impl<N> EmaTeacher<N> {
    /// The average of all parameters in `params`, which `make` makes a network of.
    ///
    /// # Errors
    /// [`Error::Argument`] for a momentum outside 0..=1; out of memory.
    pub fn new(params: &Parameters, config: EmaTeacherConfig, clock: &Clock, make: impl FnOnce(&Parameters) -> Result<N>) -> Result<Self> {
        let EmaTeacherConfig { momentum, momentum_end } = config;
        for (key, value) in [("teacher.momentum", momentum), ("teacher.momentum_end", momentum_end)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::argument(key, format!("expected 0 to 1, found {value}")));
            }
        }
        let average = Ema::teacher(params)?;
        let network = make(average.parameters())?;
        let momentum = clock.scalar(Schedule::Cosine { rate: momentum, end: momentum_end, steps: clock.steps });
        Ok(Self { network, average, momentum })
    }

    /// Follows the network by one step.
    ///
    /// # Errors
    /// A lost device.
    pub fn update(&self) -> Result<()> {
        self.average.update(self.momentum.clone())
    }

    /// Becomes a copy of the network.
    ///
    /// # Errors
    /// A lost device.
    pub fn reset(&self) -> Result<()> {
        self.average.reset()
    }

    /// The averages.
    pub fn parameters(&self) -> &Parameters {
        self.average.parameters()
    }

    /// The share that it keeps of itself at the present step.
    pub fn momentum(&self) -> f64 {
        self.momentum.get().into()
    }
}

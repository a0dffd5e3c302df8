//! RotNet (Gidaris et al. 2018, arXiv:1803.07728): each image in its four rotations, and the
//! network says which is which. It can only know by what is in the image.

use serde::{Deserialize, Serialize};

use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result};
use crate::models::{Backbone, Mlp, MlpConfig};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::Tensor;

/// Quarters of a turn.
const TURNS: usize = 4;

/// How RotNet is set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RotationConfig {
    /// Features to the four rotations, which are its `outputs` whatever it says of them; one layer
    /// is a linear classifier.
    pub head: MlpConfig,
}

impl Default for RotationConfig {
    fn default() -> Self {
        Self { head: MlpConfig { layers: 1, outputs: TURNS, ..MlpConfig::default() } }
    }
}

/// The loss is the cross entropy of all four rotations of every image: a batch of N images is one
/// of 4 N, as in the paper.
pub struct Rotation {
    encoder: Box<dyn Backbone>,
    head: Mlp,
    /// The rotations' labels, i32 `[4, 1]`.
    turns: Tensor,
}

impl Rotation {
    const HEAD: &'static str = "rotation";
}

/// Square images `[N, S, S, C]` turned counterclockwise by 0, 90, 180 and 270 degrees, one after
/// another: `[4 N, S, S, C]`.
///
/// # Errors
/// [`Error::Shape`] where they are no squares; out of memory.
pub fn rotations(images: &Tensor) -> Result<Tensor> {
    if images.shape().array::<4>().is_none_or(|[_, h, w, _]| h != w) {
        return Err(Error::shape("rotation", format!("images must be squares [N, S, S, C], found {}", images.shape())));
    }
    let mirrored = images.permute(&[0, 2, 1, 3])?;
    Tensor::concat(&[images, &mirrored.flip(&[1])?, &images.flip(&[1, 2])?, &mirrored.flip(&[2])?], 0)
}

impl MethodFactory for Rotation {
    const CARD: MethodCard = MethodCard {
        name: "rotation",
        title: "RotNet",
        text: "Which way up each image is",
        supervision: Supervision::SelfSupervised,
        family: "pretext task",
        year: 2018,
        authors: "Gidaris, Singh, Komodakis",
        paper: "Unsupervised Representation Learning by Predicting Image Rotations, arXiv:1803.07728",
        related: &["jigsaw"],
    };

    const HEADS: &'static [&'static str] = &[Self::HEAD];

    type Config = RotationConfig;

    fn new(params: &Parameters, build: Build, config: RotationConfig, _: &MethodContext) -> Result<Self> {
        let encoder = build(params)?;
        let head = Mlp::new(&params.scope(Self::HEAD), encoder.features(), &MlpConfig { outputs: TURNS, ..config.head })?;
        Ok(Self { encoder, head, turns: Tensor::from_slice(params.gpu(), &[0i32, 1, 2, 3], [TURNS, 1])? })
    }
}

impl Method for Rotation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let n = images.shape().dim(0);
        let features = self.encoder.forward(&rotations(images)?, Mode::Train)?;
        let labels = self.turns.expand(&[TURNS, n])?.reshape(&[TURNS * n])?;
        let loss = self.head.forward(&features, Mode::Train)?.cross_entropy(&labels, 0.0)?;
        Ok(TrainStep::new(loss, [features.detach().slice(0, 0, n)?]))
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Encoder(&self.encoder)
    }

    fn heads(&self) -> Vec<&str> {
        Self::HEADS.to_vec()
    }
}

//! Networks: structure only, no training. Names are timm's.

pub mod architecture;
mod cnn;
mod decoder;
mod heads;
pub mod mobilenet;
mod network;
mod pixels;
mod positions;
mod preprocessing;
mod prototypes;
pub mod registry;
mod resnet;
mod text_encoder;
pub mod torchvision;
mod vit;
mod weights;

pub use architecture::{Architecture, Model, ModelOptions};
pub use cnn::{SmallCnn, SmallCnnConfig};
pub use decoder::{ImageDecoder, ImageDecoderConfig};
pub use heads::{HeadActivation, LastNorm, Mlp, MlpConfig};
pub use mobilenet::{MobileNet, MobileNetConfig};
pub use network::Network;
pub use pixels::{Pixels, PixelsConfig};
pub use preprocessing::preprocessing;
pub use prototypes::Prototypes;
pub use registry::{FAMILIES, model, model_names};
pub use resnet::{ResNet, ResNetConfig};
pub(crate) use text_encoder::linear as text_linear;
pub use text_encoder::{Encoding, TextConfig, TextEncoder, TokenEncoder};
pub(crate) use vit::Block as VitBlock;
pub(crate) use vit::check_depth;
pub use vit::{Vit, VitConfig};

use crate::error::{Error, Result};
use crate::nn::{Dropout, Init, Linear, LinearOptions, Mode, Module, Parameters, Summary};
use crate::tensor::{Shape, Tensor};

/// What timm calls the classifiers of these networks: all that [`Backbone::head`] may give.
pub const HEADS: [&str; 3] = ["classifier", "fc", "head"];

/// A network that turns images `[N, H, W, C]`, or token numbers of texts, i32 `[N, L]`, into
/// features `[N, D]`.
pub trait Backbone: Module {
    /// The number of features D.
    fn features(&self) -> usize;

    /// Images `[N, H, W, C]` to the maps `[N, h, w, K]` that features are pooled from (timm's
    /// name). A network that has none gives its features as maps of one pixel.
    ///
    /// # Errors
    /// Those of its operators.
    fn forward_features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let features = self.forward(x, mode)?;
        features.reshape(&[features.shape().dim(0), 1, 1, self.features()])
    }

    /// The maps of [`Self::forward_features`] and the features of [`Module::forward`], from one
    /// pass.
    ///
    /// # Errors
    /// Those of its operators.
    fn maps_and_features(&self, x: &Tensor, mode: Mode) -> Result<[Tensor; 2]> {
        let maps = self.forward_features(x, mode)?;
        let features = maps.global_avg_pool2d()?;
        Ok([maps, features])
    }

    /// This network, where it is a vision transformer.
    fn vit(&self) -> Option<&Vit> {
        None
    }

    /// What it says of tokens, where it reads texts.
    fn token_encoder(&self) -> Option<&dyn TokenEncoder> {
        None
    }

    /// Whether training keeps of each block its input alone, and runs it again on the way back
    /// ([`Blocks`](crate::nn::Blocks)).
    ///
    /// # Errors
    /// [`Error::Argument`] of a network without such blocks.
    fn set_grad_checkpointing(&mut self, on: bool) -> Result<()> {
        if on { Err(Error::argument("checkpoint_blocks", "this network has no blocks that can be run again")) } else { Ok(()) }
    }

    /// Probability of dropout between features and classifier.
    fn drop_rate(&self) -> f32 {
        0.0
    }

    /// What timm calls the classifier behind this network.
    fn head(&self) -> &'static str {
        "classifier"
    }

    /// How timm begins that classifier's weight, with a bias of 0; `None` is PyTorch's default for
    /// both. Of mobile networks: uniform within 1 / sqrt(classes).
    fn head_init(&self, classes: usize) -> Option<Init> {
        Some(Init::Uniform { bound: 1.0 / (classes.max(1) as f32).sqrt() })
    }
}

/// Dropout layers of a network share its seed and are told apart by number; blocks count from 0.
const HEAD_DROPOUT: u32 = 1 << 16;

/// A backbone with a linear classifier: images `[N, H, W, C]` to logits `[N, classes]`.
pub struct Classifier<B> {
    /// Images to features.
    pub backbone: B,
    dropout: Dropout,
    classifier: Linear,
}

impl<B: Backbone> Classifier<B> {
    /// Adds a classifier of `classes` to `backbone`, in the same scope.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, backbone: B, classes: usize) -> Result<Self> {
        let options = LinearOptions { init: backbone.head_init(classes), ..Default::default() };
        let classifier = Linear::with(params, backbone.head(), backbone.features(), classes, options)?;
        let dropout = Dropout::new(params, backbone.drop_rate(), HEAD_DROPOUT);
        Ok(Self { backbone, dropout, classifier })
    }

    /// The backbone's maps `[N, h, w, K]` and the logits, from one pass.
    ///
    /// # Errors
    /// Those of their operators.
    pub fn maps_and_logits(&self, x: &Tensor, mode: Mode) -> Result<[Tensor; 2]> {
        let [maps, features] = self.backbone.maps_and_features(x, mode)?;
        Ok([maps, self.classify(&features, mode)?])
    }

    /// The backbone's features `[N, D]` and the logits, from one pass.
    ///
    /// # Errors
    /// Those of their operators.
    pub fn features_and_logits(&self, x: &Tensor, mode: Mode) -> Result<[Tensor; 2]> {
        let features = self.backbone.forward(x, mode)?;
        let logits = self.classify(&features, mode)?;
        Ok([features, logits])
    }

    /// The logits of features that the backbone gave.
    ///
    /// # Errors
    /// Those of its operators.
    pub fn classify(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        self.classifier.forward(&self.dropped(features, mode)?, mode)
    }

    /// Such features after dropout: as the classifier sees them, and further heads should.
    ///
    /// # Errors
    /// Those of dropout.
    pub fn dropped(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        self.dropout.forward(features, mode)
    }
}

impl<B: Backbone> Module for Classifier<B> {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.classify(&self.backbone.forward(x, mode)?, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let features = self.backbone.summarize(input, summary)?;
        self.classifier.summarize(&features, summary)
    }

    fn fold(&mut self) -> Result<()> {
        self.backbone.fold()
    }
}

impl Module for Box<dyn Backbone> {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.as_ref().forward(x, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        self.as_ref().summarize(input, summary)
    }

    fn fold(&mut self) -> Result<()> {
        self.as_mut().fold()
    }
}

impl Backbone for Box<dyn Backbone> {
    fn features(&self) -> usize {
        self.as_ref().features()
    }

    fn forward_features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.as_ref().forward_features(x, mode)
    }

    fn maps_and_features(&self, x: &Tensor, mode: Mode) -> Result<[Tensor; 2]> {
        self.as_ref().maps_and_features(x, mode)
    }

    fn vit(&self) -> Option<&Vit> {
        self.as_ref().vit()
    }

    fn token_encoder(&self) -> Option<&dyn TokenEncoder> {
        self.as_ref().token_encoder()
    }

    fn set_grad_checkpointing(&mut self, on: bool) -> Result<()> {
        self.as_mut().set_grad_checkpointing(on)
    }

    fn drop_rate(&self) -> f32 {
        self.as_ref().drop_rate()
    }

    fn head(&self) -> &'static str {
        self.as_ref().head()
    }

    fn head_init(&self, classes: usize) -> Option<Init> {
        self.as_ref().head_init(classes)
    }
}

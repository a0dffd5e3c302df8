//! Layers, named and parameterised as PyTorch's.

mod conv_norm;
mod convolution;
mod linear;
mod normalization;
mod regularization;
mod squeeze_excite;

pub use conv_norm::ConvNorm;
pub use convolution::{Conv2d, Conv2dOptions, DepthwiseConv2d};
pub use linear::{Embedding, Linear, LinearOptions};
pub use normalization::{BatchNorm, BatchNormOptions, LayerNorm};
pub use regularization::{DropPath, Dropout};
pub use squeeze_excite::{SqueezeExcite, SqueezeExciteOptions};

//! What most programs begin with: `use wgrad::prelude::*`.

pub use crate::capture::Capture;
pub use crate::error::{Error, Result};
pub use crate::gpu::{Gpu, GpuOptions, Scalar, ScalarCell};
pub use crate::models::{Classifier, MobileNet, MobileNetConfig};
pub use crate::nn::{
    BatchNorm, BatchNormOptions, Conv2d, Conv2dOptions, Dropout, LayerNorm, Linear, LinearOptions, Mode, Module, Parameters,
};
pub use crate::optim::{Adam, AdamOptions, AdamW, Optimizer, Schedule, Sgd, SgdOptions};
pub use crate::tensor::{DType, Shape, Tensor};

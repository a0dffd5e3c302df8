//! Heads of self-supervised methods: small networks on features, numbered as PyTorch numbers a `Sequential`.

use crate::error::Result;
use crate::nn::layers::BatchNormConfig;
use crate::nn::{BatchNorm, Linear, Mode, Module, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::tensor::{Shape, Tensor};

/// SimCLR's projector: linear, ReLU, linear.
pub struct Projector {
    first: Linear,
    second: Linear,
}

impl Projector {
    /// Makes `0` and `2` in the scope `params`: `features` to `hidden` to `outputs`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, features: usize, hidden: usize, outputs: usize) -> Result<Self> {
        Ok(Self { first: Linear::new(params, "0", features, hidden)?, second: Linear::new(params, "2", hidden, outputs)? })
    }
}

impl Module for Projector {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.second.forward(&self.first.forward(x, mode)?.relu()?, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let hidden = self.first.summarize(input, summary)?;
        self.second.summarize(&hidden, summary)
    }
}

/// BYOL's predictor: linear, batch norm, ReLU, linear.
pub struct Predictor {
    first: Linear,
    norm: BatchNorm,
    second: Linear,
}

impl Predictor {
    /// Makes `0`, `1` and `3` in the scope `params`: `features` to `hidden` to `features`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, features: usize, hidden: usize) -> Result<Self> {
        Ok(Self {
            first: Linear::new(params, "0", features, hidden)?,
            norm: BatchNorm::new(params, "1", hidden, BatchNormConfig { activation: Activation::Relu, ..Default::default() })?,
            second: Linear::new(params, "3", hidden, features)?,
        })
    }
}

impl Module for Predictor {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let hidden = self.norm.forward(&self.first.forward(x, mode)?, mode)?;
        self.second.forward(&hidden, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let hidden = self.first.summarize(input, summary)?;
        let hidden = self.norm.summarize(&hidden, summary)?;
        self.second.summarize(&hidden, summary)
    }
}

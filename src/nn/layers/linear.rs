//! Linear layers and embeddings.

use crate::error::{Error, Result};
use crate::nn::{Init, Kind, Mode, Module, Parameter, Parameters, Summary};
use crate::tensor::{Shape, Tensor};

/// How a linear layer is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearOptions {
    /// Whether a bias is added.
    pub bias: bool,
    /// The weights' start, with a bias of 0; `None` is PyTorch's default for both.
    pub init: Option<Init>,
}

impl Default for LinearOptions {
    fn default() -> Self {
        Self { bias: true, init: None }
    }
}

/// `y = x W^T + b` along the last axis: `[..., in]` to `[..., out]`.
pub struct Linear {
    name: String,
    weight: Parameter,
    bias: Option<Parameter>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Makes the layer with a bias, with PyTorch's initial values.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        Self::with(params, name, inputs, outputs, LinearOptions::default())
    }

    /// Makes the layer as `options` say.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(params: &Parameters, name: &str, inputs: usize, outputs: usize, options: LinearOptions) -> Result<Self> {
        let scope = params.scope(name);
        let default = Init::fan_in(inputs);
        let weight = scope.parameter("weight", [outputs, inputs], Kind::Linear, options.init.unwrap_or(default))?;
        let bias_init = if options.init.is_some() { Init::ZEROS } else { default };
        let bias = options.bias.then(|| scope.parameter("bias", [outputs], Kind::Bias, bias_init)).transpose()?;
        Ok(Self { name: scope.name().into(), weight, bias, inputs, outputs })
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|b| b.tensor(mode)).transpose()?;
        x.linear(&self.weight.tensor(mode)?, bias.as_ref())
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        if input.last() != self.inputs || input.rank() == 0 {
            return Err(Error::shape(&self.name, format!("input {input} must end in {} features", self.inputs)));
        }
        let output = input.with(input.rank() - 1, self.outputs);
        let bias = if self.bias.is_some() { self.outputs } else { 0 };
        summary.push(&self.name, &output, self.inputs * self.outputs + bias, output.numel().saturating_mul(self.inputs) as u64);
        Ok(output)
    }
}

/// A table of vectors looked up by index: i32 `[...]` to f32 `[..., features]`.
pub struct Embedding {
    name: String,
    weight: Parameter,
    rows: usize,
    features: usize,
}

impl Embedding {
    /// Makes a table of `rows` vectors with standard normal entries (PyTorch's default).
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn new(params: &Parameters, name: &str, rows: usize, features: usize) -> Result<Self> {
        let scope = params.scope(name);
        let weight = scope.parameter("weight", [rows, features], Kind::Embedding, Init::Normal { std: 1.0 })?;
        Ok(Self { name: scope.name().into(), weight, rows, features })
    }
}

impl Module for Embedding {
    fn forward(&self, index: &Tensor, mode: Mode) -> Result<Tensor> {
        self.weight.tensor(mode)?.embedding(index)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let output = Shape::from([input, [self.features].as_slice()].concat());
        summary.push(&self.name, &output, self.rows * self.features, 0);
        Ok(output)
    }
}

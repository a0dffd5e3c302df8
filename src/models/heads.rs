//! Heads of self-supervised methods: small networks on features, numbered as PyTorch numbers a
//! `Sequential`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, require_not_negative};
use crate::nn::layers::BatchNormOptions;
use crate::nn::{BatchNorm, Init, Linear, LinearOptions, Mode, Module, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::tensor::{Shape, Tensor};

/// What stands behind the last linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastNorm {
    /// Nothing.
    #[default]
    None,
    /// A batch norm.
    Affine,
    /// A batch norm without scale and shift (`affine=False`).
    Fixed,
}

/// What stands between linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadActivation {
    /// max(x, 0)
    #[default]
    Relu,
    /// x Phi(x), exact.
    Gelu,
}

/// A projector or predictor: linear layers with an activation between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlpConfig {
    /// Linear layers.
    pub layers: usize,
    /// Units of each but the last.
    pub hidden: usize,
    /// Units of the last; a predictor's are those that it is given.
    pub outputs: usize,
    /// Batch norm before each ReLU.
    pub norm: bool,
    /// What stands behind the last layer.
    pub last_norm: LastNorm,
    /// Linear layers have a bias.
    pub bias: bool,
    /// What stands between them.
    pub activation: HeadActivation,
    /// Weights start normal with this standard deviation and biases as 0 (DINO's 0.02); 0 for
    /// PyTorch's initial values.
    pub init_std: f32,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self {
            layers: 2,
            hidden: 64,
            outputs: 32,
            norm: false,
            last_norm: LastNorm::None,
            bias: true,
            activation: HeadActivation::Relu,
            init_std: 0.0,
        }
    }
}

/// A head of more layers is a mistake.
const MOST_LAYERS: usize = 100;

impl MlpConfig {
    /// With batch norm in between.
    pub fn hidden_norm() -> Self {
        Self { norm: true, ..Self::default() }
    }

    /// A predictor's: with batch norm, and as many outputs as it has inputs.
    pub fn predictor() -> Self {
        Self { outputs: 0, ..Self::hidden_norm() }
    }
}

/// Features `[N, inputs]` to `[N, outputs]`.
pub struct Mlp {
    layers: Vec<(Linear, Option<BatchNorm>)>,
    activation: HeadActivation,
}

impl Mlp {
    /// Makes the layers in the scope `params`, by their numbers: `0`, batch norm `1`, an activation
    /// without a name, and so on.
    ///
    /// # Errors
    /// [`Error::Argument`] for a head without layers or units; out of memory; a name that is taken
    /// with another shape.
    pub fn new(params: &Parameters, inputs: usize, config: &MlpConfig) -> Result<Self> {
        require_not_negative(params.name(), "init_std", config.init_std)?;
        let MlpConfig { layers: count, hidden, outputs, norm, last_norm, bias, activation, init_std } = *config;
        if !(1..=MOST_LAYERS).contains(&count) {
            return Err(Error::argument(params.name(), format!("expected 1 to {MOST_LAYERS} layers, found {count}")));
        }
        if outputs == 0 || (count > 1 && hidden == 0) {
            return Err(Error::argument(params.name(), format!("a head needs layers and units, found {config:?}")));
        }
        let (mut layers, mut number, mut width) = (Vec::new(), 0, inputs);
        for index in 0..count {
            let last = index + 1 == count;
            let units = if last { outputs } else { hidden };
            let normed = if last { last_norm != LastNorm::None } else { norm };
            let init = (init_std > 0.0).then_some(Init::Normal { std: init_std });
            let linear = Linear::with(params, &number.to_string(), width, units, LinearOptions { bias, init })?;
            // ReLU is part of the batch norm's kernel.
            let fused = if last || activation != HeadActivation::Relu { Activation::None } else { Activation::Relu };
            let config = BatchNormOptions { activation: fused, affine: !last || last_norm == LastNorm::Affine, ..Default::default() };
            let norm = normed.then(|| BatchNorm::new(params, &(number + 1).to_string(), units, config)).transpose()?;
            // Linear, batch norm where there is one, activation.
            number += 2 + usize::from(normed);
            width = units;
            layers.push((linear, norm));
        }
        Ok(Self { layers, activation })
    }

    /// One with as many outputs as inputs, whatever `config` says of them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn predict(params: &Parameters, inputs: usize, config: &MlpConfig) -> Result<Self> {
        Self::new(params, inputs, &MlpConfig { outputs: inputs, ..*config })
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let last = self.layers.len().saturating_sub(1);
        self.layers.iter().enumerate().try_fold(x.clone(), |x, (index, (linear, norm))| {
            let y = linear.forward(&x, mode)?;
            let y = norm.as_ref().map_or(Ok(y.clone()), |norm| norm.forward(&y, mode))?;
            match self.activation {
                HeadActivation::Relu if index < last && norm.is_none() => y.relu(),
                HeadActivation::Gelu if index < last => y.gelu(),
                _ => Ok(y),
            }
        })
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        self.layers.iter().try_fold(input.clone(), |shape, (linear, norm)| {
            let shape = linear.summarize(&shape, summary)?;
            norm.as_ref().map_or(Ok(shape.clone()), |norm| norm.summarize(&shape, summary))
        })
    }
}

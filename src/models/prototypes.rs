//! DINO's last layer (Caron et al. 2021): cosines of features with weight-normalised prototypes.

use crate::error::Result;
use crate::nn::{Init, Kind, Mode, Module, Parameter, Parameters, Summary};
use crate::tensor::{Shape, Tensor};

/// Features `[N, D]` brought to length 1, times `[K, D]` prototypes:
/// `y_k = g_k <x / |x|, v_k / |v_k|>` (weight normalisation, Salimans and Kingma 2016), without a
/// bias.
pub struct Prototypes {
    name: String,
    /// v, `[K, D]`.
    direction: Parameter,
    /// g, `[K, 1]`; a statistic, which nothing trains, where it is fixed.
    length: Parameter,
}

impl Prototypes {
    /// Makes `weight_g`, which starts as 1 and stays so where it is `fixed` (DINO's
    /// `norm_last_layer`), and `weight_v`, with PyTorch's initial values, as in the authors' code.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, features: usize, count: usize, fixed: bool) -> Result<Self> {
        let length = if fixed {
            params.statistic("weight_g", [count, 1], Init::ONES)
        } else {
            params.parameter("weight_g", [count, 1], Kind::Other, Init::ONES)
        };
        let direction = params.parameter("weight_v", [count, features], Kind::Linear, Init::fan_in(features))?;
        Ok(Self { name: params.name().into(), direction, length: length? })
    }
}

impl Module for Prototypes {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let prototypes = self.direction.tensor(mode)?.l2_normalize(-1, 1e-12)?.mul(&self.length.tensor(mode)?)?;
        x.l2_normalize(-1, 1e-12)?.linear(&prototypes, None)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let slot = self.direction.slot()?;
        let output = input.with(input.rank() - 1, slot.shape.dim(0));
        summary.push(&self.name, &output, slot.shape.numel(), (output.numel() * slot.shape.last()) as u64);
        Ok(output)
    }
}

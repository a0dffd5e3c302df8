//! Dropout and stochastic depth: active in training mode only, and not in a scope whose parameters
//! are all frozen. The masks follow from (seed, layer number, step, shard), are recomputed in the backward
//! pass and never stored.

use crate::error::{Result, require_share};
use crate::nn::{Mode, Module, Parameters, Summary};
use crate::tensor::{Shape, Tensor};

macro_rules! regularizer {
    ($(#[$doc:meta])* $name:ident, $method:ident) => {
        $(#[$doc])*
        pub struct $name {
            params: Parameters,
            probability: f32,
            layer: u32,
        }

        impl $name {
            /// A layer of the scope `params`; `layer` numbers those of a network, so that no two
            /// share a mask.
            pub fn new(params: &Parameters, probability: f32, layer: u32) -> Self {
                Self { params: params.clone(), probability, layer }
            }
        }

        impl Module for $name {
            fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
                require_share(stringify!($method), "p", self.probability)?;
                if !mode.is_training() || self.probability == 0.0 || self.params.is_frozen() {
                    return Ok(x.clone());
                }
                x.$method(self.probability, self.params.seed(), self.layer, self.params.draw_scalar())
            }

            fn summarize(&self, input: &Shape, _: &mut Summary) -> Result<Shape> {
                Ok(input.clone())
            }
        }
    };
}

regularizer! {
    /// Sets elements to zero with the given probability and scales the others up (Srivastava et al.
    /// 2014).
    Dropout, dropout
}

regularizer! {
    /// Drops whole samples of a residual branch (Huang et al. 2016).
    DropPath, drop_path
}

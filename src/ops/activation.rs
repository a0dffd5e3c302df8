//! Activations that kernels apply to a value they are about to store: batch norm's, and those of
//! convolution epilogues.

use crate::error::{Error, Result};
use crate::ops::apply_one;
use crate::ops::array::maximum;
use crate::ops::elementwise::map::Map;
use crate::tensor::Tensor;

/// A function fused behind another operator. Its unfused twin is the map of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// max(z, 0)
    Relu,
    /// min(max(z, 0), 6)
    Relu6,
    /// z sigmoid(z)
    Silu,
    /// z relu6(z + 3) / 6
    Hardswish,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 5] = [Self::None, Self::Relu, Self::Relu6, Self::Silu, Self::Hardswish];

    /// PyTorch's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::Silu => "silu",
            Self::Hardswish => "hardswish",
        }
    }

    /// The activation called `name`.
    ///
    /// # Errors
    /// [`Error::Argument`] that lists the names, where there is none.
    pub fn named(operator: &str, name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|a| a.name()).collect();
            Error::argument(operator, format!("there is no fused activation \"{name}\"; choose one of {}", names.join(", ")))
        })
    }

    /// The unfused twin: an operator of its own.
    ///
    /// # Errors
    /// An integer tensor; out of memory.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            other => apply_one(Map::named(other.name())?, &[x]),
        }
    }

    /// WGSL of its value at `z`, which has the kernel's type `V`: `f32` or a vector
    /// (`alias V = vec4<f32>;`), and the functions of `shaders/include/nan.wgsl` for it, with the
    /// suffix `_v`.
    pub fn forward(self) -> &'static str {
        match self {
            Self::None => "z",
            Self::Relu => "maximum_v(z, V(0.0))",
            Self::Relu6 => "limited_v(z, V(0.0), V(6.0))",
            Self::Silu => "z / (V(1.0) + exp(-z))",
            Self::Hardswish => "z * limited_v(fma(z, V(1.0 / 6.0), V(0.5)), V(0.0), V(1.0))",
        }
    }

    /// WGSL of the upstream gradient `dy` times its derivative at `z`, as [`Self::forward`].
    pub fn gradient(self) -> &'static str {
        match self {
            Self::None => "dy",
            Self::Relu => "select(V(0.0), dy, (z > V(0.0)) | is_nan_v(z))",
            Self::Relu6 => "select(V(0.0), dy, ((z > V(0.0)) & (z < V(6.0))) | is_nan_v(z))",
            Self::Silu => "dy * ((V(1.0) + z * (V(1.0) - V(1.0) / (V(1.0) + exp(-z)))) / (V(1.0) + exp(-z)))",
            Self::Hardswish => {
                "select(dy * select(fma(z, V(1.0 / 3.0), V(0.5)), V(1.0), (z >= V(3.0)) | is_nan_v(z)), V(0.0), z <= V(-3.0))"
            }
        }
    }

    /// Its value in float64.
    pub fn reference(self, z: f64) -> f64 {
        match self {
            Self::None => z,
            Self::Relu => maximum(z, 0.0),
            Self::Relu6 => z.clamp(0.0, 6.0),
            Self::Silu => z / (1.0 + (-z).exp()),
            Self::Hardswish => z * (z + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }
}

//! Initial values of parameters, computed on the host from a counter-based stream.

use crate::error::{Result, require_not_negative, require_within};
use crate::tensor::Shape;
use crate::tensor::random::Stream;

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// One value everywhere.
    Constant(f32),
    /// Uniform in `-bound..bound`.
    Uniform {
        /// The bound.
        bound: f32,
    },
    /// Normal with mean 0.
    Normal {
        /// The standard deviation.
        std: f32,
    },
    /// Normal with mean 0, redrawn outside two standard deviations.
    TruncatedNormal {
        /// The standard deviation before cutting.
        std: f32,
    },
}

impl Init {
    /// PyTorch's default for linear and convolution weights and biases: uniform within 1 /
    /// sqrt(fan_in).
    pub fn fan_in(fan_in: usize) -> Self {
        Init::Uniform { bound: 1.0 / (fan_in.max(1) as f32).sqrt() }
    }

    /// He et al. 2015 on the outgoing side, normal: timm's for convolutions of mobile networks and
    /// ResNets.
    pub fn kaiming_fan_out(fan_out: usize) -> Self {
        Init::Normal { std: (2.0 / fan_out.max(1) as f32).sqrt() }
    }

    /// Zeros.
    pub const ZEROS: Init = Init::Constant(0.0);
    /// Ones.
    pub const ONES: Init = Init::Constant(1.0);

    /// Refuses what is not finite, and spreads that are negative.
    pub(super) fn check(self, name: &str) -> Result<()> {
        match self {
            Init::Constant(value) => require_within(name, "its start", value, [f32::MIN, f32::MAX]),
            Init::Uniform { bound: spread } | Init::Normal { std: spread } | Init::TruncatedNormal { std: spread } => {
                require_not_negative(name, "the spread of its start", spread)
            }
        }
        .map(drop)
    }

    pub(super) fn values(self, shape: &Shape, stream: &mut Stream) -> Vec<f32> {
        let mut draw = || match self {
            Init::Constant(value) => value,
            Init::Uniform { bound } => (2.0 * stream.uniform() - 1.0) * bound,
            Init::Normal { std } => stream.normal() * std,
            Init::TruncatedNormal { std } => loop {
                let z = stream.normal();
                if z.abs() <= 2.0 {
                    break z * std;
                }
            },
        };
        (0..shape.numel()).map(|_| draw()).collect()
    }
}

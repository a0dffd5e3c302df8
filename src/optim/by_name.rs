//! Optimizers by name: what is chosen where a program is not written for one of them.

use serde::{Deserialize, Serialize};

use super::{Adam, AdamOptions, AdamW, Lars, LarsOptions, Optimizer, OptimizerOptions, RmsProp, RmsPropOptions, Sgd, SgdOptions};
use crate::error::{Error, Result};
use crate::nn::Parameters;

/// An optimizer's name with the settings that it alone has; those of all optimizers are
/// [`OptimizerOptions`].
///
/// ```
/// use wgrad::optim::Rule;
///
/// assert_eq!(Rule::named("adamw")?, Rule::AdamW { betas: [0.9, 0.999], eps: 1e-8 });
/// # Ok::<(), wgrad::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Rule {
    /// [`Sgd`].
    Sgd {
        /// What is kept of the last update's direction.
        momentum: f32,
        /// Looks ahead by one step of the momentum; without momentum there is nothing to look ahead
        /// by.
        nesterov: bool,
    },
    /// [`Adam`].
    Adam {
        /// Decay rates of the averages of the gradient and its square.
        betas: [f32; 2],
        /// Keeps the division finite.
        eps: f32,
    },
    /// [`AdamW`].
    AdamW {
        /// Decay rates of the averages of the gradient and its square.
        betas: [f32; 2],
        /// Keeps the division finite.
        eps: f32,
    },
    /// [`RmsProp`].
    RmsProp {
        /// Decay rate of the average of the squared gradient.
        alpha: f32,
        /// Added outside the root.
        eps: f32,
        /// What is kept of the last update's direction.
        momentum: f32,
    },
    /// [`Lars`].
    Lars {
        /// What is kept of the velocity.
        momentum: f32,
        /// How far a layer moves: see [`LarsOptions::trust_coefficient`].
        trust_coefficient: f32,
        /// See [`LarsOptions::clip_lr`].
        clip_lr: bool,
    },
}

impl Rule {
    /// The names that [`Self::named`] knows.
    pub const NAMES: [&str; 5] = ["sgd", "adam", "adamw", "rmsprop", "lars"];

    /// The optimizer called `name`: SGD and LARS with a momentum of 0.9, SGD's being Nesterov's,
    /// the others with PyTorch's defaults.
    ///
    /// # Errors
    /// [`Error::Argument`] for another name, with those that there are.
    pub fn named(name: &str) -> Result<Self> {
        let (AdamOptions { betas, eps, .. }, rmsprop, lars) = (AdamOptions::default(), RmsPropOptions::default(), LarsOptions::default());
        Ok(match name {
            "sgd" => Self::Sgd { momentum: 0.9, nesterov: true },
            "adam" => Self::Adam { betas, eps },
            "adamw" => Self::AdamW { betas, eps },
            "rmsprop" => Self::RmsProp { alpha: rmsprop.alpha, eps: rmsprop.eps, momentum: rmsprop.momentum },
            "lars" => Self::Lars { momentum: lars.momentum, trust_coefficient: lars.trust_coefficient, clip_lr: lars.clip_lr },
            other => return Err(Error::unknown("optimizer", other, Self::NAMES)),
        })
    }

    /// The optimizer, of all parameters in the home of `params`.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings without a meaning; out of memory.
    pub fn build(&self, params: &Parameters, common: OptimizerOptions) -> Result<Box<dyn Optimizer>> {
        Ok(match *self {
            Self::Sgd { momentum, nesterov } => {
                Box::new(Sgd::new(params, SgdOptions { momentum, nesterov: nesterov && momentum > 0.0, common })?)
            }
            Self::Adam { betas, eps } => Box::new(Adam::new(params, AdamOptions { betas, eps, common })?),
            Self::AdamW { betas, eps } => Box::new(AdamW::new(params, AdamOptions { betas, eps, common })?),
            Self::RmsProp { alpha, eps, momentum } => Box::new(RmsProp::new(params, RmsPropOptions { alpha, eps, momentum, common })?),
            Self::Lars { momentum, trust_coefficient, clip_lr } => {
                Box::new(Lars::new(params, LarsOptions { momentum, trust_coefficient, clip_lr, common })?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_and_is_what_is_written() {
        for name in Rule::NAMES {
            let rule = Rule::named(name).unwrap();
            let written = serde_json::to_value(rule).unwrap();
            assert_eq!(written["name"], name);
            assert_eq!(serde_json::from_value::<Rule>(written).unwrap(), rule);
        }
        let message = Rule::named("adamm").unwrap_err().to_string();
        assert_eq!(message, "optimizer: there is no \"adamm\"; did you mean \"adam\"? There are sgd, adam, adamw, rmsprop, lars");
    }
}

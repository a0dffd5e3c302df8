//! In which types operators are given what they compute: PyTorch's autocast, carried by the handle
//! of a device and by the tensors that are made with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Gpu;
use crate::error::{Error, Result};

/// In which types operators are given what they compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Those of the tensors that they are given.
    #[default]
    F32,
    /// Matrix products, convolutions and attention read and write f16 and add up in f32; losses,
    /// softmax, reductions and contrastive similarities take and give f32; the others follow their
    /// inputs. Parameters, statistics and optimizer state stay f32 (Micikevicius et al. 2018).
    Mixed,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Mixed => "mixed",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::F32, Self::Mixed]
            .into_iter()
            .find(|p| p.to_string() == text)
            .ok_or_else(|| Error::argument("precision", format!("\"{text}\" is neither f32 nor mixed")))
    }
}

impl Gpu {
    /// The same device, whose tensors, and those computed from them, are computed in `precision`.
    /// There is no global switch: another handle of the device keeps its own.
    ///
    /// # Errors
    /// [`Error::Limit`] where f16 is wanted and the adapter cannot store it.
    pub fn with_precision(&self, precision: Precision) -> Result<Self> {
        let caps = self.capabilities();
        if precision == Precision::Mixed && !caps.f16 {
            let message = "the adapter cannot store f16; train in f32".to_string();
            return Err(Error::Limit { operator: "mixed precision".into(), message, adapter: caps.name.clone() });
        }
        Ok(Self { precision, ..self.clone() })
    }

    /// What tensors made with this handle are computed in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The same device without a policy: what operators work with inside.
    pub(crate) fn plain(&self) -> Self {
        Self { precision: Precision::F32, ..self.clone() }
    }
}

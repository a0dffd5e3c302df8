//! What weights expect of pictures: published beside them, and as much a part of a model as its
//! layers.

use std::str::FromStr;

use crate::error::{Error, Result};
pub use crate::ops::augment::Interpolation;

/// How a picture becomes a square of a size: timm's `resize`, `crop_pct`, `crop_mode`,
/// `interpolation`, `mean` and `std`.
///
/// The shorter side is scaled to `resolution / crop`, the centre is cut out, and values of 0..1
/// become `(x - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize, serde::Deserialize))]
pub struct Preprocessing {
    /// Height and width that the network is given.
    pub resolution: usize,
    /// The part of the resized picture's shorter side that is kept, above 0 and at most 1.
    pub crop: f64,
    /// Both sides are scaled to `resolution / crop`, whatever their ratio was.
    pub squash: bool,
    /// The filter that scales.
    pub interpolation: Interpolation,
    /// Of red, green and blue.
    pub mean: [f32; 3],
    /// Of red, green and blue.
    pub std: [f32; 3],
}

impl Preprocessing {
    /// ImageNet's statistics, as most weights have them.
    pub const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    /// TensorFlow's: values of -1 to 1.
    pub const INCEPTION: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

    /// Whether every number lies where it means something.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the number, what is allowed and what was found.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str, expected: &str, found: &dyn std::fmt::Debug| {
            Err(Error::argument(what, format!("expected {expected}, found {found:?}")))
        };
        if !(1..=4096).contains(&self.resolution) {
            return wrong("resolution", "1 to 4096 pixels", &self.resolution);
        }
        // Written so that NaN lies outside. A hundredth of a picture is no picture any more.
        if !(0.01..=1.0).contains(&self.crop) {
            return wrong("crop", "0.01 to 1, the part of the shorter side that is kept", &self.crop);
        }
        if !self.mean.iter().all(|v| v.is_finite()) {
            return wrong("mean", "finite numbers", &self.mean);
        }
        if !self.std.iter().all(|v| v.is_finite() && *v > 0.0) {
            return wrong("std", "numbers above 0", &self.std);
        }
        Ok(())
    }
}

impl FromStr for Interpolation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "bilinear" => Ok(Self::Bilinear),
            "bicubic" => Ok(Self::Bicubic),
            _ => Err(Error::argument("interpolation", format!("there is no \"{name}\"; there are bilinear, bicubic"))),
        }
    }
}

impl std::fmt::Display for Interpolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        })
    }
}

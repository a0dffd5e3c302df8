//! What one input of a network is: an image or a text.

use std::fmt;

use super::{DType, Spec};
use crate::error::{Error, Result};

/// The shape of one image or text, without the axis of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputShape {
    /// Height, width and channels of an image, f32.
    Image([usize; 3]),
    /// Token numbers of a text, i32.
    Tokens(usize),
}

impl Default for InputShape {
    /// No image at all.
    fn default() -> Self {
        Self::Image([0; 3])
    }
}

impl InputShape {
    /// A batch of `n`: `[N, H, W, C]` or `[N, L]`.
    pub fn batch(self, n: usize) -> Spec {
        match self {
            Self::Image([height, width, channels]) => Spec::new([n, height, width, channels], DType::F32),
            Self::Tokens(length) => Spec::new([n, length], DType::I32),
        }
    }

    /// How many numbers it has.
    pub fn numel(self) -> usize {
        match self {
            Self::Image(size) => size.iter().fold(1, |product: usize, size| product.saturating_mul(*size)),
            Self::Tokens(length) => length,
        }
    }

    /// Height, width and channels of an image.
    ///
    /// # Errors
    /// [`Error::Argument`] of `subject` for a text.
    pub fn image(self, subject: &str) -> Result<[usize; 3]> {
        match self {
            Self::Image(size) => Ok(size),
            Self::Tokens(_) => Err(Error::argument(subject, format!("expected images, found {self}"))),
        }
    }

    /// The length of a text.
    ///
    /// # Errors
    /// [`Error::Argument`] of `subject` for an image.
    pub fn tokens(self, subject: &str) -> Result<usize> {
        match self {
            Self::Tokens(length) => Ok(length),
            Self::Image(_) => Err(Error::argument(subject, format!("expected texts, found {self}"))),
        }
    }
}

impl fmt::Display for InputShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image([height, width, channels]) => write!(f, "images of {height}x{width}x{channels}"),
            Self::Tokens(length) => write!(f, "texts of {length} tokens"),
        }
    }
}

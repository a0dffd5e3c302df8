//! An operator's line of the registry.

use super::sample::{Bad, Sample};
use super::{Attributes, Operator};
use crate::error::Result;

/// Makes an operator from its attributes.
pub type Build = dyn Fn(&Attributes) -> Result<Box<dyn Operator>>;

/// What is known of an operator without running it.
pub struct Entry {
    /// PyTorch's name of it.
    pub name: &'static str,
    /// The folder below `src/ops`.
    pub family: &'static str,
    /// Names of its inputs, in order.
    pub inputs: &'static [&'static str],
    /// Names of its outputs, in order; those that only backward needs have none.
    pub outputs: &'static [&'static str],
    /// Its shader files below `shaders/`, without the extension.
    pub shaders: &'static [&'static str],
    /// Makes one from its attributes.
    pub build: Box<Build>,
    /// What it is tested, checked and timed on.
    pub samples: Box<dyn Fn() -> Vec<Sample>>,
    /// What it must refuse.
    pub bad: Box<dyn Fn() -> Vec<Bad>>,
}

//! Every operator of the crate, one line each.

use super::sample::{Bad, Sample};
use super::{
    Attributes, Operator, augment, contrastive, convolution, elementwise, layout, linear, loss, normalization, optimizer, pooling,
    reduction, softmax,
};
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

/// All operators.
pub fn registry() -> Vec<Entry> {
    let mut entries = Vec::new();
    entries.extend(augment::entries());
    entries.extend(contrastive::entries());
    entries.extend(convolution::entries());
    entries.extend(elementwise::entries());
    entries.extend(layout::entries());
    entries.extend(linear::entries());
    entries.extend(loss::entries());
    entries.extend(normalization::entries());
    entries.extend(optimizer::entries());
    entries.extend(pooling::entries());
    entries.extend(reduction::entries());
    entries.extend(softmax::entries());
    entries
}

/// The operator called `name`.
pub fn find(name: &str) -> Option<Entry> {
    registry().into_iter().find(|e| e.name == name)
}

//! Softmax and its logarithm, with temperature.

#[allow(clippy::module_inception)]
pub mod softmax;

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    softmax::entries()
}

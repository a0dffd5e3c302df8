//! Convolutions: dense, grouped, depthwise, transposed.

use super::registry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    Vec::new()
}

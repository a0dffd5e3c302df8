//! Element-wise operators: maps of one tensor, and broadcasting pairs.

pub mod map;

use super::registry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    map::entries()
}

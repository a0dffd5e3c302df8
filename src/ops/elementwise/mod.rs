//! Element-wise operators: maps of one tensor, and broadcasting pairs.

pub mod binary;
pub mod map;
pub(crate) mod pointwise;

use super::registry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = map::entries();
    entries.extend(binary::entries());
    entries
}

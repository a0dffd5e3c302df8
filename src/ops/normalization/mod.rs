//! Batch, layer and group normalisation.

pub mod batch_norm;
pub mod group_norm;
pub mod layer_norm;

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    entries.extend(batch_norm::entries());
    entries.extend(group_norm::entries());
    entries.extend(layer_norm::entries());
    entries
}

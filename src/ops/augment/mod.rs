//! Image augmentation: operators without a backward, replayable from a seed.

use super::registry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    Vec::new()
}

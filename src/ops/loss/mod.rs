//! Losses: f32 scalars `[]`, means over rows or elements. Nothing to average gives 0, with gradient 0.

pub mod correct;
pub mod cross_entropy;
pub mod distillation_kl;
pub(crate) mod mean;
pub mod pairwise;
pub(crate) mod rows;
pub mod soft_cross_entropy;

use super::entry::Entry;

/// The label of a row that is not known, or not asked for: losses that are told to
/// [ignore](cross_entropy::CrossEntropyFuncOptions) it do.
pub const HIDDEN: i32 = -1;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    entries.extend(correct::entries());
    entries.extend(cross_entropy::entries());
    entries.extend(distillation_kl::entries());
    entries.extend(pairwise::entries());
    entries.extend(soft_cross_entropy::entries());
    entries
}

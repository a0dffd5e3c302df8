//! Reductions along axes.

pub mod aggregate;
pub mod cosine_similarity;
mod dims;
pub mod l2_normalize;
pub(crate) mod reduce;
pub mod topk;
pub mod var;

pub use dims::Dims;
pub(crate) use reduce::{column_sum, sum_to};

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = aggregate::entries();
    entries.extend(topk::entries());
    entries.extend([var::entry(), l2_normalize::entry(), cosine_similarity::entry()]);
    entries
}

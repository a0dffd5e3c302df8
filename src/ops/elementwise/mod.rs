//! Element-wise operators: maps of one tensor, broadcasting pairs, conditions, chains of them in
//! one kernel, choices, conversions and random masks.

mod arithmetic;
pub mod binary;
pub mod cast;
pub mod compare;
pub mod dropout;
pub mod expression;
pub mod fuse;
pub mod map;
pub(crate) mod pointwise;
pub mod where_;

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = map::entries();
    entries.extend(binary::entries());
    entries.extend(compare::entries());
    entries.extend([where_::entry(), cast::entry(), fuse::entry()]);
    entries.extend(dropout::entries());
    entries
}

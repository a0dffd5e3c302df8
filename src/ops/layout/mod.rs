//! Moving elements: permute, slice, pad, concat, gather and their relatives.

pub mod concat;
pub mod embedding;
pub mod expand;
pub mod flip;
pub mod gather;
pub mod index_select;
pub mod pad;
pub mod permute;
pub mod reshape;
pub mod slice;
pub(crate) mod strided;

pub use pad::PadMode;

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    vec![
        concat::entry(),
        embedding::entry(),
        expand::entry(),
        flip::entry(),
        gather::entry(),
        index_select::entry(),
        pad::entry(),
        permute::entry(),
        reshape::entry(),
        slice::entry(),
    ]
}

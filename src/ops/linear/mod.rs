//! Matrix products, linear layers, attention.

mod attention;
pub(crate) mod gemm;
// An operator may be called as its family is.
#[allow(clippy::module_inception)]
mod linear;
mod matmul;
pub(crate) mod matrix;

use super::entry::Entry;
pub use attention::ScaledDotProductAttention;
pub use linear::Linear;
pub use matmul::{Form, Matmul};

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = matmul::entries();
    entries.push(linear::entry());
    entries.push(attention::entry());
    entries
}

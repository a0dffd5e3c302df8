//! Every operator of the crate, one line each.

pub use super::entry::Entry;
use super::{
    augment, contrastive, convolution, elementwise, layout, linear, loss, manifold, normalization, optimizer, pooling, reduction, softmax,
};

/// All operators.
pub fn registry() -> Vec<Entry> {
    let mut entries = Vec::new();
    entries.extend(augment::entries());
    entries.extend(contrastive::entries());
    entries.extend(convolution::entries());
    entries.extend(elementwise::entries());
    entries.extend(layout::entries());
    entries.extend(linear::entries());
    entries.extend(loss::entries());
    entries.extend(manifold::entries());
    entries.extend(normalization::entries());
    entries.extend(optimizer::entries());
    entries.extend(pooling::entries());
    entries.extend(reduction::entries());
    entries.extend(softmax::entries());
    entries
}

/// The operator called `name`.
pub fn find(name: &str) -> Option<Entry> {
    registry().into_iter().find(|e| e.name == name)
}

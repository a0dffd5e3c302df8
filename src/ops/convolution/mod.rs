//! Convolutions: dense, grouped, depthwise, transposed.

pub mod conv2d;
pub mod conv_transpose2d;
pub mod depthwise_conv2d;
pub mod geometry;
mod slabs;

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    vec![conv2d::entry(), conv_transpose2d::entry(), depthwise_conv2d::entry()]
}

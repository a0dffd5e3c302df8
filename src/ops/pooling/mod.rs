//! Pooling and resampling of images.

pub mod avg_pool2d;
pub mod global_avg_pool2d;
pub mod max_pool2d;
pub mod upsample2d;
mod window;

pub use upsample2d::{Upsample, UpsampleMode};
pub use window::Window;

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    vec![avg_pool2d::entry(), global_avg_pool2d::entry(), max_pool2d::entry(), upsample2d::entry()]
}

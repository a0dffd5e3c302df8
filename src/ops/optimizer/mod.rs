//! Optimizer updates over one slab that holds all parameters: one dispatch a step, in place,
//! without a backward. `slab` describes the layout; `src/optim` drives them.

pub mod adam_update;
pub mod clip_each;
pub mod clip_norm;
pub mod ema_update;
pub mod lars_update;
pub mod loss_scale;
mod norms;
pub mod rmsprop_update;
pub mod segment_norms;
pub mod sgd_update;
mod slab;
pub mod square_sums;

pub use slab::{BLOCK, Scalars, Segment, Slab, update};

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = vec![
        adam_update::entry(),
        clip_each::entry(),
        clip_norm::entry(),
        ema_update::entry(),
        lars_update::entry(),
        rmsprop_update::entry(),
        segment_norms::entry(),
        sgd_update::entry(),
        square_sums::entry(),
    ];
    entries.extend(loss_scale::entries());
    entries
}

//! Contrastive similarity: NT-Xent fused and by its matrix, InfoNCE with a queue, supervised
//! contrast, BYOL, DINO, and their states.

pub mod byol_loss;
pub mod center_update;
pub mod dino_loss;
pub mod info_nce_queue;
pub mod masked_nt_xent;
pub mod nt_xent;
mod pairs;
pub mod queue_write;
pub mod similarity_matrix;
pub mod supcon_loss;

pub use masked_nt_xent::nt_xent_unfused;

use super::entry::Entry;

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    vec![
        byol_loss::entry(),
        center_update::entry(),
        dino_loss::entry(),
        info_nce_queue::entry(),
        masked_nt_xent::entry(),
        nt_xent::entry(),
        queue_write::entry(),
        similarity_matrix::entry(),
        supcon_loss::entry(),
    ]
}

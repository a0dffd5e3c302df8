//! The tape: what was computed from what, gradients, versions of buffers, and the search for the
//! first non-finite value. It knows no operator; `ops::apply` records each as a `Function`.
//!
//! There is no global tape and no mode switch: a tensor that came from a watched one carries the
//! node that made it.

mod backward;
mod buckets;
mod checkpoint;
mod gradients;
mod tape;
mod trace;

pub use buckets::PackedGradients;
pub use checkpoint::{Pass, checkpoint};
pub use gradients::Gradients;
pub(crate) use gradients::sum;
pub use tape::{Backward, Saves};
pub(crate) use tape::{Function, leaf, record};
pub(crate) use trace::check_finite;

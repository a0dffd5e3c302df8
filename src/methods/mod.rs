//! How a model is trained: a step's loss, what happens after the update, and the state to keep. `train` drives them.

mod simclr;
mod supervised;

pub use simclr::{SimClr, SimClrConfig};
pub use supervised::Supervised;

use crate::error::Result;
use crate::tensor::Tensor;

/// What a step is given: the views of each image, all of one size, and the labels.
pub struct Batch {
    /// `[N, H, W, C]`, as many as [`Method::views`] asks for.
    pub views: Vec<Tensor>,
    /// i32 `[N]`; methods without labels do not look.
    pub labels: Tensor,
}

/// One learning method.
pub trait Method {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// How many augmented views of each image a step takes.
    fn views(&self) -> u32;

    /// The loss of one step, a scalar.
    ///
    /// # Errors
    /// Those of the model's operators.
    fn loss(&self, batch: &Batch) -> Result<Tensor>;

    /// Runs after the optimizer's update: averages, queues, centres.
    ///
    /// # Errors
    /// Those of their kernels.
    fn after_update(&self) -> Result<()> {
        Ok(())
    }

    /// Tensors beyond the parameters that a checkpoint must hold, by name.
    fn state(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }
}

//! What a trained network is worth: accuracy, probes, comparisons, embeddings, similarities.

pub mod bias;
pub mod compare;
pub mod domains;
pub mod embedding;
mod outputs;
pub mod probe;
pub mod similarity;
pub mod tasks;
mod validation;

pub use outputs::{Evaluation, PictureInput, argmax, evaluate, outputs, stream_outputs};
pub use validation::Validation;

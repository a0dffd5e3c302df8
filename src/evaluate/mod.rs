//! What a trained network is worth: accuracy, probes, comparisons, embeddings, similarities.

pub mod bias;
pub mod compare;
pub mod domains;
pub mod embedding;
mod outputs;
pub mod probe;
pub mod run_report;
pub mod similarity;
pub mod tasks;
mod validation;
mod views;

pub use outputs::{Evaluation, PictureInput, argmax, evaluate, outputs, stream_outputs};
pub use validation::Validation;
pub use views::ViewSheet;

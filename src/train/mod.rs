//! The training loop: progress, metrics, checkpoints and resuming, evaluation, probes.

pub mod alarm;
pub mod bias;
pub mod capture;
mod changes;
pub mod checkpoint;
pub mod compare;
pub mod domains;
pub mod embedding;
pub mod estimate;
pub mod evaluate;
pub mod experts;
pub mod finetune;
pub mod finished;
pub mod images;
pub mod learner;
pub mod methods;
pub mod probe;
pub mod profile;
pub mod progress;
pub mod recipe;
pub mod run;
pub mod similarity;
pub mod spectrum;
pub mod tasks;
mod teacher_cache;
pub mod trainer;
pub mod watch;

pub use capture::{Capture, Inputs};
pub use checkpoint::Checkpoint;
pub use finished::Finished;
pub use recipe::Recipe;
pub use run::RunDirectory;
pub use trainer::{Outcome, Trainer};

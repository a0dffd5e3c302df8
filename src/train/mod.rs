//! The training loop: recipes, progress, metrics, checkpoints and resuming, fine-tuning, teachers.

pub mod alarm;
mod changes;
pub mod checkpoint;
pub mod estimate;
pub mod experts;
pub mod finetune;
pub mod finished;
pub mod images;
pub mod learner;
pub mod methods;
pub mod profile;
pub mod progress;
pub mod recipe;
pub mod run;
pub mod spectrum;
mod teacher_cache;
pub mod trainer;
pub mod watch;

pub use checkpoint::Checkpoint;
pub use finished::Finished;
pub use recipe::Recipe;
pub use run::RunDirectory;
pub use trainer::{Outcome, Trainer};

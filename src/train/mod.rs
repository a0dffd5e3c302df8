//! The training loop: recipes, progress, metrics, checkpoints and resuming, fine-tuning, teachers.

pub mod alarm;
mod changes;
pub mod checkpoint;
pub mod estimate;
mod events;
pub mod finetune;
pub mod images;
pub mod learner;
pub mod loaded_run;
pub mod methods;
pub mod profile;
pub mod progress;
pub mod recipe;
pub mod run;
pub mod spectrum;
mod teacher_cache;
pub mod teachers;
pub mod trainer;
pub mod validation;
pub mod watch;

pub use checkpoint::Checkpoint;
pub use loaded_run::LoadedRun;
pub use recipe::Recipe;
pub use run::RunDirectory;
pub use trainer::{Outcome, Trainer};

//! Training runs: recipes, checkpoints, interruption, evaluation.

#[path = "../common/mod.rs"]
mod common;

mod checkpoints;
mod embedding;
mod estimate;
mod finetune;
mod impossible;
mod interruption;
mod mixing;
mod parallel;
mod pictures;
mod precision;
mod probe;
mod recipes;
mod tensorboard;
mod training;
mod validation;

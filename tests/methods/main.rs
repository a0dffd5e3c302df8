//! What methods learn: losses, invariants, trajectories.

#[path = "../common/mod.rs"]
mod common;

mod distillation;
mod invariants;
mod merge;
mod multitask;
mod pretext;
mod reference_trajectories;
mod self_supervised;
mod semi_supervised;
mod shards;
mod ssl_dino;
mod watch;

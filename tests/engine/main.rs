//! What knows no operator by name: the device, recording, the tape, captured steps, memory, limits.

#[path = "../common/mod.rs"]
mod common;

mod aliases;
mod autograd;
mod capture;
mod device;
mod memory;
mod outside_text;
mod precision;
mod programs;
mod settings;
mod sizes;
mod split;
mod waiting;

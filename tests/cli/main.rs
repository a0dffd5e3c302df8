//! The program as its users run it.

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod check;
mod command_line;
mod comparison;
mod documents;
mod inspect;
#[cfg(unix)]
mod outputs;
mod predict;
mod report;

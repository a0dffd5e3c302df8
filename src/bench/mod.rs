//! The kernel benchmark: how fast, how far from what this adapter can do, by which schedule, and is it still right?

pub mod probes;
pub mod run;
pub mod statistics;

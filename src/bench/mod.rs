//! The kernel benchmark: how fast, how far from what this adapter can do, by which schedule, and is it still right?

pub mod probes;
pub mod report;
mod roofline;
pub mod run;
pub mod statistics;
mod svg;

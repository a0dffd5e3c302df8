//! A hand-written GPU compute engine: WGSL kernels under a small autograd tape that trains vision models.
// wgpu's types nest deeper than rustdoc's default limit.
#![recursion_limit = "256"]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod autograd;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod data;
pub mod error;
pub mod gpu;
pub mod io;
pub mod methods;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod tensor;
#[cfg(feature = "cli")]
pub mod train;

//! Every operator against its reference, at every size, with every value.

#[path = "../common/mod.rs"]
mod common;

mod augmentation;
mod empty;
mod gradients;
mod half;
mod half_ulps;
mod long_loops;
mod matrix;
mod non_finite;
mod optimizers;
mod properties;
mod reference_ops;

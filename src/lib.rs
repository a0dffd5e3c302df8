//! A hand-written GPU compute engine: WGSL kernels under a small autograd tape that trains vision
//! models.
//!
//! Every number on the training path is computed by a shader in `shaders/`, on any GPU that Vulkan,
//! Metal or DX12 reaches, or on a software driver where there is none. Images are NHWC; names of
//! operators, layers and arguments are PyTorch's.
//!
//! ```
//! use wgrad::prelude::*;
//!
//! # fn main() -> Result<()> {
//! let gpu = Gpu::new()?;
//! let params = Parameters::new(&gpu, 0); // one home for all weights, and the seed of their initial values
//! let model = Linear::new(&params, "model", 2, 2)?;
//! let mut optimizer = Sgd::new(&params, SgdOptions { momentum: 0.9, ..Default::default() })?;
//!
//! // Is the first number the larger one?
//! let x = Tensor::from_slice(&gpu, &[1.0f32, 0.0, 0.0, 1.0, 0.8, 0.3, 0.2, 0.9], [4, 2])?;
//! let labels = Tensor::from_slice(&gpu, &[1, 0, 1, 0], [4])?;
//! for _ in 0..20 {
//!     let loss = model.forward(&x, Mode::Train)?.cross_entropy(&labels, 0.0)?;
//!     optimizer.step(&loss.backward()?, 0.5)?;
//! }
//! let logits = model.forward(&x, Mode::Eval)?;
//! assert_eq!(logits.argmax(-1)?.to_vec::<i32>()?, [1, 0, 1, 0]);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | module | what is in it |
//! |---|---|
//! | [`prelude`] | what most programs begin with |
//! | [`gpu`] | adapters, devices, kernels and launching them |
//! | [`tensor`] | tensors, shapes, element types, random numbers; every operator is a method of [`tensor::Tensor`] |
//! | [`autograd`] | the tape: [`watch`](tensor::Tensor::watch), [`backward`](tensor::Tensor::backward), [`autograd::Gradients`] |
//! | [`check`] | a sanitizer for kernels that needs no GPU |
//! | [`ops`] | the [`ops::Operator`] trait, all operators by family, the registry, [`ops::gradcheck`] |
//! | [`capture`] | a step that is recorded once and replayed |
//! | [`nn`] | [`nn::Parameters`], layers, initial values, state dictionaries |
//! | [`optim`] | optimizers, learning-rate schedules, moving averages |
//! | `parallel` | the shards of a step, and the processes that share them (feature `cli`; over MPI: `mpi`) |
//! | [`models`] | networks |
//! | [`methods`] | how a model is trained: 33 methods, from labels, from none, from teachers |
//! | `data`, `train`, `evaluate`, `report`, `bench`, `cli` | images and augmentation; runs and checkpoints; probes and comparisons; plots and statistics; the kernel benchmark; the command line (feature `cli`, on by default) |
//! | [`io`] | files: archives of tensors, atomic writing, layouts of weights |
//! | [`error`] | the one error type |
//!
//! A folder uses what stands below it in this order and never what stands above: cli, bench,
//! evaluate, train, methods, models, parallel, nn with optim, data, report and io, capture, ops, autograd,
//! tensor, check, gpu, error.
//!
//! # Features
//!
//! `cli` (default) brings `data`, `train`, `evaluate`, `report`, `bench`, the command line and
//! their dependencies. Without it this is the engine alone.
// wgpu's types nest deeper than rustdoc's default limit.
#![recursion_limit = "256"]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod autograd;
#[cfg(feature = "cli")]
pub mod bench;
pub mod capture;
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod data;
pub mod error;
#[cfg(feature = "cli")]
pub mod evaluate;
pub mod gpu;
#[cfg(feature = "cli")]
pub mod inspect;
pub mod io;
pub mod methods;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
#[cfg(feature = "cli")]
pub mod parallel;
pub mod prelude;
#[cfg(feature = "cli")]
pub mod report;
pub mod tensor;
#[cfg(feature = "cli")]
pub mod train;

/// The examples of the README and of the tutorials are compiled and run.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/tutorial/first-kernel.md")]
    struct FirstKernel;
    #[doc = include_str!("../docs/tutorial/first-model.md")]
    struct FirstModel;
    #[cfg(feature = "cli")]
    #[doc = include_str!("../docs/tutorial/first-method.md")]
    struct FirstMethod;
}

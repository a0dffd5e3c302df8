//! The command line, one file a command.

mod demo;
mod doctor;
mod eval;
mod info;
mod ops;
mod predict;
mod probe;
mod table;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// Trains vision models through hand-written WGSL kernels on any GPU that Vulkan, Metal or DX12 reaches.
#[derive(Parser)]
#[command(name = "wgrad", version, about, max_term_width = 100, after_help = "Environment: WGRAD_ADAPTER selects an adapter by index, name or back end; \
    WGRAD_LIMITS=webgpu grants only what a browser would; WGRAD_SCHEDULE=cpu|simd; WGRAD_MEMORY_MIB; WGRAD_CHECKED=1; RUST_LOG=wgrad=info.")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(info::Info),
    Doctor(doctor::Doctor),
    Ops(ops::Ops),
    #[command(subcommand)]
    Train(train::Train),
    Probe(probe::Probe),
    Eval(eval::Eval),
    Predict(predict::Predict),
    Demo(demo::Demo),
}

impl Arguments {
    /// Runs the command; its exit code where it did what it was asked.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Info(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Ops(command) => command.run(),
            Command::Train(command) => command.run(),
            Command::Probe(command) => command.run(),
            Command::Eval(command) => command.run(),
            Command::Predict(command) => command.run(),
            Command::Demo(command) => command.run(),
        }
    }
}

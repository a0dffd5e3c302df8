//! The command line, one file a command.

mod bench;
mod check;
mod classifier;
mod compare;
mod data;
mod demo;
mod device;
mod doctor;
mod embed;
mod eval;
mod exchange;
mod info;
mod inspect;
mod kernel;
mod methods;
mod models;
mod ops;
mod output;
mod predict;
mod probe;
mod profile;
mod recipe;
mod report;
mod signals;
mod similarity;
mod table;
mod train;
mod tune;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;

const ENVIRONMENT: &str = "\
Environment:
  WGRAD_ADAPTER           an adapter by index, part of its name, or back end
  WGRAD_LIMITS=webgpu     only what a browser would grant
  WGRAD_SCHEDULE          software or gpu, the versions of heavy kernels
  WGRAD_TUNING            a tuning table's file, random:SEED, or off; the adapter's own (`wgrad tune`) when not set
  WGRAD_MEMORY_MIB        most device memory to hold
  WGRAD_BINDING_KIB       largest tensor that a kernel is given whole; larger ones are worked on in pieces
  WGRAD_PICTURE_MPIXELS   largest picture that is read, in million pixels [default: 64]
  WGRAD_CHECKED=1         build shaders with bounds checks
  WGRAD_TRACE_NON_FINITE=1  name the first operator whose result is not finite
  RUST_LOG=wgrad=info     what every step does

Exit codes: 0 done, 1 failed, 2 misused; 130, 143, 129 ended by Ctrl-C, SIGTERM, SIGHUP (training has written a checkpoint and can be resumed).";

/// Trains vision models through hand-written WGSL kernels on any GPU that Vulkan, Metal or DX12
/// reaches.
#[derive(Parser)]
#[command(name = "wgrad", version, about, after_help = ENVIRONMENT)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(info::Info),
    Models(models::Models),
    Methods(methods::Methods),
    Recipe(recipe::Recipe),
    Data(data::Data),
    Doctor(doctor::Doctor),
    Ops(ops::Ops),
    Bench(Box<bench::Bench>),
    Check(check::Check),
    Inspect(Box<inspect::Inspect>),
    Train(train::Train),
    Probe(probe::Probe),
    Similarity(similarity::Similarity),
    Embed(embed::Embed),
    Eval(eval::Eval),
    Report(report::Report),
    Predict(predict::Predict),
    Compare(compare::Compare),
    Demo(demo::Demo),
    Tune(tune::Tune),
}

impl Arguments {
    /// Runs the command; its exit code where it did what it was asked.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Info(command) => command.run(),
            Command::Models(command) => command.run(),
            Command::Methods(command) => command.run(),
            Command::Recipe(command) => command.run(),
            Command::Data(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Ops(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Train(command) => command.run(),
            Command::Probe(command) => command.run(),
            Command::Similarity(command) => command.run(),
            Command::Embed(command) => command.run(),
            Command::Eval(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Predict(command) => command.run(),
            Command::Compare(command) => command.run(),
            Command::Demo(command) => command.run(),
            Command::Tune(command) => command.run(),
        }
    }
}

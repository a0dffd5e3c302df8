//! A sanitizer for kernels that needs no GPU: it runs a kernel on an interpreter of naga's IR, and
//! looks for what WGSL forbids or leaves open.
//!
//! A driver that gives the right numbers proves little: a software driver runs the invocations of a
//! workgroup one after the other, so a barrier that is missing does not show. Here all invocations of
//! a workgroup walk through the kernel together, statement by statement, and each access to memory is
//! compared with those that no barrier lies between, whoever came first. So a race is found by what
//! the text allows and not by what happened.
//!
//! What is found is what the run comes to: other inputs, sizes and grids may come to more. Accesses
//! that atomics put in order are not told from others, and textures and cooperative matrices are
//! refused.
//!
//! | file | what it does |
//! |---|---|
//! | `report` | what was found, by kind and place |
//! | `memory` | bytes, who has touched them since when, and what no one has written |
//! | `access` | what is read and written, and what that races with |
//! | `value` | the values of an expression in all invocations |
//! | `arithmetic` | operators and functions of numbers, and where they have no meaning |
//! | `launch` | global variables, and one workgroup after the other |
//! | `machine` | statements: all invocations of a workgroup together |
//! | `expressions` | expressions |
//! | `functions` | products of matrices, built-in functions, atomic operations |
//! | `subgroups` | what invocations of a subgroup tell each other |

mod access;
mod arithmetic;
mod expressions;
mod functions;
mod launch;
mod machine;
mod memory;
mod report;
mod subgroups;
mod value;

pub use report::{Finding, FindingKind, Report};

use self::machine::Machine;
use crate::error::{Error, Result};
use crate::gpu::source::Source;
use crate::gpu::{Interface, Kernel, Param};

/// How a kernel is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Invocations of a subgroup: a power of two from 4 to 128.
    pub subgroup_size: u32,
    /// Rounds of loops after which an invocation counts as endless.
    pub most_rounds: u64,
}

impl Default for Options {
    /// 32 invocations a subgroup, a million rounds.
    fn default() -> Self {
        Self { subgroup_size: 32, most_rounds: 1 << 20 }
    }
}

/// A buffer before the kernel runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The variable of the shader.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Runs the entry point `entry` of `kernel` (the only one where it is empty), with constants of its
/// template, on `grid` workgroups, and says what is wrong with it. Buffers are given by name,
/// parameters in the order in which the kernel declares them.
///
/// # Errors
/// [`Error::Shader`] where the text is none; [`Error::Argument`] for buffers, parameters or an entry
/// point that it does not have; what the interpreter does not know: textures, cooperative matrices,
/// types of 64 bits.
pub fn check(
    kernel: &Kernel,
    entry: &str,
    defines: &[(String, String)],
    buffers: Vec<Contents>,
    params: &[Param],
    grid: [u32; 3],
    options: Options,
) -> Result<Report> {
    if !options.subgroup_size.is_power_of_two() || !(4..=128).contains(&options.subgroup_size) {
        return Err(Error::argument("subgroup", format!("expected a power of two from 4 to 128, found {}", options.subgroup_size)));
    }
    let source = Source::read(kernel, defines)?;
    let interface = source.interface(entry)?;
    if params.len() != interface.params.len() {
        let message = format!("the kernel declares {} parameters, found {}", interface.params.len(), params.len());
        return Err(Error::argument("params", message));
    }
    Machine::new(&source, &interface.entry, buffers, params, grid, options)?.run()
}

/// What a kernel declares, without a device: its buffers, parameters and entry point.
///
/// # Errors
/// As [`check`].
pub fn interface(kernel: &Kernel, entry: &str, defines: &[(String, String)]) -> Result<Interface> {
    Source::read(kernel, defines)?.interface(entry)
}

#[cfg(test)]
mod tests;

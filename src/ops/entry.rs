//! An operator's line of the registry.

use super::sample::{Bad, Sample};
use super::{Attributes, Operator};
use crate::error::Result;
use crate::gpu::Kernel;

/// Declares kernels embedded from `shaders/`, each by its path below that folder, and `KERNELS`,
/// the list of them.
macro_rules! kernels {
    ($($name:ident = $path:literal),+ $(,)?) => {
        $(pub(crate) static $name: $crate::gpu::Kernel = $crate::gpu::kernel!($path);)+
        /// The kernels that are declared here, for the registry.
        pub(crate) const KERNELS: &[&$crate::gpu::Kernel] = &[$(&$name),+];
    };
}
pub(crate) use kernels;

/// Makes an operator from its attributes.
pub type Build = dyn Fn(&Attributes) -> Result<Box<dyn Operator>>;

/// What is known of an operator without running it.
pub struct Entry {
    /// PyTorch's name of it.
    pub name: &'static str,
    /// The module that defines it, by `module_path!()`.
    pub module: &'static str,
    /// Names of its inputs, in order.
    pub inputs: &'static [&'static str],
    /// Names of its outputs, in order; those that only backward needs have none.
    pub outputs: &'static [&'static str],
    /// The kernels that it launches: what its own folder declares, and what it shares with others.
    pub kernels: &'static [&'static [&'static Kernel]],
    /// Makes one from its attributes.
    pub build: Box<Build>,
    /// What it is tested, checked and timed on.
    pub samples: Box<dyn Fn() -> Vec<Sample>>,
    /// What it must refuse.
    pub bad: Box<dyn Fn() -> Vec<Bad>>,
}

impl Entry {
    /// The folder below `src/ops`.
    pub fn family(&self) -> &'static str {
        self.module.split("::").skip_while(|part| *part != "ops").nth(1).unwrap_or(self.module)
    }

    /// Its shader files below `shaders/`, without the extension.
    pub fn shaders(&self) -> Vec<&'static str> {
        self.kernels.iter().copied().flatten().map(|kernel| kernel.name()).collect()
    }
}

//! What a driver's compiler says of a kernel: registers, spills, occupancy, machine code
//! (VK_KHR_pipeline_executable_properties). Nothing is run.

#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
mod vulkan;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Capabilities, Gpu, PlannedKernel};
use crate::error::{Error, Result};

/// What a driver makes of one entry point.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Executable {
    /// Lanes of a subgroup.
    pub subgroup_size: u32,
    /// The compiler's numbers, by the names that it gives them.
    pub statistics: BTreeMap<String, f64>,
    /// The compiler's texts, machine code among them, by the names that it gives them. Empty where
    /// they were not asked for.
    pub texts: BTreeMap<String, String>,
}

/// The error of a driver that does not tell.
fn silent(caps: &Capabilities, message: &str) -> Error {
    Error::Limit { operator: "inspect".into(), message: message.into(), adapter: caps.name.clone() }
}

/// The compiler of one adapter's driver.
pub struct Compiler {
    #[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
    device: vulkan::Device,
}

impl Compiler {
    /// The compiler of the driver behind `gpu`, on a device that checks the bounds of buffers where
    /// it is `robust`, as every device of wgpu is.
    ///
    /// # Errors
    /// [`Error::Limit`] where the driver does not tell: no Vulkan, or no
    /// VK_KHR_pipeline_executable_properties. [`Error::Adapter`] where it makes no device.
    #[cfg_attr(any(target_arch = "wasm32", target_vendor = "apple"), allow(unused_variables))]
    pub fn of(gpu: &Gpu, robust: bool) -> Result<Self> {
        let caps = gpu.capabilities();
        if caps.backend != "vulkan" {
            return Err(silent(caps, &format!("{} drivers do not say what they compile; only Vulkan's do", caps.backend)));
        }
        #[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
        return Ok(Self { device: vulkan::Device::open(caps, robust)? });
        #[cfg(any(target_arch = "wasm32", target_vendor = "apple"))]
        Err(silent(caps, "there is no Vulkan here"))
    }

    /// Compiles one entry point as wgpu would have it compiled, with the compiler's texts where
    /// `texts` says so.
    ///
    /// # Errors
    /// [`Error::Shader`] where naga or the driver refuses it.
    #[cfg_attr(any(target_arch = "wasm32", target_vendor = "apple"), allow(unused_variables))]
    pub fn compile(&self, kernel: &PlannedKernel, entry: &str, texts: bool) -> Result<Vec<Executable>> {
        #[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
        return self.device.compile(kernel, entry, texts);
        #[cfg(any(target_arch = "wasm32", target_vendor = "apple"))]
        Err(Error::Adapter("there is no Vulkan here".into()))
    }
}

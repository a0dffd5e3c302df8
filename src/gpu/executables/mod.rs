//! What a driver's compiler says of a kernel: registers, spills, occupancy, machine code
//! (VK_KHR_pipeline_executable_properties). Nothing is run.

#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
mod vulkan;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Gpu, PlannedKernel};
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

/// The compiler of one adapter's driver.
pub struct Compiler {
    #[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
    device: vulkan::Device,
}

impl Compiler {
    /// The compiler of the driver behind `gpu`.
    ///
    /// # Errors
    /// [`Error::Adapter`] where the driver does not tell: no Vulkan, or no
    /// VK_KHR_pipeline_executable_properties.
    pub fn of(gpu: &Gpu) -> Result<Self> {
        let caps = gpu.capabilities();
        if caps.backend != "vulkan" {
            let message = format!("{} is reached by {}, whose drivers do not say what they compile; only Vulkan's do", caps.name, caps.backend);
            return Err(Error::Adapter(message));
        }
        #[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
        return Ok(Self { device: vulkan::Device::open(&caps.name)? });
        #[cfg(any(target_arch = "wasm32", target_vendor = "apple"))]
        Err(Error::Adapter("there is no Vulkan here".into()))
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

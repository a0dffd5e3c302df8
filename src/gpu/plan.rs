//! Planning devices: every launch of some work, with the text of its kernel, without doing it.

use std::sync::Arc;

use super::{Capabilities, Gpu, GpuOptions, Schedule, lock};
use crate::error::{Error, Result};

/// A variant of a kernel as a device would build it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlannedKernel {
    /// The kernel's name.
    pub kernel: String,
    /// Constants of the variant.
    pub variant: String,
    /// WGSL as this device reads it.
    pub text: String,
    /// Entry points and their workgroups' sizes.
    pub entries: Vec<(String, [u32; 3])>,
    /// Whether it is built with bounds checks.
    pub checked: bool,
}

/// One launch that was planned.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedLaunch {
    /// What is launched.
    pub kernel: Arc<PlannedKernel>,
    /// The entry point.
    pub entry: String,
    /// Workgroups, folded grids unfolded.
    pub workgroups: usize,
    /// Floating-point operations, where the launch says them.
    pub flops: f64,
    /// Bytes of all bindings.
    pub bytes: u64,
}

impl PlannedLaunch {
    /// The kernel and its entry point, `family/file:entry`.
    pub fn label(&self) -> String {
        format!("{}:{}", self.kernel.kernel, self.entry)
    }

    /// Invocations of one workgroup along its three axes.
    pub fn workgroup_size(&self) -> [u32; 3] {
        self.kernel.entries.iter().find(|(name, _)| *name == self.entry).map_or([1; 3], |(_, size)| *size)
    }
}

impl Gpu {
    /// A dry device ([`Self::dry`]) that keeps a list of what is launched on it, with kernels'
    /// texts as this device would build them.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::{DType, Tensor};
    ///
    /// let planning = wgrad::gpu::Gpu::new()?.planning()?;
    /// let x = Tensor::empty(&planning, [1024, 1024], DType::F32)?;
    /// x.matmul(&x)?;
    /// let launches = planning.take_plan()?;
    /// assert!(launches[0].kernel.kernel.starts_with("linear/gemm"));
    /// assert!(launches[0].workgroups > 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A lost device.
    pub fn planning(&self) -> Result<Self> {
        self.planning_as(self.capabilities().clone())
    }

    /// [`Self::planning`] of an adapter that is not there: kernels are chosen as on that adapter,
    /// for its schedule, and their texts are what it would be given.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::gpu::{AdapterKind, Capabilities, Gpu, Schedule};
    /// use wgrad::tensor::{DType, Tensor};
    ///
    /// let gpu = Gpu::new()?;
    /// let (kind, schedule) = (AdapterKind::Discrete, Schedule::Gpu);
    /// let planning = gpu.planning_as(Capabilities { kind, schedule, ..gpu.capabilities().clone() })?;
    /// let x = Tensor::empty(&planning, [64, 64], DType::F32)?;
    /// x.matmul(&x)?;
    /// assert_eq!(planning.take_plan()?[0].kernel.kernel, "linear/gemm_gpu");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A lost device.
    pub fn planning_as(&self, capabilities: Capabilities) -> Result<Self> {
        let options = match capabilities.schedule == self.capabilities().schedule {
            true => self.options().clone(),
            false => {
                let schedule = capabilities.matrix.map_or(capabilities.schedule, |_| Schedule::Matrix);
                GpuOptions { schedule: Some(schedule), ..self.options().clone() }
            }
        };
        let gpu = self.dry_as(capabilities, options)?;
        *lock(&gpu.inner.plan) = Some(Vec::new());
        Ok(gpu)
    }

    /// The launches since the device was made, or since this was last called, in order.
    ///
    /// # Errors
    /// A device that does not plan.
    pub fn take_plan(&self) -> Result<Vec<PlannedLaunch>> {
        lock(&self.inner.plan)
            .as_mut()
            .map(std::mem::take)
            .ok_or_else(|| Error::argument("take_plan", "this device keeps no plan (Gpu::planning)"))
    }

    /// Adds a launch to the plan, where there is one.
    pub(super) fn plan(&self, launch: impl FnOnce() -> Result<Option<PlannedLaunch>>) -> Result<()> {
        if let Some(list) = lock(&self.inner.plan).as_mut() {
            list.extend(launch()?);
        }
        Ok(())
    }
}

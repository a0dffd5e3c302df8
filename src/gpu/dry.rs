//! Dry devices: what work would need of a device, without doing it.

use super::pool::Pool;
use super::{Capabilities, Gpu, GpuOptions, Inner};
use crate::error::{Error, Result};

impl Gpu {
    /// A device like this one (its capabilities, schedule and tuning) that only counts: tensors
    /// have no memory, kernels are neither built nor run, copies and uploads do nothing, initial
    /// values are not computed. What runs on it leaves in [`Self::memory`] the very numbers that it
    /// would leave on this device, a training step with captures and all, in no time and without
    /// any memory. It has no budget, and does not trace numbers that are not finite; waiting for a
    /// value is an error, as there is none.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::{DType, Tensor};
    ///
    /// let dry = wgrad::gpu::Gpu::new()?.dry()?;
    /// let x = Tensor::empty(&dry, [4096, 4096], DType::F32)?;
    /// let y = x.matmul(&x)?;
    /// assert!(dry.memory().peak >= 2 * (64 << 20));
    /// assert!(y.to_vec::<f32>().is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A lost device.
    pub fn dry(&self) -> Result<Self> {
        self.dry_as(self.capabilities().clone(), self.options().clone())
    }

    /// The same of an adapter that is not there.
    pub(super) fn dry_as(&self, capabilities: Capabilities, options: GpuOptions) -> Result<Self> {
        self.check()?;
        let Inner { device, queue, health, .. } = &*self.inner;
        let options = GpuOptions { memory_budget_bytes: None, trace_non_finite: false, ..options };
        let pool = Pool::dry(device.clone(), health.clone(), capabilities.max_buffer_bytes)?;
        let dry = Self::assemble(device.clone(), queue.clone(), capabilities, options, health.clone(), (pool, true))?;
        Ok(Self { precision: self.precision, ..dry })
    }

    /// Whether it only counts ([`Self::dry`]).
    pub fn is_dry(&self) -> bool {
        self.inner.dry
    }

    /// Refuses what a device that only counts cannot answer.
    pub(super) fn not_dry(&self, what: &str) -> Result<()> {
        if self.is_dry() {
            return Err(Error::argument(what, "this device is dry: it only counts memory and computes nothing (Gpu::dry)"));
        }
        Ok(())
    }
}

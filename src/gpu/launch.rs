//! Launching a kernel: what is bound is compared with what the text declares, then recorded.

mod checks;

use std::sync::Arc;

use minijinja::Value;

use super::Gpu;
use super::binding::{Bind, Binding, Storage};
use super::command::Dispatch;
use super::kernel::{Kernel, Pipeline};
use super::plan::{PlannedKernel, PlannedLaunch};
use super::pool::SENTINEL_BYTES;
use super::reflection::{ParamKind, Reflection};
use super::scalar::Param;
use super::template::Defines;
use crate::error::{Error, Result};

/// Kernel parameters in the order of their declaration: `params![n, stride, eps]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::gpu::Param::from($value)),*] };
}

/// What the text of a kernel declares.
#[derive(Debug, Clone, PartialEq)]
pub struct Interface {
    /// Buffers in the order of their numbers, and whether each is written.
    pub bindings: Vec<(String, bool)>,
    /// Parameters after `groups`.
    pub params: Vec<(String, ParamKind)>,
    /// The entry point.
    pub entry: String,
}

impl Interface {
    /// That of the entry point `entry`, the only one where it is empty.
    pub(super) fn of(kernel: &str, reflection: &Reflection, entry: &str) -> Result<Self> {
        let entries: Vec<&str> = reflection.entries.iter().map(|(name, _)| name.as_str()).collect();
        let entry = match entries.as_slice() {
            [only] if entry.is_empty() => only,
            names => names
                .iter()
                .find(|name| **name == entry)
                .ok_or_else(|| Error::shader(kernel, format!("no entry point \"{entry}\"; it has: {}", entries.join(", "))))?,
        };
        Ok(Self {
            bindings: reflection.bindings.iter().map(|b| (b.name.clone(), b.writable)).collect(),
            params: reflection.params.clone(),
            entry: entry.to_string(),
        })
    }
}

/// A kernel about to be launched. Bindings are given in the order of their numbers.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use wgrad::gpu::{Gpu, Kernel, Launch};
/// use wgrad::params;
/// use wgrad::tensor::Tensor;
///
/// let gpu = Gpu::new()?;
/// let kernel = Kernel::new("scale", r#"
///     {% include "grid.wgsl" %}
///     {{ input(0, "x") }} {{ output(1, "y") }} {{ params("n: u32, factor: f32") }}
///     @compute @workgroup_size(64)
///     fn scale(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_index) lane: u32) {
///         let i = group_index(wid, nwg) * 64u + lane;
///         if (i < p.n) { store_y(i, p.factor * load_x(i)); }
///     }"#);
/// let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0], [3])?;
/// let y = Tensor::empty(&gpu, [3], x.dtype())?;
/// Launch::new(&gpu, &kernel, "scale").read(&x).write(&y).params(params![3usize, 2.0f32]).invocations(3)?;
/// assert_eq!(y.to_vec::<f32>()?, [2.0, 4.0, 6.0]);
/// // Too few buffers: an error that names the kernel and what its text declares.
/// assert!(Launch::new(&gpu, &kernel, "scale").read(&x).params(params![3usize, 2.0f32]).invocations(3).is_err());
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before `run`"]
pub struct Launch<'a> {
    gpu: &'a Gpu,
    kernel: &'a Kernel,
    entry: &'a str,
    defines: Defines,
    bindings: Vec<(Binding, bool)>,
    /// Of each binding: what it could have fewer of.
    rows: Vec<usize>,
    params: Vec<Param>,
    walk: Option<usize>,
    flops: f64,
}

impl<'a> Launch<'a> {
    /// Prepares the entry point `entry` of `kernel`.
    pub fn new(gpu: &'a Gpu, kernel: &'a Kernel, entry: &'a str) -> Self {
        let (bindings, rows, params) = (Vec::new(), Vec::new(), Vec::new());
        Self { gpu, kernel, entry, defines: Defines::new(), bindings, rows, params, walk: None, flops: 0.0 }
    }

    /// Sets a constant of the template. Shapes never belong here: each value is another pipeline.
    pub fn define(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.defines.insert(name.into(), value.into());
        self
    }

    /// Sets the storage type `T` of bindings that do not fix their own.
    pub fn storage(self, storage: Storage) -> Self {
        self.define("T", if storage == Storage::F16 { "f16" } else { "f32" })
    }

    /// Binds a buffer that is only read.
    pub fn read(mut self, tensor: &impl Bind) -> Self {
        self.bindings.push((tensor.binding(), false));
        self.rows.push(tensor.rows());
        self
    }

    /// Binds a buffer that is written (and may be read).
    pub fn write(mut self, tensor: &impl Bind) -> Self {
        self.bindings.push((tensor.binding(), true));
        self.rows.push(tensor.rows());
        self
    }

    /// Sets the parameters that follow `groups`.
    pub fn params(mut self, params: &[Param]) -> Self {
        self.params = params.to_vec();
        self
    }

    /// Says how many rounds of loops one invocation runs at most: all its loops together, nested
    /// ones multiplied out, each with the round in which it is left ([`rounds`](super::rounds)).
    /// Software drivers leave the loops of an invocation after 65,535 rounds, without a word, so a
    /// launch that walks further is refused there. The crate's own kernels must say it where they
    /// have a loop; others are counted while they run on a software driver, and reaching the limit
    /// is an error of the device.
    pub fn walk(mut self, rounds: usize) -> Self {
        self.walk = Some(rounds);
        self
    }

    /// Says how many floating-point operations the launch does, for profiles; a multiply-add counts
    /// as two.
    pub fn flops(mut self, flops: f64) -> Self {
        self.flops = flops;
        self
    }

    /// Records the kernel with one invocation for each of `count` items.
    ///
    /// # Errors
    /// As [`Self::groups`].
    pub fn invocations(self, count: usize) -> Result<()> {
        let groups = |entries: &[(String, [u32; 3])]| {
            let size = entries.iter().find(|(name, _)| name == self.entry).map_or(1, |(_, s)| s.iter().product::<u32>());
            count.div_ceil(size.max(1) as usize)
        };
        let Some(pipeline) = self.pipeline()? else { return self.count(groups) };
        self.record(&pipeline, groups(&pipeline.reflection.entries))
    }

    /// Records the kernel with `count` workgroups, folded over two axes where there are more than
    /// an adapter's limit. Nothing is recorded for 0.
    ///
    /// # Errors
    /// Text that does not build; bindings or parameters unlike those that the text declares; a
    /// binding or a grid beyond the adapter's limits; a walk that is too long, or not declared by
    /// one of the crate's own kernels; a lost device.
    pub fn groups(self, count: usize) -> Result<()> {
        let Some(pipeline) = self.pipeline()? else { return self.count(|_| count) };
        self.record(&pipeline, count)
    }

    /// Records the kernel with `grid` workgroups along x, y and z, for kernels that do not fold
    /// theirs.
    ///
    /// # Errors
    /// As [`Self::groups`].
    pub fn grid(self, grid: [u32; 3]) -> Result<()> {
        let groups = grid.iter().map(|size| *size as usize).product();
        let Some(pipeline) = self.pipeline()? else { return self.count(|_| groups) };
        self.check_bindings(&pipeline)?;
        self.check_params(&pipeline)?;
        self.check_fits()?;
        let limit = self.gpu.capabilities().max_grid;
        if grid.iter().any(|size| *size > limit) {
            return Err(self.limit(format!("a grid of {grid:?} workgroups exceeds {limit} along an axis")));
        }
        self.record_grid(&pipeline, grid, groups)
    }

    /// What the text declares, whatever has been bound so far. The entry point is the one named, or
    /// the only one.
    ///
    /// # Errors
    /// Text that does not build; an entry point that is not there, or none named where there are
    /// several.
    pub fn interface(&self) -> Result<Interface> {
        self.gpu.check()?;
        let reflection = self.gpu.kernels().reflection(self.gpu.device(), self.kernel, &self.defines)?;
        Interface::of(self.kernel.name(), &reflection, self.entry)
    }

    /// The kernel as it would be built, whatever has been bound so far.
    ///
    /// # Errors
    /// Text that does not build.
    pub fn planned_kernel(&self) -> Result<Arc<PlannedKernel>> {
        self.gpu.check()?;
        self.gpu.kernels().planned(self.gpu.device(), self.kernel, &self.defines)
    }

    /// `None` on a dry device.
    fn pipeline(&self) -> Result<Option<Arc<Pipeline>>> {
        self.gpu.check()?;
        let built = || self.gpu.kernels().pipeline(self.gpu.device(), self.kernel, &self.defines, self.entry);
        (!self.gpu.is_dry()).then(built).transpose()
    }

    /// What is left of a launch on a dry device: limits that are known without the kernel's text,
    /// and what a program would use; and a line of the plan. `groups` says how many workgroups there
    /// are, from the sizes of entry points.
    fn count(&self, groups: impl FnOnce(&[(String, [u32; 3])]) -> usize) -> Result<()> {
        (0..self.bindings.len()).try_for_each(|index| self.check_size(&format!("binding {index}"), index))?;
        self.check_walk(false)?;
        self.check_memory(|index| format!("binding {index}"))?;
        self.check_fits()?;
        if let Some(recording) = self.gpu.recorder().recording() {
            recording.touch(self.bindings.iter().map(|(binding, _)| binding.used()));
        }
        self.gpu.plan(|| {
            let kernel = self.planned_kernel()?;
            let workgroups = groups(&kernel.entries);
            let launch = PlannedLaunch { kernel, entry: self.entry.into(), workgroups, flops: self.flops, bytes: self.bytes() };
            Ok((workgroups > 0).then_some(launch))
        })
    }

    fn record(&self, pipeline: &Arc<Pipeline>, groups: usize) -> Result<()> {
        self.check_bindings(pipeline)?;
        self.check_params(pipeline)?;
        if groups == 0 {
            return Ok(());
        }
        self.check_fits()?;
        let limit = self.gpu.capabilities().max_grid as usize;
        let x = groups.min(limit);
        let y = groups.div_ceil(x);
        if y > limit {
            return Err(self.limit(format!("{groups} workgroups exceed {limit} x {limit}; use smaller tensors")));
        }
        self.record_grid(pipeline, [x as u32, y as u32, 1], groups)
    }

    fn record_grid(&self, pipeline: &Arc<Pipeline>, grid: [u32; 3], groups: usize) -> Result<()> {
        self.check_walk(pipeline.loops)?;
        let caps = self.gpu.capabilities();
        // Drivers drop what lies outside a binding, so tests bind the sentinels, too: a stray write
        // must meet them.
        let slack = if self.gpu.options().poison { SENTINEL_BYTES } else { 0 };
        let bound = |b: &Binding| {
            let bytes = b.size();
            (bytes + slack).min(b.buffer.bytes().saturating_sub(b.offset)).min(caps.max_binding_bytes.max(bytes))
        };
        let entries: Vec<wgpu::BindGroupEntry> = self
            .bindings
            .iter()
            .enumerate()
            .map(|(index, (b, _))| wgpu::BindGroupEntry {
                binding: index as u32,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &b.buffer.raw,
                    offset: b.offset,
                    size: std::num::NonZeroU64::new(bound(b)),
                }),
            })
            .collect();
        let bind_group = self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&pipeline.label),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let (mut params, mut live) = (Vec::new(), Vec::new());
        if pipeline.reflection.has_params {
            params.extend_from_slice(&(groups as u32).to_le_bytes());
            for param in &self.params {
                if let Param::Live(scalar, _) = param {
                    live.push((params.len(), scalar.clone()));
                }
                params.extend_from_slice(&param.bits().to_le_bytes());
            }
        }
        let bytes = self.bytes();
        let rounds = pipeline.rounds_group.and_then(|at| Some((at, self.gpu.words(pipeline, self.walk)?)));
        let steps = groups as f64 * pipeline.invocations as f64 * self.walk.unwrap_or(1) as f64;
        let dispatch = Dispatch { pipeline: pipeline.clone(), bind_group, rounds, params, live, grid, flops: self.flops, bytes, steps };
        self.gpu.record(dispatch, &self.bindings)
    }

    /// Of all bindings.
    fn bytes(&self) -> u64 {
        self.bindings.iter().map(|(binding, _)| binding.bytes).sum()
    }

    fn limit(&self, message: String) -> Error {
        Error::Limit { operator: self.kernel.name().into(), message, adapter: self.gpu.capabilities().name.clone() }
    }
}

//! All that knows wgpu: choosing an adapter, buffers and their pool, building shaders, recording
//! and submitting, reading back. Nothing above this folder names a wgpu type.

mod adapter;
mod binding;
mod bounds;
mod capabilities;
mod clock;
mod command;
mod dry;
#[cfg(feature = "cli")]
mod executables;
mod fault;
mod health;
mod kernel;
mod launch;
mod matrix;
mod memory;
mod plan;
mod poison;
#[cfg(not(target_arch = "wasm32"))]
mod poller;
mod pool;
mod precision;
mod program;
mod readback;
mod recorder;
mod recording;
mod reflection;
mod scalar;
pub(crate) mod source;
mod template;
mod timing;
mod translate;
mod tuning;
mod waiting;
mod walks;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use adapter::{GpuOptions, adapters, adapters_async};
pub use binding::{Bind, Binding, Storage};
pub use capabilities::{AdapterKind, Capabilities, Schedule, Vendor};
#[cfg(feature = "cli")]
pub use executables::{Compiler, Executable};
pub(crate) use kernel::kernel;
pub use kernel::{BuiltShader, Kernel};
pub use launch::{Interface, Launch};
pub use matrix::Matrix;
pub use plan::{PlannedKernel, PlannedLaunch};
pub(crate) use pool::ALIGNMENT;
pub use pool::{Buffer, MemoryUse};
pub use precision::Precision;
pub use program::{Liveness, Program};
pub use readback::Pending;
pub use recorder::Counters;
pub use reflection::ParamKind;
pub use scalar::{Param, Scalar, ScalarCell};
pub use template::Target;
pub use timing::{Interval, TimedBy, Timing};
pub use translate::{Language, translate, untranslatable};
pub(crate) use tuning::fnv;
pub use tuning::{Consulted, Knob, Tuning};
pub use walks::rounds;

use crate::error::{Error, Result};
use command::{Command, Dispatch};
use health::Health;
use kernel::Kernels;
use pool::Pool;
use recorder::Recorder;
use waiting::block_on;
use walks::{Counting, Walks};

/// What NaN looks like in poisoned memory, for floats a quiet NaN with a payload that no
/// computation produces.
pub const POISON: u32 = 0x7fc0_dead;

const FILL: Kernel = kernel!("gpu/fill");

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Capabilities,
    options: GpuOptions,
    pool: Arc<Pool>,
    kernels: Kernels,
    recorder: Mutex<Recorder>,
    walks: Mutex<Walks>,
    /// Raised when programs are outdated.
    generation: AtomicU64,
    health: Arc<Health>,
    #[cfg(not(target_arch = "wasm32"))]
    poller: Arc<poller::Poller>,
    consulted: tuning::Consultations,
    dry: bool,
    plan: Mutex<Option<Vec<PlannedLaunch>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last handle of a queue waits for its work. Where that may never end, the driver's
        // part of the device is left to the end of the process.
        if self.health.hangs() {
            std::mem::forget((self.device.clone(), self.queue.clone()));
        }
    }
}

/// A device, its memory and its queue. Clones are handles of the same device, usable from any
/// thread.
///
/// A command that the driver refuses, a loss, or a kernel that does not end
/// ([`GpuOptions::timeout_seconds`]) ends its use: every later call fails with the first error,
/// because numbers may be missing. Make a new one.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
    precision: Precision,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.inner.capabilities.name)
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock says that another thread panicked; the lists behind it are whole between
    // calls.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// The best adapter, or the one that the environment names ([`GpuOptions::from_env`]).
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// println!("{} by {}", gpu.capabilities().name, gpu.capabilities().backend);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No adapter, an unknown one, or a malformed environment variable.
    pub fn new() -> Result<Self> {
        block_on(Self::new_async())
    }

    /// [`Self::new`] for a browser, which answers later.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub async fn new_async() -> Result<Self> {
        Self::with_async(GpuOptions::from_env()?).await
    }

    /// A device made as `options` say.
    ///
    /// # Errors
    /// No adapter, an unknown one, or one that refuses to make a device.
    pub fn with(options: GpuOptions) -> Result<Self> {
        block_on(Self::with_async(options))
    }

    /// [`Self::with`] for a browser, which answers later.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub async fn with_async(options: GpuOptions) -> Result<Self> {
        let (device, queue, capabilities) = adapter::open(&options).await?;
        let health = Arc::new(Health::new(Duration::from_secs(options.timeout_seconds.unwrap_or(600))));
        let sink = health.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let message = error.to_string();
            log::error!("{message}");
            let error = match error {
                wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory(message),
                _ => Error::Driver { operator: "a recorded command".into(), message },
            };
            sink.fail(error);
        }));
        let sink = health.clone();
        device.set_device_lost_callback(move |reason, message| {
            sink.fail(Error::DeviceLost(format!("{reason:?}: {message}")));
        });
        log::info!("{} ({}), schedule {}", capabilities.name, capabilities.backend, capabilities.schedule);
        if let Some(table) = options.tuning.as_ref().filter(|t| !t.is_of(&capabilities.name, &capabilities.driver)) {
            log::warn!("the tuning table was measured on {}, this is {} ({})", table.adapter(), capabilities.name, capabilities.driver);
        }
        let pool = Pool::new(device.clone(), health.clone(), options.memory_budget_bytes, capabilities.max_buffer_bytes);
        Self::assemble(device, queue, capabilities, options, health, (pool, false))
    }

    fn assemble(
        device: wgpu::Device,
        queue: wgpu::Queue,
        capabilities: Capabilities,
        options: GpuOptions,
        health: Arc<Health>,
        (pool, dry): (Pool, bool),
    ) -> Result<Self> {
        let target = if capabilities.immediates { Target::Native } else { Target::Browser };
        let counting = match (options.poison, capabilities.kind) {
            (true, _) => Counting::All,
            (false, AdapterKind::Software) => Counting::Outside,
            _ => Counting::Nothing,
        };
        let kernels = Kernels::new(&device, target, options.checked, capabilities.clone(), counting)?;
        let uniform = (!capabilities.immediates).then_some(&kernels.uniform_layout);
        let recorder = Mutex::new(Recorder::new(&device, health.clone(), uniform, capabilities.kind == AdapterKind::Software));
        let (pool, generation, consulted) = (Arc::new(pool), AtomicU64::new(0), Default::default());
        let inner = Inner {
            device,
            queue,
            capabilities,
            options,
            pool,
            kernels,
            recorder,
            walks: Mutex::default(),
            generation,
            health,
            #[cfg(not(target_arch = "wasm32"))]
            poller: Arc::default(),
            consulted,
            dry,
            plan: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), precision: Precision::default() })
    }

    /// What the adapter can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// The options that this device was made with.
    pub fn options(&self) -> &GpuOptions {
        &self.inner.options
    }

    /// What the buffer pool holds.
    pub fn memory(&self) -> MemoryUse {
        self.inner.pool.memory()
    }

    /// Gives memory that is kept for reuse back to the driver, except that of captured programs.
    pub fn empty_cache(&self) {
        self.inner.pool.trim();
    }

    /// Dispatches, submissions and uploads so far.
    pub fn counters(&self) -> Counters {
        self.recorder().counters
    }

    /// Every shader variant built so far, in order.
    pub fn built_shaders(&self) -> Vec<BuiltShader> {
        self.inner.kernels.shaders()
    }

    /// Seconds spent building shaders and pipelines so far. Some drivers translate a kernel only
    /// when it first runs.
    pub fn compile_seconds(&self) -> f64 {
        self.inner.kernels.seconds()
    }

    /// Loses the device on purpose: every later call returns [`Error::DeviceLost`].
    pub fn destroy(&self) {
        self.inner.health.fail(Error::DeviceLost("destroyed by the program".into()));
        if !self.inner.health.hangs() {
            self.inner.device.destroy();
        }
    }

    /// Submits what has been recorded, without waiting.
    ///
    /// # Errors
    /// A lost device, or an error that the driver reported for a recorded command.
    pub fn flush(&self) -> Result<()> {
        self.check()?;
        if !self.is_dry() {
            self.recorder().flush(&self.inner.device, &self.inner.queue);
        }
        self.check()
    }

    pub(crate) fn record(&self, dispatch: Dispatch, bindings: &[(Binding, bool)]) -> Result<()> {
        let mut recorder = self.recorder();
        if let Some(recording) = recorder.recording() {
            recording.push(Command::Dispatch(dispatch.clone()), bindings.iter().map(|(binding, _)| binding.used()));
        }
        // What is run once has the numbers of now, not of when it is submitted.
        let command = Command::Dispatch(Dispatch { live: Vec::new(), ..dispatch });
        if !recorder.has_room(&command) {
            recorder.flush(&self.inner.device, &self.inner.queue);
        }
        recorder.push(command);
        if recorder.is_full() {
            recorder.flush(&self.inner.device, &self.inner.queue);
        }
        self.check()
    }

    /// Whether `binding` is memory of this device.
    pub(crate) fn owns(&self, binding: &Binding) -> bool {
        binding.buffer.is_of(&self.inner.pool)
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.inner.kernels
    }

    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        lock(&self.inner.recorder)
    }

    /// Reports a lost device, or the first error that the driver raised.
    pub(crate) fn check(&self) -> Result<()> {
        self.inner.health.check()
    }
}

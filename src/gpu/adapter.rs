//! Choosing an adapter and making a device of it.
//!
//! Only the back ends that wgrad trains on are touched (Vulkan, Metal, DX12): asking for OpenGL
//! makes some systems complain on stderr about a missing display.

use std::sync::Arc;

use super::capabilities::{AdapterKind, Capabilities, Schedule, Vendor};
use super::matrix::Matrix;
use super::tuning::Tuning;
use super::waiting::block_on;
use crate::error::{Error, Result};

const BACKENDS: wgpu::Backends = if cfg!(target_arch = "wasm32") {
    wgpu::Backends::BROWSER_WEBGPU
} else {
    wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12)
};

/// Kernel parameters fit into this many bytes: the least that every Vulkan driver grants.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;

/// How to make a [`Gpu`](super::Gpu). [`GpuOptions::from_env`] is the default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GpuOptions {
    /// An adapter by index (as `wgrad info` lists them), by part of its name, or by back end. The
    /// best one when `None`.
    pub adapter: Option<String>,
    /// Ask for WebGPU's default limits and no optional feature: what a browser may give.
    pub webgpu_limits: bool,
    /// The schedule of heavy kernels; the adapter's own when `None`.
    pub schedule: Option<Schedule>,
    /// Most device memory that the pool may hold, bytes.
    pub memory_budget_bytes: Option<u64>,
    /// Largest storage binding, bytes, where it is to be less than the adapter's: operators run in
    /// pieces sooner. For tests.
    pub largest_binding_bytes: Option<u64>,
    /// Build the crate's own shaders with bounds checks (text from outside always has them). With
    /// [`Self::poison`], an index that lies outside of its binding is an error of the device, too.
    pub checked: bool,
    /// Fill every buffer with NaN before it is used, and surround it with sentinels; fill workgroup
    /// memory of kernels that are built without its zeroing, too: for tests.
    pub poison: bool,
    /// Look at every operator's output and gradient, and fail at the first that is not finite.
    /// Slow.
    pub trace_non_finite: bool,
    /// Longest wait for recorded work before it counts as a loop without an end; 600 s when `None`.
    pub timeout_seconds: Option<u64>,
    /// What `wgrad tune` measured; kernels choose by themselves when `None`. It decides bits.
    pub tuning: Option<Arc<Tuning>>,
}

impl GpuOptions {
    /// Options from the environment: `WGRAD_ADAPTER`, `WGRAD_LIMITS=webgpu`,
    /// `WGRAD_SCHEDULE=software|gpu|matrix`, `WGRAD_MEMORY_MIB`, `WGRAD_BINDING_KIB`,
    /// `WGRAD_CHECKED=1`, `WGRAD_POISON=1`, `WGRAD_TRACE_NON_FINITE=1`, `WGRAD_TIMEOUT_SECONDS`,
    /// `WGRAD_TUNING=FILE|random:SEED|off`.
    ///
    /// # Errors
    /// A value that is none of these, by the variable's name; a tuning table that cannot be read.
    pub fn from_env() -> Result<Self> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let wrong = |name: &str, value: &str, expected: &str| Error::argument(name, format!("expected {expected}, found \"{value}\""));
        let flag = |name: &str| match var(name).as_deref() {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(wrong(name, other, "0 or 1")),
        };
        let bytes = |name: &str, expected: &str, unit: u64| match var(name) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(|n| Some(n.saturating_mul(unit))).map_err(|_| wrong(name, &text, expected)),
        };
        Ok(Self {
            adapter: var("WGRAD_ADAPTER"),
            webgpu_limits: match var("WGRAD_LIMITS").as_deref() {
                None | Some("adapter") => false,
                Some("webgpu") => true,
                Some(other) => return Err(wrong("WGRAD_LIMITS", other, "\"webgpu\" or \"adapter\"")),
            },
            schedule: match var("WGRAD_SCHEDULE").as_deref() {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| wrong("WGRAD_SCHEDULE", text, "\"software\", \"gpu\" or \"matrix\""))?),
            },
            memory_budget_bytes: bytes("WGRAD_MEMORY_MIB", "a number of MiB", 1 << 20)?,
            largest_binding_bytes: bytes("WGRAD_BINDING_KIB", "a number of KiB", 1 << 10)?,
            checked: flag("WGRAD_CHECKED")?,
            poison: flag("WGRAD_POISON")?,
            trace_non_finite: flag("WGRAD_TRACE_NON_FINITE")?,
            timeout_seconds: match var("WGRAD_TIMEOUT_SECONDS") {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| wrong("WGRAD_TIMEOUT_SECONDS", &text, "a number of seconds"))?),
            },
            tuning: match var("WGRAD_TUNING") {
                None => None,
                Some(name) => Tuning::named(&name)?.map(Arc::new),
            },
        })
    }
}

fn kind(device_type: wgpu::DeviceType) -> AdapterKind {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    }
}

/// By the PCI number that drivers give; Metal gives none, and is Apple's.
fn vendor(id: u32, backend: wgpu::Backend) -> Vendor {
    match (id, backend) {
        (0x1002, _) => Vendor::Amd,
        (0x106b, _) | (0, wgpu::Backend::Metal) => Vendor::Apple,
        (0x8086, _) => Vendor::Intel,
        (0x10de, _) => Vendor::Nvidia,
        _ => Vendor::Other,
    }
}

/// Mesa's device-select layer asks a Wayland server which GPU it prefers, and complains on stderr
/// where there is no session. wgrad chooses by itself, so the layer is told to stay out.
#[cfg(target_os = "linux")]
fn quiet_device_select() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    let set = |name| std::env::var_os(name).is_some();
    ONCE.call_once(|| {
        if !set("XDG_RUNTIME_DIR") && !set("NODEVICE_SELECT") {
            // SAFETY: done once, before this program's first Vulkan instance; Rust's own readers of
            // the environment are locked out meanwhile. A C library that reads it on another thread
            // at this moment would have to be running without a session, too.
            #[allow(unsafe_code)]
            unsafe {
                std::env::set_var("NODEVICE_SELECT", "1");
            }
        }
    });
}

#[cfg(not(target_os = "linux"))]
fn quiet_device_select() {}

/// All adapters, the preferred first: discrete, integrated, virtual, other, software. The order
/// within a kind is the driver's.
async fn enumerate() -> Vec<wgpu::Adapter> {
    quiet_device_select();
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = BACKENDS;
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = instance.enumerate_adapters(BACKENDS).await;
    adapters.sort_by_key(|a| kind(a.get_info().device_type));
    adapters
}

fn matches(index: usize, info: &wgpu::AdapterInfo, wanted: &str) -> bool {
    let wanted = wanted.to_lowercase();
    wanted
        .parse::<usize>()
        .map_or_else(|_| info.name.to_lowercase().contains(&wanted) || info.backend.to_string().to_lowercase() == wanted, |n| n == index)
}

async fn choose(options: &GpuOptions) -> Result<wgpu::Adapter> {
    let adapters = enumerate().await;
    if adapters.is_empty() {
        return Err(Error::Adapter(
            "no Vulkan, Metal or DX12 driver was found; on Debian or Ubuntu `apt-get install libvulkan1 mesa-vulkan-drivers` \
             installs a software driver (scripts/demo.sh does this by itself)"
                .into(),
        ));
    }
    let names: Vec<String> =
        adapters.iter().enumerate().map(|(i, a)| format!("{i}: {} ({})", a.get_info().name, a.get_info().backend)).collect();
    let wanted = options.adapter.clone();
    adapters
        .into_iter()
        .enumerate()
        .find(|(i, a)| wanted.as_ref().is_none_or(|w| matches(*i, &a.get_info(), w)))
        .map(|(_, a)| a)
        .ok_or_else(|| {
            Error::Adapter(format!(
                "WGRAD_ADAPTER=\"{}\" is neither an index, nor part of a name, nor a back end of: {}",
                wanted.unwrap_or_default(),
                names.join(", ")
            ))
        })
}

fn capabilities(adapter: &wgpu::Adapter, options: &GpuOptions) -> Capabilities {
    let (info, features) = (adapter.get_info(), adapter.features());
    let limits = limits(adapter, options);
    let has = |f: wgpu::Features| !options.webgpu_limits && features.contains(f);
    let largest = limits.max_storage_buffer_binding_size;
    let subgroups = has(wgpu::Features::SUBGROUP);
    let kind = kind(info.device_type);
    let own = if kind == AdapterKind::Software { Schedule::Software } else { Schedule::Gpu };
    let f16 = has(wgpu::Features::SHADER_F16);
    // lavapipe lists matrices whatever the width of its vectors, and has them at eight lanes alone.
    let real = kind != AdapterKind::Software || info.subgroup_max_size == 8;
    let matrices = has(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) && subgroups && f16 && real;
    Capabilities {
        name: info.name,
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        kind,
        vendor: vendor(info.vendor, info.backend),
        immediates: has(wgpu::Features::IMMEDIATES) && limits.max_immediate_size >= IMMEDIATE_BYTES,
        subgroups,
        subgroup_size: if subgroups { (info.subgroup_min_size, info.subgroup_max_size) } else { (0, 0) },
        f16,
        matrix: Matrix::of(adapter).filter(|_| matrices),
        timestamps: has(wgpu::Features::TIMESTAMP_QUERY),
        max_binding_bytes: options.largest_binding_bytes.map_or(largest, |bytes| bytes.min(largest)),
        max_buffer_bytes: limits.max_buffer_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        max_grid: limits.max_compute_workgroups_per_dimension,
        schedule: match options.schedule {
            Some(Schedule::Matrix) => Schedule::Gpu,
            asked => asked.unwrap_or(own),
        },
        webgpu_limits: options.webgpu_limits,
    }
}

fn limits(adapter: &wgpu::Adapter, options: &GpuOptions) -> wgpu::Limits {
    if options.webgpu_limits { wgpu::Limits::default() } else { adapter.limits() }
}

/// The capabilities of every adapter, the preferred first; what `wgrad info` lists.
///
/// # Errors
/// A malformed environment variable ([`GpuOptions::from_env`]).
pub fn adapters() -> Result<Vec<Capabilities>> {
    block_on(adapters_async())
}

/// [`adapters`] for a browser, which answers later.
///
/// # Errors
/// As [`adapters`].
pub async fn adapters_async() -> Result<Vec<Capabilities>> {
    let options = GpuOptions::from_env()?;
    Ok(enumerate().await.iter().map(|a| capabilities(a, &options)).collect())
}

/// Leave to use what wgpu calls experimental: only where there are matrices to use.
fn experimental(capabilities: &Capabilities) -> wgpu::ExperimentalFeatures {
    if capabilities.matrix.is_none() {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: wgpu asks its user to know that these features may have faults which safe code
    // reaches. The one that is requested is cooperative matrices. The crate's kernels load and
    // store them in workgroup memory alone, within its arrays, and tests run them on each size.
    #[allow(unsafe_code)]
    unsafe {
        wgpu::ExperimentalFeatures::enabled()
    }
}

pub(super) async fn open(options: &GpuOptions) -> Result<(wgpu::Device, wgpu::Queue, Capabilities)> {
    let adapter = choose(options).await?;
    let caps = capabilities(&adapter, options);
    caps.check_schedule(options.schedule)?;
    let mut features = wgpu::Features::empty();
    for (wanted, feature) in [
        (caps.immediates, wgpu::Features::IMMEDIATES),
        (caps.subgroups, wgpu::Features::SUBGROUP),
        (caps.f16, wgpu::Features::SHADER_F16),
        (caps.timestamps, wgpu::Features::TIMESTAMP_QUERY),
        (caps.matrix.is_some(), wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
    ] {
        features.set(feature, wanted);
    }
    // One for the rounds of loops that kernels count.
    let limits = limits(&adapter, options);
    let buffers =
        (limits.max_storage_buffers_per_shader_stage.saturating_add(1)).min(adapter.limits().max_storage_buffers_per_shader_stage);
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("wgrad"),
        required_features: features,
        experimental_features: experimental(&caps),
        required_limits: wgpu::Limits { max_storage_buffers_per_shader_stage: buffers, ..limits },
        // The pool above asks for few, large buffers; big driver blocks would only be held for
        // nothing.
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    });
    let (device, queue) = request.await.map_err(|e| Error::Adapter(format!("{} refused to make a device: {e}", caps.name)))?;
    Ok((device, queue, caps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_are_told_by_their_numbers_and_apple_by_metal() {
        let found = [0x1002, 0x106b, 0x8086, 0x10de, 0x10005].map(|id| vendor(id, wgpu::Backend::Vulkan));
        assert_eq!(found, [Vendor::Amd, Vendor::Apple, Vendor::Intel, Vendor::Nvidia, Vendor::Other]);
        assert_eq!([wgpu::Backend::Metal, wgpu::Backend::Dx12].map(|backend| vendor(0, backend)), [Vendor::Apple, Vendor::Other]);
    }
}

//! Where something was measured or trained.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::gpu::{Gpu, Schedule};

/// Where something was measured or trained: what it takes to repeat it, to the bit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Environment {
    /// This crate's version.
    pub wgrad: String,
    /// The version of wgpu.
    pub wgpu: String,
    /// The adapter's name.
    pub adapter: String,
    /// `Discrete`, `Integrated`, `Virtual`, `Other` or `Software`.
    pub kind: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// The schedule of heavy kernels.
    #[serde(deserialize_with = "schedule_name")]
    pub schedule: String,
    /// Lanes of a subgroup, smallest and largest; 0 where there are none.
    pub subgroup_size: [u32; 2],
    /// Optional features in use.
    pub features: Vec<String>,
    /// Limits of the device, by name.
    pub limits: BTreeMap<String, u64>,
    /// Whether the limits are a browser's.
    #[serde(default)]
    pub webgpu_limits: bool,
    /// Whether our own shaders are built with bounds checks.
    #[serde(default)]
    pub checked: bool,
    /// Hash of the tuning table, where one is used.
    pub tuning_table: Option<String>,
    /// Operating system and architecture.
    pub system: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Load averages over 1, 5 and 15 minutes before the run, where the system tells.
    pub load_average: Option<[f64; 3]>,
    /// Beginning of the run, UTC, as in RFC 3339.
    pub date: String,
    /// The command line.
    pub command: String,
}

/// Reads the name of a schedule, which older files spell otherwise.
pub(crate) fn schedule_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    Ok(name.parse::<Schedule>().map_or(name, |schedule| schedule.to_string()))
}

/// The versions that this crate was built with.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"));

fn version(package: &str) -> String {
    let head = format!("name = \"{package}\"\nversion = \"");
    LOCK.split_once(&head).and_then(|(_, rest)| rest.split_once('"')).map_or("unknown", |(version, _)| version).to_string()
}

impl Environment {
    /// Of this process and device, now.
    pub fn of(gpu: &Gpu) -> Self {
        let caps = gpu.capabilities();
        let features = [
            ("immediates", caps.immediates),
            ("subgroups", caps.subgroups),
            ("f16", caps.f16),
            ("matrices", caps.matrix.is_some()),
            ("time stamps", caps.timestamps),
        ];
        let limits = [
            ("max_binding_bytes", caps.max_binding_bytes),
            ("max_buffer_bytes", caps.max_buffer_bytes),
            ("max_storage_buffers", caps.max_storage_buffers.into()),
            ("max_workgroup_bytes", caps.max_workgroup_bytes.into()),
            ("max_invocations", caps.max_invocations.into()),
            ("max_grid", caps.max_grid.into()),
        ];
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        let loads: Option<Vec<f64>> = load.and_then(|text| text.split(' ').take(3).map(|word| word.parse().ok()).collect());
        Environment {
            wgrad: env!("CARGO_PKG_VERSION").into(),
            wgpu: version("wgpu"),
            adapter: caps.name.clone(),
            kind: format!("{:?}", caps.kind),
            backend: caps.backend.clone(),
            driver: caps.driver.clone(),
            schedule: caps.schedule.to_string(),
            subgroup_size: caps.subgroup_size.into(),
            features: features.iter().filter(|(_, has)| *has).map(|(name, _)| name.to_string()).collect(),
            limits: limits.iter().map(|(name, value)| (name.to_string(), *value)).collect(),
            webgpu_limits: caps.webgpu_limits,
            checked: gpu.options().checked,
            tuning_table: Some(gpu.tuning_hash()).filter(|hash| hash != "none"),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cores: std::thread::available_parallelism().map_or(0, |n| n.get()),
            load_average: loads.and_then(|l| l.try_into().ok()),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            command: crate::io::console::arguments().join(" "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        assert_eq!(version("wgrad"), env!("CARGO_PKG_VERSION"));
        assert!(version("wgpu").starts_with("30."), "{}", version("wgpu"));
        assert_eq!(version("no such package"), "unknown");
    }
}

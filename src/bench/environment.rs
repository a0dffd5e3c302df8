//! Where a run was measured.

use super::run::Environment;
use crate::gpu::Gpu;

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
        let features =
            [("immediates", caps.immediates), ("subgroups", caps.subgroups), ("f16", caps.f16), ("time stamps", caps.timestamps)];
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

//! GPUs that are not there: Mesa's drivers over its no-op DRM shims compile for them as for real
//! ones. Every submission succeeds and computes nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// A GPU to compile for.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it stands for.
    pub card: &'static str,
    /// Mesa's shim, `lib<shim>_noop_drm_shim.so`.
    shim: &'static str,
    /// Mesa's Vulkan driver, `libvulkan_<driver>.so`.
    driver: &'static str,
    /// The variable by which the shim is told which chip it is.
    chip: (&'static str, &'static str),
}

const fn target(name: &'static str, card: &'static str, parts: [&'static str; 4]) -> Target {
    let [shim, driver, variable, chip] = parts;
    Target { name, card, shim, driver, chip: (variable, chip) }
}

/// All targets that are known. The first five need no more than the small installation.
pub const TARGETS: [Target; 15] = [
    target("rdna2", "AMD RX 6800", ["amdgpu", "radeon", "AMDGPU_GPU_ID", "navi21"]),
    target("rdna3", "AMD RX 7900", ["amdgpu", "radeon", "AMDGPU_GPU_ID", "navi31"]),
    target("gcn5", "AMD Radeon VII", ["amdgpu", "radeon", "AMDGPU_GPU_ID", "vega20"]),
    target("rdna4", "AMD RX 9070", ["amdgpu", "radeon", "AMDGPU_GPU_ID", "gfx1201"]),
    target("turing", "NVIDIA RTX 20", ["nouveau", "nouveau", "NOUVEAU_CHIPSET", "162"]),
    target("ampere", "NVIDIA RTX 30", ["nouveau", "nouveau", "NOUVEAU_CHIPSET", "172"]),
    target("ada", "NVIDIA RTX 40", ["nouveau", "nouveau", "NOUVEAU_CHIPSET", "192"]),
    target("adreno6", "Qualcomm Adreno 660", ["freedreno", "freedreno", "FD_GPU_ID", "660"]),
    target("adreno7", "Qualcomm Adreno 740", ["freedreno", "freedreno", "FD_GPU_ID", "740"]),
    target("apple1", "Apple M1", ["asahi", "asahi", "ASAHI_UNUSED", "1"]),
    target("xe", "Intel Xe (Tiger Lake)", ["intel", "intel", "INTEL_STUB_GPU_PLATFORM", "tgl"]),
    target("arc", "Intel Arc A", ["intel", "intel", "INTEL_STUB_GPU_PLATFORM", "dg2"]),
    target("mtl", "Intel Meteor Lake", ["intel", "intel", "INTEL_STUB_GPU_PLATFORM", "mtl"]),
    target("lnl", "Intel Lunar Lake", ["intel", "intel", "INTEL_STUB_GPU_PLATFORM", "lnl"]),
    target("bmg", "Intel Arc B", ["intel", "intel", "INTEL_STUB_GPU_PLATFORM", "bmg"]),
];

/// Libraries below an unpacked Mesa.
pub(super) const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Where Mesa's compilers are unpacked.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The folder that the small and the full installation lie in.
    pub folder: PathBuf,
}

impl Installation {
    /// The small one: AMD, on this machine's own C library.
    pub fn amd(&self) -> PathBuf {
        self.folder.join("amd")
    }

    /// The full one, with a C library of its own.
    pub fn all(&self) -> PathBuf {
        self.folder.join("all")
    }

    /// The targets whose driver and shim are there.
    pub fn targets(&self) -> Vec<&'static Target> {
        TARGETS.iter().filter(|target| self.root(target).is_some()).collect()
    }

    /// The target called `name`.
    ///
    /// # Errors
    /// An unknown name; a target that is not installed, with the command that installs it.
    pub fn target(&self, name: &str) -> Result<&'static Target> {
        let known = TARGETS.iter().map(|target| target.name);
        let target = TARGETS.iter().find(|target| target.name == name);
        let target = target.ok_or_else(|| Error::unknown("target", name, known))?;
        if self.root(target).is_none() {
            let setup = if target.shim == "amdgpu" { "wgrad inspect --setup" } else { "wgrad inspect --setup all" };
            let more = if target.shim == "intel" { "; Intel's shim is not packaged, docs/inspect.md says how it is built" } else { "" };
            let message = format!("{name} ({}) is not set up in {}: run `{setup}`{more}", target.card, self.folder.display());
            return Err(Error::argument("target", message));
        }
        Ok(target)
    }

    /// The installation that has the target's driver and shim: the full one, as its Mesa is newer.
    fn root(&self, target: &Target) -> Option<PathBuf> {
        let has = |root: &Path| {
            let libraries = root.join(LIBRARIES);
            libraries.join(format!("libvulkan_{}.so", target.driver)).is_file() && shim(root, target).is_file()
        };
        [self.all(), self.amd()].into_iter().find(|root| has(root))
    }

    /// The command that runs `program` on `target`, its arguments left to the caller. A file in
    /// `scratch` tells the Vulkan loader which driver there is.
    ///
    /// # Errors
    /// A target that is not installed; a file that cannot be written.
    pub(super) fn command(&self, target: &Target, program: &Path, scratch: &Path) -> Result<Command> {
        let root = self.root(target).ok_or_else(|| Error::argument("target", format!("{} is not set up", target.name)))?;
        let libraries = root.join(LIBRARIES);
        let manifest = scratch.join("driver.json");
        let library = libraries.join(format!("libvulkan_{}.so", target.driver));
        let text = serde_json::json!({ "file_format_version": "1.0.1", "ICD": { "api_version": "1.3.0", "library_path": library } });
        std::fs::write(&manifest, text.to_string()).map_err(|e| Error::io(&manifest, &e))?;
        // A C library of another version than this machine's has a loader of its own.
        let loader = libraries.join("ld-linux-x86-64.so.2");
        let mut command = if loader.is_file() {
            let mut command = Command::new(loader);
            command.arg("--library-path").arg(&libraries).arg("--preload").arg(shim(&root, target)).arg(program);
            command
        } else {
            let mut command = Command::new(program);
            command.env("LD_LIBRARY_PATH", &libraries).env("LD_PRELOAD", shim(&root, target));
            command
        };
        let (variable, chip) = target.chip;
        command
            .env(variable, chip)
            .env("VK_DRIVER_FILES", &manifest)
            .env("VK_ICD_FILENAMES", &manifest)
            .env("VK_LOADER_LAYERS_DISABLE", "~implicit~")
            .env("NODEVICE_SELECT", "1")
            .env("MESA_SHADER_CACHE_DISABLE", "true")
            .env("XDG_RUNTIME_DIR", scratch)
            .env_remove("WGRAD_ADAPTER");
        Ok(command)
    }
}

fn shim(root: &Path, target: &Target) -> PathBuf {
    let folder = if target.shim == "intel" { root.join("usr/local/lib") } else { root.join(LIBRARIES) };
    folder.join(format!("lib{}_noop_drm_shim.so", target.shim))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_target_that_is_not_there_says_how_it_is_set_up() {
        let folder = tempfile::tempdir().unwrap();
        let none = Installation { folder: folder.path().into() };
        assert!(none.targets().is_empty());
        let error = |name: &str| none.target(name).unwrap_err().to_string();
        assert!(error("rdna3").contains("run `wgrad inspect --setup`"), "{}", error("rdna3"));
        assert!(error("ampere").contains("--setup all"), "{}", error("ampere"));
        assert!(error("rdna33").contains("rdna3"), "{}", error("rdna33"));
    }
}

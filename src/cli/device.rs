//! The device that a command works on.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{AdapterKind, Capabilities, Gpu, GpuOptions, Tuning, adapters};
use crate::io::console::tell;
use crate::parallel::local_rank;

/// The device that the environment asks for, with what `wgrad tune` measured on it, unless
/// `WGRAD_TUNING` says otherwise.
///
/// # Errors
/// Those of [`Gpu::new`]; a tuning table that is damaged.
pub(super) fn open() -> Result<Gpu> {
    let mut options = GpuOptions::from_env()?;
    if options.adapter.is_none()
        && let Some(rank) = local_rank()
    {
        options.adapter = own_adapter(rank)?;
    }
    let gpu = Gpu::with(options.clone())?;
    let told = std::env::var_os("WGRAD_TUNING").is_some_and(|value| !value.is_empty());
    let caps = gpu.capabilities();
    let Some(path) = tuning_file(caps).filter(|path| !told && !caps.webgpu_limits && path.exists()) else { return Ok(gpu) };
    let table = Tuning::load(&path)?;
    if !table.is_of(&caps.name, &caps.driver) {
        log::warn!("{} was measured with another driver and is left out; `wgrad tune` measures again", path.display());
        return Ok(gpu);
    }
    Gpu::with(GpuOptions { tuning: Some(Arc::new(table)), ..options })
}

/// The adapter of process `rank` among those that share this machine: one each, of the kind that is
/// preferred here, as far as there are so many.
fn own_adapter(rank: usize) -> Result<Option<String>> {
    let all = adapters()?;
    let Some(best) = all.first() else { return Ok(None) };
    let alike: Vec<usize> =
        all.iter().zip(0..).filter(|(caps, _)| caps.kind == best.kind && caps.backend == best.backend).map(|(_, i)| i).collect();
    let count = alike.len().max(1);
    if rank == count && best.kind != AdapterKind::Software {
        tell(format!(
            "there are fewer adapters here ({count} of {}) than processes, which so share them: start no more than {count}",
            best.name
        ));
    }
    Ok(alike.get(rank % count).map(ToString::to_string))
}

/// The user's cache folder for this program; `None` where there is no such folder.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Caches"))
    } else {
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
    }?;
    Some(cache.join("wgrad"))
}

/// Where the tuning table of an adapter is kept; `None` where there is no cache folder.
pub(super) fn tuning_file(caps: &Capabilities) -> Option<PathBuf> {
    let words: Vec<&str> = caps.name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    Some(cache_folder()?.join("tuning").join(format!("{}.{}.txt", words.join("-").to_lowercase(), caps.backend)))
}

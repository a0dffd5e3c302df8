//! A run is a directory: `recipe.toml`, `environment.json`, `metrics.jsonl`, `checkpoints/`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::atomic::{read, write_atomically};

/// One run's files.
#[derive(Debug, Clone)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// A new run's directory.
    ///
    /// # Errors
    /// [`Error::Argument`] where it holds a run already; [`Error::Io`].
    pub fn create(path: &Path, recipe: &Recipe, gpu: &Gpu) -> Result<Self> {
        let run = Self { path: path.to_path_buf() };
        if run.recipe_path().exists() {
            return Err(Error::argument(path.display().to_string(), "holds a run already; continue it with --resume or choose another directory"));
        }
        let checkpoints = path.join("checkpoints");
        fs::create_dir_all(&checkpoints).map_err(|e| Error::io(&checkpoints, &e))?;
        write_atomically(&path.join("environment.json"), pretty(&environment(gpu)).as_bytes())?;
        write_atomically(&run.recipe_path(), recipe.to_toml()?.as_bytes())?;
        Ok(run)
    }

    /// An existing run and its recipe.
    ///
    /// # Errors
    /// [`Error::Io`] where there is none; [`Error::Data`] where the recipe is damaged.
    pub fn open(path: &Path) -> Result<(Self, Recipe)> {
        let run = Self { path: path.to_path_buf() };
        let recipe = Recipe::read(&run.recipe_path())?;
        Ok((run, recipe))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn recipe_path(&self) -> PathBuf {
        self.path.join("recipe.toml")
    }

    /// The checkpoint that a killed run goes on from.
    pub fn last_checkpoint(&self) -> PathBuf {
        self.path.join("checkpoints").join("last.safetensors")
    }

    /// The weights alone, in PyTorch's layout.
    pub fn weights(&self) -> PathBuf {
        self.path.join("weights.safetensors")
    }

    fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Appends one line to the metrics.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&self, metrics: &Value) -> Result<()> {
        let path = self.metrics_path();
        let attempt = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            writeln!(file, "{metrics}")
        };
        attempt().map_err(|e| Error::io(&path, &e))
    }

    /// Drops metrics of steps from `step` on: those that a resumed run will write again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rewind(&self, step: u64) -> Result<()> {
        let path = self.metrics_path();
        if !path.exists() {
            return Ok(());
        }
        let before = |line: &String| {
            let value: Option<Value> = serde_json::from_str(line).ok();
            value.and_then(|v| v.get("step").and_then(Value::as_u64)).is_some_and(|s| s <= step)
        };
        let kept: String = BufReader::new(read(&path)?.as_slice()).lines().map_while(|l| l.ok()).filter(before).map(|l| l + "\n").collect();
        write_atomically(&path, kept.as_bytes())
    }

    /// Writes a JSON document of the run.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_json(&self, name: &str, value: &Value) -> Result<()> {
        write_atomically(&self.path.join(name), pretty(value).as_bytes())
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Where a result came from: what it takes to repeat it bit for bit.
pub fn environment(gpu: &Gpu) -> Value {
    let caps = gpu.capabilities();
    json!({
        "wgrad": env!("CARGO_PKG_VERSION"),
        "adapter": caps.name,
        "backend": caps.backend,
        "driver": caps.driver,
        "schedule": caps.schedule.to_string(),
        "webgpu_limits": caps.webgpu_limits,
        "checked": gpu.options().checked,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
        "arguments": std::env::args().collect::<Vec<_>>(),
    })
}

//! A run is a directory: `recipe.toml`, `environment.json`, `metrics.jsonl`, `outcome.json`, `checkpoints/`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::atomic::{is_partial, read, write_atomically};
use crate::io::console::arguments;

/// One run's files.
#[derive(Debug, Clone)]
pub struct RunDirectory {
    path: PathBuf,
}

/// What a run has taken up to its last checkpoint, all of its resumptions together.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Optimizer steps.
    pub steps: u64,
    /// Images that went through them.
    pub images: u64,
    /// Seconds, with all that is not a step: reading images, compiling kernels, writing checkpoints.
    pub seconds: f64,
}

impl RunDirectory {
    /// A new run's directory. Where one was begun and never got as far as a checkpoint, it is begun again.
    ///
    /// # Errors
    /// [`Error::Argument`] where it holds a run already; [`Error::Io`], and then nothing of it is left.
    pub fn create(path: &Path, recipe: &Recipe, gpu: &Gpu) -> Result<Self> {
        let run = Self { path: path.to_path_buf() };
        if run.last_checkpoint().exists() || run.weights().exists() {
            return Err(Error::argument(
                path.display().to_string(),
                "holds a run already; continue it with --resume or choose another --out",
            ));
        }
        let existed = path.exists();
        run.write_new(recipe, gpu).inspect_err(|_| {
            // The recipe comes last, so it is not there; what else was written goes.
            let _ = fs::remove_file(run.environment_path());
            let _ = fs::remove_dir(run.checkpoints());
            if !existed {
                let _ = fs::remove_dir(path);
            }
        })?;
        Ok(run)
    }

    fn write_new(&self, recipe: &Recipe, gpu: &Gpu) -> Result<()> {
        let checkpoints = self.checkpoints();
        fs::create_dir_all(&checkpoints).map_err(|e| Error::io(&checkpoints, &e))?;
        if self.metrics_path().exists() {
            fs::remove_file(self.metrics_path()).map_err(|e| Error::io(&self.metrics_path(), &e))?;
        }
        write_atomically(&self.environment_path(), pretty(&environment(gpu)).as_bytes())?;
        write_atomically(&self.recipe_path(), recipe.to_toml()?.as_bytes())
    }

    /// An existing run and its recipe.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Data`] where there is none; [`Error::Data`] where the recipe is damaged.
    pub fn open(path: &Path) -> Result<(Self, Recipe)> {
        let run = Self { path: path.to_path_buf() };
        if path.is_dir() && !run.recipe_path().exists() {
            return Err(Error::data(path.display().to_string(), "holds no run: it has no recipe.toml"));
        }
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

    fn environment_path(&self) -> PathBuf {
        self.path.join("environment.json")
    }

    fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The checkpoint that a killed run goes on from.
    pub fn last_checkpoint(&self) -> PathBuf {
        self.checkpoints().join("last.safetensors")
    }

    /// The weights alone, in PyTorch's layout.
    pub fn weights(&self) -> PathBuf {
        self.path.join("weights.safetensors")
    }

    fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    fn outcome_path(&self) -> PathBuf {
        self.path.join("outcome.json")
    }

    /// What the run had taken when its last checkpoint was written; `None` before that.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where the file is damaged.
    pub fn spent(&self) -> Result<Option<Spent>> {
        let path = self.outcome_path();
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |e: serde_json::Error| Error::data(path.display().to_string(), format!("is no outcome of a run: {e}"));
        serde_json::from_slice(&read(&path)?).map(Some).map_err(damaged)
    }

    /// Keeps what the run has taken.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep_spent(&self, spent: Spent) -> Result<()> {
        write_atomically(&self.outcome_path(), pretty(&json!(spent)).as_bytes())
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

    /// Makes ready to go on after `step`: drops the metrics of later steps, which will be written again, and half-written files
    /// that a killed process left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rewind(&self, step: u64) -> Result<()> {
        for folder in [self.path.clone(), self.checkpoints()] {
            let entries = fs::read_dir(&folder).map_err(|e| Error::io(&folder, &e))?;
            for file in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| is_partial(file)) {
                fs::remove_file(&file).map_err(|e| Error::io(&file, &e))?;
            }
        }
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

    /// Enters into the run's environment that it went on after `step` on `gpu`, and what makes the bits differ from then on, if anything.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where the environment is damaged.
    pub fn enter_resumption(&self, step: u64, gpu: &Gpu, difference: Option<&str>) -> Result<()> {
        let path = self.environment_path();
        let damaged = |why: String| Error::data(path.display().to_string(), format!("is no environment of a run: {why}"));
        let mut value: Value = serde_json::from_slice(&read(&path)?).map_err(|e| damaged(e.to_string()))?;
        let fields = value.as_object_mut().ok_or_else(|| damaged("no object".into()))?;
        let entry = json!({ "step": step, "difference": difference, "environment": environment(gpu) });
        match fields.entry("resumed").or_insert_with(|| json!([])) {
            Value::Array(entries) => entries.push(entry),
            _ => return Err(damaged("\"resumed\" is no list".into())),
        }
        write_atomically(&path, pretty(&value).as_bytes())
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
        "tuning_table": gpu.tuning_hash(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
        "arguments": arguments(),
    })
}

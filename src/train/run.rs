//! A run is a directory: `recipe.toml`, `environment.json`, `metrics.jsonl`, `outcome.json`,
//! `checkpoints/`, and `tensorboard/` where it is asked for.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::checkpoint::Checkpoint;
use super::events::Events;
use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::atomic::{append, is_partial, make_folder, read, write_atomically};
use crate::io::lock::{FolderLock, HOLDER, holder, lock_folder};
use crate::report::Environment;

/// One run's files.
#[derive(Debug, Clone)]
pub struct RunDirectory {
    path: PathBuf,
    /// The weights that are meant.
    weights: PathBuf,
    /// Held where the run is to be written, so that no other process does.
    lock: Option<Arc<FolderLock>>,
    /// Where metrics go for TensorBoard, too.
    events: Option<Events>,
    /// The last checkpoint is known to be good: it was read or written.
    last_is_good: Cell<bool>,
}

/// What a run has taken up to its last checkpoint, all of its resumptions together.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Optimizer steps.
    pub steps: u64,
    /// Images that went through them.
    pub images: u64,
    /// Seconds, with all that is not a step: reading images, compiling kernels, writing
    /// checkpoints.
    pub seconds: f64,
}

impl RunDirectory {
    /// A new run's directory, held until the value is dropped. Where one was begun and never got as
    /// far as a checkpoint, it is begun again.
    ///
    /// # Errors
    /// [`Error::Argument`] where it holds a run already, or another process works there;
    /// [`Error::Io`], and then nothing of it is left.
    pub fn create(path: &Path, recipe: &Recipe, gpu: &Gpu) -> Result<Self> {
        let existed = path.exists();
        make_folder(path)?;
        let run = Self::of(path).held()?;
        if [run.last_checkpoint(), run.previous_checkpoint(), run.weights()].iter().any(|file| file.exists()) {
            return Err(Error::argument(
                path.display().to_string(),
                "holds a run already; continue it with --resume or choose another --out",
            ));
        }
        run.write_new(recipe, gpu).inspect_err(|_| {
            // The recipe comes last, so it is not there; what else was written goes.
            let _ = fs::remove_file(run.environment_path());
            let _ = fs::remove_dir(run.checkpoints());
            if !existed {
                let _ = fs::remove_file(path.join(HOLDER));
                let _ = fs::remove_dir(path);
            }
        })?;
        Ok(run)
    }

    fn write_new(&self, recipe: &Recipe, gpu: &Gpu) -> Result<()> {
        make_folder(&self.checkpoints())?;
        if self.metrics_path().exists() {
            fs::remove_file(self.metrics_path()).map_err(|e| Error::io(&self.metrics_path(), &e))?;
        }
        if self.tensorboard().exists() {
            fs::remove_dir_all(self.tensorboard()).map_err(|e| Error::io(&self.tensorboard(), &e))?;
        }
        write_atomically(&self.environment_path(), pretty(&json!(Environment::of(gpu))).as_bytes())?;
        self.keep_recipe(recipe)
    }

    /// Keeps `recipe` as the run's own: it goes on for more epochs, say.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep_recipe(&self, recipe: &Recipe) -> Result<()> {
        write_atomically(&self.recipe_path(), recipe.to_toml()?.as_bytes())
    }

    fn of(path: &Path) -> Self {
        // A file of weights in a run stands for the run with these.
        let (path, weights) = match path.parent().filter(|_| path.is_file()) {
            Some(folder) => (folder.to_path_buf(), path.to_path_buf()),
            None => (path.to_path_buf(), path.join("weights.safetensors")),
        };
        Self { path, weights, lock: None, events: None, last_is_good: Cell::new(false) }
    }

    /// Whether there is a run, by its directory or a file of weights in it.
    pub fn is_run(path: &Path) -> bool {
        Self::of(path).recipe_path().exists()
    }

    /// An existing run and its recipe, to be read: by its directory, or a file of weights in it, such
    /// as `runs/latest/best.safetensors`, which are then what is meant by its weights.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Data`] where there is none; [`Error::Data`] where the recipe is
    /// damaged.
    pub fn open(path: &Path) -> Result<(Self, Recipe)> {
        let run = Self::of(path);
        if run.path.is_dir() && !run.recipe_path().exists() {
            return Err(Error::data(path.display().to_string(), "holds no run: it has no recipe.toml"));
        }
        let recipe = Recipe::read(&run.recipe_path())?;
        Ok((run, recipe))
    }

    /// As [`Self::open`], to go on with it: held until the value is dropped.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::Argument`] where another process works there.
    pub fn resume(path: &Path) -> Result<(Self, Recipe)> {
        if path.is_file() {
            return Err(Error::argument(path.display().to_string(), "is a file; a run goes on in its directory"));
        }
        Self::open(path)?;
        let run = Self::of(path).held()?;
        // What was read before may have been half of what another process wrote.
        Ok((run, Self::open(path)?.1))
    }

    fn held(self) -> Result<Self> {
        Ok(Self { lock: Some(self.hold()?), ..self })
    }

    /// Keeps other processes out until what is returned is dropped; however this process ends, it
    /// lets go.
    ///
    /// # Errors
    /// [`Error::Argument`] where another one is in, with its number, its machine and since when.
    pub fn hold(&self) -> Result<Arc<FolderLock>> {
        if let Some(lock) = &self.lock {
            return Ok(lock.clone());
        }
        let taken = || {
            let message = format!(
                "another process is training into this directory{}; wait for its end or end it (then --resume goes on with the run), or choose \
                 another --out",
                holder(&self.path)
            );
            Error::argument(self.path.display().to_string(), message)
        };
        lock_folder(&self.path)?.map(Arc::new).ok_or_else(taken)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the recipe is kept.
    pub fn recipe_path(&self) -> PathBuf {
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

    /// The one before it, for where that is damaged.
    pub fn previous_checkpoint(&self) -> PathBuf {
        self.checkpoints().join("previous.safetensors")
    }

    /// Writes the last checkpoint; the one that was last before is kept where it is good.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let (last, previous) = (self.last_checkpoint(), self.previous_checkpoint());
        if self.last_is_good.get() {
            // A second name, so that at no time there is none; a copy where the disk knows no such
            // thing.
            let _ = fs::remove_file(&previous);
            let _ = fs::hard_link(&last, &previous).or_else(|_| fs::copy(&last, &previous).map(drop));
        }
        checkpoint.save(&last)?;
        self.last_is_good.set(true);
        Ok(())
    }

    /// The newest checkpoint that can be read, `None` where there is none yet, and what is to be
    /// said of it.
    ///
    /// # Errors
    /// Those of [`Checkpoint::load`] where no checkpoint can be read.
    pub fn newest_checkpoint(&self) -> Result<(Option<Checkpoint>, Vec<String>)> {
        let (last, previous) = (self.last_checkpoint(), self.previous_checkpoint());
        let mut wrong = (!last.exists() && previous.exists()).then(|| Error::data(last.display().to_string(), "is not there"));
        for path in [&last, &previous].into_iter().filter(|path| path.exists()) {
            match Checkpoint::load(path) {
                Ok(checkpoint) => {
                    self.last_is_good.set(*path == last);
                    let step = checkpoint.position.step;
                    let mut notes =
                        Vec::from_iter(wrong.map(|error| format!("{error}; going on from the checkpoint before it, of step {step}")));
                    if !checkpoint.checked {
                        notes.push(format!(
                            "{}: has no checksum, as an earlier version wrote it: damage to it would not show",
                            path.display()
                        ));
                    }
                    return Ok((Some(checkpoint), notes));
                }
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        wrong.map_or(Ok((None, Vec::new())), Err)
    }

    /// The weights alone, in PyTorch's layout.
    pub fn weights(&self) -> PathBuf {
        self.weights.clone()
    }

    /// The weights of the epoch that was best on images that are not learnt from.
    pub fn best_weights(&self) -> PathBuf {
        self.path.join("best.safetensors")
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
    pub fn usage(&self) -> Result<Option<Usage>> {
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
    pub fn keep_usage(&self, spent: Usage) -> Result<()> {
        write_atomically(&self.outcome_path(), pretty(&json!(spent)).as_bytes())
    }

    /// The lines of metrics, in the order in which they were written; none before the first. A line
    /// that a killed process left half-written is left out.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn metrics(&self) -> Result<Vec<Value>> {
        let path = self.metrics_path();
        let bytes = if path.exists() { read(&path)? } else { Vec::new() };
        Ok(BufReader::new(bytes.as_slice())
            .lines()
            .map_while(|line| line.ok())
            .filter_map(|line| serde_json::from_str(&line).ok())
            .collect())
    }

    /// Where the run began.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where the file is damaged.
    pub fn environment(&self) -> Result<Environment> {
        let path = self.environment_path();
        let damaged = |e: serde_json::Error| Error::data(path.display().to_string(), format!("is no environment of a run: {e}"));
        serde_json::from_slice(&read(&path)?).map_err(damaged)
    }

    /// Where the run's page is.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Where TensorBoard finds the run's curves.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The same run, whose metrics behind `step` are written for TensorBoard, too; those before it,
    /// where they were not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn with_tensorboard(mut self, step: u64) -> Result<Self> {
        let before = if self.tensorboard().exists() { Vec::new() } else { self.metrics()? };
        let events = Events::begin(&self.tensorboard(), if before.is_empty() { step } else { 0 })?;
        before.iter().try_for_each(|line| events.append(line))?;
        self.events = Some(events);
        Ok(self)
    }

    /// Appends one line to the metrics.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&self, metrics: &Value) -> Result<()> {
        append(&self.metrics_path(), format!("{metrics}\n").as_bytes())?;
        self.events.as_ref().map_or(Ok(()), |events| events.append(metrics))
    }

    /// Makes ready to go on after `step`: drops the metrics of later steps, which will be written
    /// again, and half-written files that a killed process left.
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

    /// Enters into the run's environment that it went on after `step` on `gpu`, and what makes the
    /// bits differ from then on, if anything.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where the environment is damaged.
    pub fn enter_resumption(&self, step: u64, gpu: &Gpu, difference: Option<&str>) -> Result<()> {
        let path = self.environment_path();
        let damaged = |why: String| Error::data(path.display().to_string(), format!("is no environment of a run: {why}"));
        let mut value: Value = serde_json::from_slice(&read(&path)?).map_err(|e| damaged(e.to_string()))?;
        let fields = value.as_object_mut().ok_or_else(|| damaged("no object".into()))?;
        let entry = json!({ "step": step, "difference": difference, "environment": Environment::of(gpu) });
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

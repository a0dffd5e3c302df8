//! Methods and finished runs side by side: what is known of each, and what is measured of runs
//! (docs/compare.md).

mod curves;
mod measure;
mod page;
mod rows;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use measure::{BATCH, Judged, Measured, measure};
pub use rows::{Cell, Row};

use crate::error::{Error, Result};
use crate::report::Environment;
use crate::train::methods::{Entry, METHODS, find};
use crate::train::{Recipe, RunDirectory};

/// What is compared: a method, or finished runs.
pub struct Subject {
    /// What it is called.
    pub name: String,
    /// The method.
    pub entry: &'static Entry,
    /// The runs, which differ by their seeds alone; none of a method.
    pub runs: Vec<PathBuf>,
}

impl Subject {
    /// A method by its name, or runs by their directories with commas between.
    ///
    /// # Errors
    /// [`Error::Argument`] for what is neither, with the methods that there are; as
    /// [`Self::of_runs`].
    pub fn find(text: &str) -> Result<Self> {
        let runs: Vec<PathBuf> = text.split(',').map(PathBuf::from).collect();
        if let Some(entry) = METHODS.iter().find(|entry| entry.name == text) {
            return Ok(Self { name: text.into(), entry, runs: Vec::new() });
        }
        if let Some(missing) = runs.iter().find(|run| !RunDirectory::is_run(run)) {
            let names: Vec<&str> = METHODS.iter().map(|entry| entry.name).collect();
            let message = format!("is no run's directory (it has no recipe.toml), and no method; there are {}", names.join(", "));
            return Err(Error::argument(missing.display().to_string(), message));
        }
        Self::of_runs(text, runs)
    }

    /// Finished runs that differ by their seeds alone, as one.
    ///
    /// # Errors
    /// [`Error::Argument`] where they differ by more, [`Error::Data`] for a damaged recipe.
    pub fn of_runs(name: &str, runs: Vec<PathBuf>) -> Result<Self> {
        let recipe = |run: &PathBuf| RunDirectory::open(run).map(|(_, recipe)| recipe);
        let Some(first) = runs.first() else { return Err(Error::argument(name, "names no run")) };
        let own = recipe(first)?;
        for run in &runs {
            let other = recipe(run)?;
            // A teacher, or weights to begin from, may have a seed of their own.
            let mut other = Recipe { seed: own.seed, teachers: own.teachers.clone(), ..other };
            other.finetune.weights.clone_from(&own.finetune.weights);
            if other != own {
                let message = format!("does not have the recipe of {} but for its seed; compare them side by side", first.display());
                return Err(Error::argument(run.display().to_string(), message));
            }
        }
        Ok(Self { name: name.into(), entry: find(&own.method.name)?, runs })
    }
}

/// A method or runs, with what was measured of these.
pub struct Column {
    /// What it is.
    pub subject: Subject,
    /// `None` of a method.
    pub measured: Option<Measured>,
}

/// All of them.
pub struct Comparison {
    /// Where it was measured; `None` where nothing was.
    pub environment: Option<Environment>,
    /// In the order that was asked for.
    pub columns: Vec<Column>,
}

impl Comparison {
    /// Everything as JSON.
    pub fn to_json(&self) -> Value {
        let paths = |runs: &[PathBuf]| runs.iter().map(|run| run.display().to_string()).collect::<Vec<_>>();
        let column = |c: &Column| {
            let measured = c.measured.as_ref().map(Measured::to_json);
            json!({ "name": c.subject.name, "method": c.subject.entry.to_json(), "runs": paths(&c.subject.runs), "measured": measured })
        };
        let differing: Vec<&str> = self.rows().iter().filter(|row| row.differs()).map(|row| row.name).collect();
        json!({
            "environment": self.environment,
            "columns": self.columns.iter().map(column).collect::<Vec<_>>(),
            "differing": differing,
        })
    }

    /// A page that needs nothing else. Its title is what is compared where there is no other.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Data`] where the metrics of a run cannot be read.
    pub fn html(&self, title: Option<&str>) -> Result<String> {
        page::html(self, title)
    }
}

/// The last parts of a path that tell what it is: a run's name.
fn short(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

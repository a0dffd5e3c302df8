//! A recipe: everything that decides what a run computes, as TOML.
//!
//! ```toml
//! version = 2
//! method = "simclr"
//! model = "resnet18"
//! epochs = 100
//! batch = 256
//!
//! [optimizer]
//! name = "adamw"
//! learning_rate = 1e-3
//! betas = [0.9, 0.98]
//! ```
//!
//! What a recipe leaves out takes its method's default ([`Recipe::defaults`]). A key that there is
//! not, a setting that the chosen optimizer, schedule or method does not have, and a number without
//! a meaning are errors with line, key, what was found and what is allowed. Recipes of earlier
//! versions, in runs and checkpoints, too, are read as they are: `version1`.
//!
//! | file | what it does |
//! |---|---|
//! | [`tables`] | the tables and what each of their keys is |
//! | `document` | a text with the lines of its keys |
//! | `layers` | one recipe over another: keys, kinds of values, names that bring settings with them |
//! | `assign` | `KEY=VALUE` of the command line |
//! | `short` | the short forms that the command line takes for lists |
//! | `check` | the range of each number |
//! | `problem` | what is said of a key or value that is wrong |
//! | `present` | a recipe's text as it would be written now |
//! | `version1` | recipes before there was a version |

mod assign;
mod check;
mod document;
mod layers;
mod present;
mod problem;
mod short;
pub mod tables;
mod version1;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Table;

pub use self::present::present_form;

use self::document::Document;
use self::tables::{
    AugmentationTable, DataTable, FinetuneTable, MemoryTable, MethodTable, ModelTable, OptimizerTable, ParallelTable, PrecisionTable,
    ScheduleTable, ValidationTable,
};
use super::methods::find;
use crate::error::{Error, Result};
use crate::io::atomic::read;
use crate::optim::Rule;

/// The version of recipes that is written.
pub const VERSION: u32 = 2;

/// The recipe of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Decides initial values, order and augmentation.
    pub seed: u32,
    /// Passes over the data.
    pub epochs: u32,
    /// Images a step.
    pub batch: usize,
    /// Momentum of an exponential moving average of the weights, which is then what is kept; 0 for
    /// none.
    pub ema: f32,
    /// Finished runs to learn from: their directories.
    pub teachers: Vec<PathBuf>,
    /// Steps between checkpoints; one is always written at the end of an epoch.
    pub checkpoint_every: u64,
    /// Ends the run where it has collapsed (see [`Alarm`](super::alarm::Alarm)), which is else only
    /// said.
    pub stop_on_collapse: bool,
    /// How it is trained.
    pub method: MethodTable,
    /// What is learnt from.
    pub data: DataTable,
    /// The network.
    pub model: ModelTable,
    /// How gradients change the weights.
    pub optimizer: OptimizerTable,
    /// In which types is computed.
    pub precision: PrecisionTable,
    /// What is traded for memory.
    pub memory: MemoryTable,
    /// How a batch is shared.
    pub parallel: ParallelTable,
    /// The learning rate over the run.
    pub schedule: ScheduleTable,
    /// What the network is shown of an image.
    pub augmentation: AugmentationTable,
    /// What is looked at while the run goes on.
    pub validation: ValidationTable,
    /// The weights to begin from, and which of them are trained how.
    pub finetune: FinetuneTable,
}

impl Default for Recipe {
    /// Supervised learning of a small network.
    fn default() -> Self {
        let settings = find("supervised").and_then(|entry| entry.complete(&Table::new())).unwrap_or_default();
        Self {
            seed: 0,
            epochs: 5,
            batch: 64,
            ema: 0.0,
            teachers: Vec::new(),
            checkpoint_every: 500,
            stop_on_collapse: false,
            method: MethodTable { name: "supervised".into(), settings },
            data: DataTable::default(),
            model: ModelTable::default(),
            optimizer: OptimizerTable::default(),
            precision: PrecisionTable::default(),
            memory: MemoryTable::default(),
            parallel: ParallelTable::default(),
            schedule: ScheduleTable::default(),
            augmentation: AugmentationTable::default(),
            validation: ValidationTable::default(),
            finetune: FinetuneTable::default(),
        }
    }
}

impl Recipe {
    /// A method's own defaults: the recipe that it comes with, and all of its settings. An unknown
    /// method takes those of `supervised`, and is refused by [`Self::check`].
    pub fn defaults(method: &str) -> Self {
        let own = find(method).and_then(|entry| {
            let own = MethodTable { name: method.into(), settings: entry.complete(&Table::new())? };
            let base = Self { method: own, ..Self::default() };
            Document::parse(entry.recipe, method)?.over(&base)
        });
        own.unwrap_or_else(|_| {
            let mut recipe = Self::default();
            recipe.method.name = method.into();
            recipe
        })
    }

    /// Defaults of a run from weights: the network as it was published, and a rate for a new head
    /// alone (`backbone` frozen) or, where more is trained, one that good features survive
    /// (docs/transfer.md).
    pub fn finetuning(method: &str, freeze: &[String]) -> Self {
        let mut recipe = Self::defaults(method);
        recipe.model.stem_stride = 0;
        recipe.finetune.freeze = freeze.to_vec();
        recipe.optimizer.learning_rate = 0.02;
        if freeze == ["backbone"] {
            return recipe;
        }
        recipe.optimizer.rule = Rule::AdamW { betas: [0.9, 0.999], eps: 1e-8 };
        (recipe.optimizer.learning_rate, recipe.optimizer.clip_norm) = (3e-4, 1.0);
        (recipe.finetune.layer_decay, recipe.finetune.freeze_batch_norm) = (0.85, true);
        recipe
    }

    /// Parses a recipe of any version; what it leaves out takes its method's default.
    ///
    /// ```
    /// let message = wgrad::train::Recipe::parse("epochs = 3\nbatsch = 64", "my.toml").unwrap_err().to_string();
    /// assert!(message.starts_with("my.toml: line 2: there is no key \"batsch\"; did you mean \"batch\"?"), "{message}");
    /// ```
    ///
    /// # Errors
    /// [`Error::Data`] naming `source`, the line, the key, what was found and what is allowed.
    pub fn parse(text: &str, source: &str) -> Result<Self> {
        Self::of(&Document::parse(text, source)?)
    }

    fn of(document: &Document) -> Result<Self> {
        let recipe = document.over(&Self::defaults(document.method()?))?;
        recipe.problem().map_or(Ok(recipe), |problem| Err(document.error(&problem)))
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// [`Error::Io`]; as [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_any(path).map(|(recipe, _)| recipe)
    }

    /// As [`Self::read`], and whether it is of an earlier version than is written now.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_any(path: &Path) -> Result<(Self, bool)> {
        let (bytes, source) = (read(path)?, path.display().to_string());
        let text = String::from_utf8_lossy(&bytes);
        let document = Document::parse(&text, &source)?;
        Ok((Self::of(&document)?, document.is_old()))
    }

    /// The recipe as TOML, with every key.
    ///
    /// # Errors
    /// [`Error::Data`] for a path that is no text.
    pub fn to_toml(&self) -> Result<String> {
        let text = toml::to_string(self).map_err(|e| Error::data("recipe", e.to_string()))?;
        Ok(format!("version = {VERSION}\n{text}"))
    }

    /// Sets one value from the text `KEY=VALUE`, as [`Self::set_all`].
    ///
    /// # Errors
    /// As [`Self::set_all`].
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        self.set_all([assignment])
    }

    /// The same recipe with other values, as [`Self::set_all`].
    ///
    /// ```
    /// use wgrad::train::Recipe;
    ///
    /// let recipe = Recipe::defaults("simclr").with(["epochs=100", "optimizer=adamw", "betas=[0.9, 0.98]", "projector.hidden=512"])?;
    /// assert_eq!(recipe.epochs, 100);
    /// # Ok::<(), wgrad::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::set_all`].
    pub fn with<'a>(mut self, assignments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        self.set_all(assignments)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests;

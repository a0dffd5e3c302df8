//! A recipe: everything that decides what a run computes, as TOML.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::methods::find;
use crate::error::{Error, Result};
use crate::io::atomic::read;

/// The recipe of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// How it is trained, see [`METHODS`](super::methods::METHODS).
    pub method: String,
    /// A folder of images: MNIST or CIFAR files, or one folder a class.
    pub data: PathBuf,
    /// The network, see `wgrad::models::MODELS`.
    pub model: String,
    /// Multiplies the network's own width.
    pub width: f32,
    /// Stride of the first convolution; 0 for the network's own.
    pub stem_stride: usize,
    /// Dropout before the classifier.
    pub drop_rate: f32,
    /// Stochastic depth of the last block; earlier ones have less, in proportion.
    pub drop_path: f32,
    /// Height and width that the network is given; 0 for the images' own. Of images that are no squares it is the centre.
    pub resolution: usize,
    /// Grey images become red, green and blue: for weights that were learnt on colours.
    pub rgb: bool,
    /// What images are normalised by, see [`NORMALIZATIONS`](super::images::NORMALIZATIONS).
    pub normalize: String,
    /// Images of each class to learn from, chosen by the seed; 0 for all.
    pub per_class: usize,
    /// What the classes are: those of the data set, by number or name, with commas between, and several as one with `+`: `0+2+4, Bag`; all of
    /// them as they are where it is empty. Images of other classes are left out, of the test images, too.
    pub classes: String,
    /// What else is to be told apart, for `multitask`: `kind: 5+7+9, 0+2; heel: 9, 5` are two tasks, each a name and some of the classes, several
    /// as one with `+`. Those of `train_tasks.csv` in the folder of the data come first.
    pub tasks: String,
    /// Classes that no image to learn from shows, though the network knows them: numbers or names with commas.
    pub omit: String,
    /// Images of each class whose labels are known, chosen by the seed; those of all others are hidden. 0: all are known.
    pub labels_per_class: usize,
    /// The share of labels that is replaced by any class, the same for each (symmetric noise); the seed says which.
    pub label_noise: f32,
    /// The first so many images of each batch are some whose labels are known, the others not; an epoch is then all of these. 0: all alike.
    pub labelled_batch: usize,
    /// Finished runs to learn from, with commas between: their directories.
    pub teachers: String,
    /// A file of weights to begin from; none where it is empty. A head for other classes starts anew.
    pub weights: String,
    /// What is not trained: patterns with commas between (see [`matches()`](crate::nn::matches())), in their order; `backbone` is all but the
    /// head, and `!PATTERN` is trained after all.
    pub freeze: String,
    /// Gradual unfreezing (Howard and Ruder 2018): the head learns alone for so many epochs, then with the last layer, and so on, a layer more
    /// every so many epochs; layers are those of [`layer_decay`](crate::nn::layer_decay). 0: all learn from the start.
    pub unfreeze_every: u32,
    /// Batch norms normalise by their running statistics and keep them; scale and shift are trained.
    pub freeze_batch_norm: bool,
    /// The learning rate's factor from one layer to that before it, see [`layer_decay`](crate::nn::layer_decay); 1 for none.
    pub layer_decay: f32,
    /// Factors of learning rate and weight decay, with commas between: `classifier lr=10, *.bias lr=2 decay=0`.
    pub groups: String,
    /// Images a step.
    pub batch: usize,
    /// Passes over the data.
    pub epochs: u32,
    /// Decides initial values, order and augmentation.
    pub seed: u32,
    /// The augmentation preset, see [`Augmentation::preset`](crate::data::Augmentation::preset): one for all views, or a list of them, one a
    /// view or with a count: `dino_global_1, dino_global_2, 4 dino_local`.
    pub augmentation: String,
    /// `sgd`, `adamw` or `lars`.
    pub optimizer: String,
    /// The schedule's peak.
    pub learning_rate: f32,
    /// `constant`, `cosine` or `one_cycle`.
    pub schedule: String,
    /// Epochs, also parts of one, over which the rate rises in a straight line; a cosine schedule's alone.
    pub warm_up_epochs: f32,
    /// The last rate of a cosine schedule.
    pub minimum_learning_rate: f32,
    /// SGD's and LARS's momentum.
    pub momentum: f32,
    /// Not applied to biases and norms.
    pub weight_decay: f32,
    /// The weight decay of the last step, along half a cosine; 0 for a constant one.
    pub weight_decay_end: f32,
    /// Gradients of a larger norm are scaled down to it; 0 for none.
    pub clip_norm: f32,
    /// The same for each parameter's gradient by itself (DINO's 3); 0 for none.
    pub clip_each: f32,
    /// Momentum of an exponential moving average of the weights, which is then what is kept; 0 for none.
    pub ema: f32,
    /// Steps between checkpoints; one is always written at the end of an epoch.
    pub checkpoint_every: u64,
    /// Ends the run where it has collapsed (see [`Alarm`](super::alarm::Alarm)), which is else only said.
    pub stop_on_collapse: bool,
    /// The method's own settings, see [`methods`](crate::methods).
    pub options: Table,
}

/// The largest size or count that a recipe may name; what a device can hold is less.
const MOST: usize = 1 << 24;

impl Default for Recipe {
    fn default() -> Self {
        Self {
            method: "supervised".into(),
            data: PathBuf::from("data/fashion-mnist"),
            model: "mobilenetv1_025".into(),
            width: 1.0,
            stem_stride: 1,
            drop_rate: 0.0,
            drop_path: 0.0,
            resolution: 0,
            rgb: false,
            normalize: "auto".into(),
            per_class: 0,
            classes: String::new(),
            tasks: String::new(),
            omit: String::new(),
            labels_per_class: 0,
            label_noise: 0.0,
            labelled_batch: 0,
            teachers: String::new(),
            weights: String::new(),
            freeze: String::new(),
            unfreeze_every: 0,
            freeze_batch_norm: false,
            layer_decay: 1.0,
            groups: String::new(),
            batch: 64,
            epochs: 5,
            seed: 0,
            augmentation: "none".into(),
            optimizer: "sgd".into(),
            learning_rate: 0.2,
            schedule: "one_cycle".into(),
            warm_up_epochs: 0.0,
            minimum_learning_rate: 0.0,
            momentum: 0.9,
            weight_decay: 5e-4,
            weight_decay_end: 0.0,
            clip_norm: 0.0,
            clip_each: 0.0,
            ema: 0.0,
            checkpoint_every: 500,
            stop_on_collapse: false,
            options: Table::new(),
        }
    }
}

impl Recipe {
    /// A method's own defaults: the recipe that it comes with, and all of its settings. An unknown method takes those of `supervised`, and is
    /// refused by [`Self::check`].
    pub fn defaults(method: &str) -> Self {
        let own = find(method).ok().and_then(|entry| {
            let mut recipe: Self = toml::from_str(entry.recipe).ok()?;
            recipe.options = entry.complete(&recipe.options).ok()?;
            Some(recipe)
        });
        Self { method: method.into(), ..own.unwrap_or_default() }
    }

    /// Defaults of a run from weights: the network as it was published, and a rate for a new head alone (`backbone` frozen) or, where more
    /// is trained, one that good features survive (docs/transfer.md).
    pub fn finetuning(method: &str, freeze: &str) -> Self {
        let recipe = Self { stem_stride: 0, freeze: freeze.into(), learning_rate: 0.02, ..Self::defaults(method) };
        if freeze == "backbone" {
            return recipe;
        }
        let (optimizer, learning_rate, clip_norm) = ("adamw".into(), 3e-4, 1.0);
        Self { optimizer, learning_rate, clip_norm, layer_decay: 0.85, freeze_batch_norm: true, ..recipe }
    }

    /// Parses a recipe; what it leaves out takes its method's default.
    ///
    /// # Errors
    /// [`Error::Data`] naming `source`, the line and the key.
    pub fn parse(text: &str, source: &str) -> Result<Self> {
        let wrong = |e: toml::de::Error| Error::data(source, e.to_string());
        // Once as it is, for errors with line numbers; then on top of the method's defaults.
        let method = toml::from_str::<Self>(text).map_err(wrong)?.method;
        let mut table: Table = toml::from_str(&Self::defaults(&method).to_toml()?).map_err(wrong)?;
        overlay(&mut table, toml::from_str(text).map_err(wrong)?);
        let mut recipe: Self = table.try_into().map_err(wrong)?;
        if let Ok(entry) = find(&method) {
            recipe.options = entry.complete(&recipe.options).map_err(|e| Error::data(source, e.to_string()))?;
        }
        Ok(recipe)
    }

    /// Whether every number lies where it means something. Names are judged by whoever looks them up.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the key, what is allowed and what was found.
    pub fn check(&self) -> Result<()> {
        fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T, most: T) -> Result<()> {
            // Written so that NaN lies outside.
            if value >= least && value <= most {
                Ok(())
            } else {
                Err(Error::argument(key, format!("expected {least} to {most}, found {value}")))
            }
        }
        within("epochs", self.epochs, 1, 65_535)?;
        let entry = find(&self.method)?;
        entry.complete(&self.options)?;
        check_numbers(&self.options, "")?;
        // Without labels it takes two to be told apart.
        within("batch", self.batch, if entry.name == "supervised" { 1 } else { 2 }, 1 << 20)?;
        within("label_noise", self.label_noise, 0.0, 1.0)?;
        within("labelled_batch", self.labelled_batch, 0, self.batch - 1)?;
        within("per_class", self.per_class, 0, MOST)?;
        within("labels_per_class", self.labels_per_class, 0, MOST)?;
        within("width", self.width, 0.01, 100.0)?;
        within("stem_stride", self.stem_stride, 0, 8)?;
        within("drop_rate", self.drop_rate, 0.0, 0.99)?;
        within("drop_path", self.drop_path, 0.0, 0.99)?;
        within("resolution", self.resolution, 0, 4096)?;
        within("layer_decay", self.layer_decay, 0.0, 1.0)?;
        within("learning_rate", self.learning_rate, 0.0, 1e6)?;
        within("warm_up_epochs", self.warm_up_epochs, 0.0, self.epochs as f32)?;
        within("minimum_learning_rate", self.minimum_learning_rate, 0.0, 1e6)?;
        within("momentum", self.momentum, 0.0, 1.0)?;
        within("weight_decay", self.weight_decay, 0.0, 1e6)?;
        within("weight_decay_end", self.weight_decay_end, 0.0, 1e6)?;
        within("clip_each", self.clip_each, 0.0, f32::MAX)?;
        within("clip_norm", self.clip_norm, 0.0, f32::MAX)?;
        within("ema", self.ema, 0.0, 1.0)?;
        within("checkpoint_every", self.checkpoint_every, 1, u64::MAX)
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Data`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&String::from_utf8_lossy(&read(path)?), &path.display().to_string())
    }

    /// The recipe as TOML.
    ///
    /// # Errors
    /// [`Error::Data`] for a path that is no text.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::data("recipe", e.to_string()))
    }

    /// Sets one value from the text `key=value`. A key of the method's own settings may be given without `options.`; one inside a table has
    /// dots: `projector.hidden=128`.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown key or a value of the wrong type.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let wrong = |message: String| Error::argument(format!("recipe value \"{assignment}\""), message);
        let (key, value) = assignment.split_once('=').ok_or_else(|| wrong("expected key=value".into()))?;
        let mut table: Table = toml::from_str(&self.to_toml()?).map_err(|e| wrong(e.to_string()))?;
        let unknown = || {
            let keys = self.keys().unwrap_or_default();
            wrong(format!("there is no such key; there are {}", keys.join(", ")))
        };
        let (whole, inner) = (format!("options.{key}"), place(&mut table, key).is_none());
        let old = place(&mut table, if inner { &whole } else { key }).filter(|old| !old.is_table()).ok_or_else(unknown)?;
        *old = parse_value(value, old).ok_or_else(|| wrong(format!("expected a value like {old}")))?;
        if let Some(entry) = find(value).ok().filter(|_| key == "method") {
            // Another method has other settings.
            table.insert("options".into(), entry.complete(&Table::new())?.into());
        }
        *self = table.try_into().map_err(|e: toml::de::Error| wrong(e.message().to_string()))?;
        find(&self.method).and_then(|entry| entry.complete(&self.options)).map(drop).or_else(|e| {
            // An unknown method is named by whoever looks it up.
            if find(&self.method).is_ok() { Err(wrong(e.to_string())) } else { Ok(()) }
        })
    }

    /// Every key that [`Self::set`] knows.
    fn keys(&self) -> Result<Vec<String>> {
        fn walk(table: &Table, prefix: &str, keys: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    Value::Table(inner) if prefix.is_empty() && key == "options" => walk(inner, prefix, keys),
                    Value::Table(inner) => walk(inner, &format!("{prefix}{key}."), keys),
                    _ => keys.push(format!("{prefix}{key}")),
                }
            }
        }
        let table = toml::from_str(&self.to_toml()?).map_err(|e| Error::data("recipe", e.to_string()))?;
        let mut keys = Vec::new();
        walk(&table, "", &mut keys);
        Ok(keys)
    }
}

/// Refuses settings that no machine can meet: sizes and counts have a limit, and numbers are finite. What they mean is judged by the method.
fn check_numbers(table: &Table, prefix: &str) -> Result<()> {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => check_numbers(inner, &format!("{key}."))?,
            Value::Integer(number) if !usize::try_from(*number).is_ok_and(|number| number <= MOST) => {
                return Err(Error::argument(key, format!("expected 0 to {MOST}, found {number}")));
            }
            Value::Float(number) if !(*number as f32).is_finite() => {
                return Err(Error::argument(key, format!("expected a finite number, found {number}")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Puts `upper` over `lower`, table by table.
fn overlay(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => drop(lower.insert(key, value)),
        }
    }
}

/// The value at a key with dots.
fn place<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
    match key.split_once('.') {
        None => table.get_mut(key),
        Some((first, rest)) => place(table.get_mut(first)?.as_table_mut()?, rest),
    }
}

fn parse_value(text: &str, like: &Value) -> Option<Value> {
    match like {
        Value::String(_) => Some(Value::String(text.into())),
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_survive_a_round_trip_and_name_what_is_wrong() {
        let mut recipe = Recipe { epochs: 7, ..Recipe::defaults("simclr") };
        assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), "x").unwrap(), recipe);
        recipe.set("learning_rate=0.3").unwrap();
        recipe.set("model=cnn_16_32_64").unwrap();
        assert_eq!((recipe.learning_rate, recipe.model.as_str()), (0.3, "cnn_16_32_64"));
        for (bad, words) in [("epoch=3", "no such key"), ("epochs=x", "expected a value like 7"), ("epochs", "key=value")] {
            let message = recipe.set(bad).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        let message = Recipe::parse("epochs = 3\nbatsch = 1\n", "r.toml").unwrap_err().to_string();
        assert!(message.contains("r.toml") && message.contains("line 2") && message.contains("batsch"), "{message}");
        assert_eq!(Recipe::parse("method = \"simclr\"\nseed = 3", "x").unwrap(), Recipe { seed: 3, ..Recipe::defaults("simclr") });
        recipe.set("temperature=0.25").unwrap();
        recipe.set("projector.hidden=7").unwrap();
        assert_eq!(recipe.options["temperature"].as_float(), Some(0.25));
        assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), "x").unwrap(), recipe);
        let message = recipe.set("projector=3").unwrap_err().to_string();
        assert!(message.contains("projector.hidden"), "{message}");
        let message = Recipe::parse("method = \"simclr\"\n[options]\nqueue = 3", "r.toml").unwrap_err().to_string();
        assert!(message.contains("r.toml") && message.contains("queue"), "{message}");
    }

    #[test]
    fn numbers_without_a_meaning_are_refused_by_their_key() {
        for method in ["supervised", "simclr"] {
            Recipe::defaults(method).check().unwrap();
        }
        for bad in [
            "epochs=0",
            "epochs=65536",
            "batch=0",
            "learning_rate=-1",
            "learning_rate=nan",
            "momentum=2",
            "checkpoint_every=0",
            "drop_path=1",
            "layer_decay=1.5",
            "resolution=5000",
        ] {
            let mut recipe = Recipe::default();
            recipe.set(bad).unwrap();
            let (key, value) = bad.split_once('=').unwrap();
            let message = recipe.check().unwrap_err().to_string().to_lowercase();
            assert!(message.starts_with(key) && message.ends_with(&format!("found {value}")), "{message}");
        }
        let pair = Recipe { batch: 1, ..Recipe::defaults("simclr") };
        assert!(pair.check().unwrap_err().to_string().contains("batch: expected 2 to"));
    }
}

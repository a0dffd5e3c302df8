//! The range of each number of a recipe, and the names that can be looked up without its data.

use std::fmt::Display;

use toml::{Table, Value};

use super::Recipe;
use super::problem::Problem;
use super::tables::{ModelTable, ScheduleTable, ValidationTable};
use crate::data::PictureOptions;
use crate::error::{Error, Result};
use crate::models::{self, ModelOptions};
use crate::optim::Rule;
use crate::train::images::NORMALIZATIONS;
use crate::train::methods::find;

/// The largest size or count that a recipe may name; what a device can hold is less.
const MOST: usize = 1 << 24;

impl Recipe {
    /// Whether every number lies where it means something, and methods, networks and presets are
    /// some that there are. Classes and files are judged by whoever looks them up.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the key, what is allowed and what was found.
    pub fn check(&self) -> Result<()> {
        self.problem().map_or(Ok(()), |problem| Err(Error::argument(problem.key, problem.message)))
    }

    /// The first thing that is wrong.
    pub(super) fn problem(&self) -> Option<Problem> {
        self.judge().err()
    }

    fn judge(&self) -> Result<(), Problem> {
        let Self { epochs, batch, data, model, optimizer, finetune, .. } = self;
        let entry = find(&self.method.name).map_err(|e| Problem::of("method.name", e))?;
        entry.complete(&self.method.settings).map_err(|e| match e {
            Error::Argument { subject, message } => Problem::new(subject, message),
            other => Problem::of("method", other),
        })?;
        numbers(&self.method.settings, "method.")?;
        within("epochs", *epochs, 1, 65_535)?;
        let shards = self.parallel.shards;
        if !shards.is_power_of_two() || shards > 1 << 16 {
            return Err(Problem::new("parallel.shards", format!("expected a power of two up to 65536, found {shards}")));
        }
        within("batch", *batch, entry.min_batch * shards, 1 << 20)?;
        for (key, images) in [("batch", *batch), ("data.labelled_batch", data.labelled_batch)] {
            if !images.is_multiple_of(shards) {
                return Err(Problem::new(key, format!("expected a multiple of parallel.shards, {shards}, found {images}")));
            }
        }
        within("ema", self.ema, 0.0, 1.0)?;
        within("checkpoint_every", self.checkpoint_every, 1, u64::MAX)?;
        within("data.label_noise", data.label_noise, 0.0, 1.0)?;
        within("data.labelled_batch", data.labelled_batch, 0, batch - 1)?;
        within("data.per_class", data.per_class, 0, MOST)?;
        within("data.labels_per_class", data.labels_per_class, 0, MOST)?;
        within("data.resolution", data.resolution, 0, 4096)?;
        within("data.short_side", data.short_side, 0, PictureOptions::SHORTEST_SIDE)?;
        within("data.workers", data.workers, 0, PictureOptions::WORKERS)?;
        within("data.memory_mib", data.memory_mib, 0, PictureOptions::MOST_MIB)?;
        if !NORMALIZATIONS.contains(&data.normalize.as_str()) {
            return Err(Problem::of("data.normalize", Error::unknown("normalize", &data.normalize, NORMALIZATIONS)));
        }
        within("model.width", model.width, 0.01, 100.0)?;
        within("model.stem_stride", model.stem_stride, 0, 8)?;
        within("model.drop_rate", model.drop_rate, 0.0, 0.99)?;
        within("model.drop_path", model.drop_path, 0.0, 0.99)?;
        network(model)?;
        within("optimizer.learning_rate", optimizer.learning_rate, 0.0, 1e6)?;
        within("optimizer.weight_decay", optimizer.weight_decay, 0.0, 1e6)?;
        within("optimizer.weight_decay_end", optimizer.weight_decay_end, 0.0, 1e6)?;
        within("optimizer.clip_norm", optimizer.clip_norm, 0.0, f32::MAX)?;
        within("optimizer.clip_each", optimizer.clip_each, 0.0, f32::MAX)?;
        rule(&optimizer.rule)?;
        self.precision.scaler.check().map_err(|e| Problem::of("precision", e))?;
        schedule(&self.schedule, *epochs)?;
        self.augmentation.views.names(1).map_err(|e| Problem::of("augmentation.views", e))?;
        let ValidationTable { split, every, images, patience, min_delta } = self.validation;
        within("validation.split", split, 0.0, 0.9)?;
        within("validation.images", images, 0, MOST)?;
        within("validation.every", every, 1, 65_535)?;
        within("validation.patience", patience, 0, 65_535)?;
        within("validation.min_delta", min_delta, 0.0, 1.0)?;
        if patience > 0 && split == 0.0 {
            return Err(Problem::new("validation.patience", "stops by images that are not learnt from: set validation.split, to 0.1 say"));
        }
        within("finetune.layer_decay", finetune.layer_decay, 0.0, 1.0)?;
        for (group, at) in finetune.groups.iter().zip(0..) {
            within(&format!("finetune.groups[{at}].lr_scale"), group.lr_scale, 0.0, f32::MAX)?;
            within(&format!("finetune.groups[{at}].weight_decay_scale"), group.weight_decay_scale, 0.0, f32::MAX)?;
        }
        Ok(())
    }
}

fn within<T: PartialOrd + Display>(key: &str, value: T, least: T, most: T) -> Result<(), Problem> {
    // Written so that NaN lies outside.
    if value >= least && value <= most {
        return Ok(());
    }
    Err(Problem::new(key, format!("expected {least} to {most}, found {value}")))
}

/// A network that there is, with settings that it has; its input's size comes from the data.
fn network(table: &ModelTable) -> Result<(), Problem> {
    let options = ModelOptions {
        width: f64::from(table.width),
        stem_stride: (table.stem_stride > 0).then_some(table.stem_stride),
        drop_rate: table.drop_rate,
        drop_path: table.drop_path,
        ..Default::default()
    };
    models::model(&table.name, options).map(drop).map_err(|e| match e {
        Error::Argument { subject, message } if ["width", "stem_stride"].contains(&subject.as_str()) => {
            Problem::new(format!("model.{subject}"), message)
        }
        other => Problem::of("model.name", other),
    })
}

fn positive(key: &str, value: f32) -> Result<(), Problem> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(Problem::new(key, format!("expected more than 0, found {value}"))) }
}

fn rule(rule: &Rule) -> Result<(), Problem> {
    match *rule {
        Rule::Sgd { momentum, .. } => within("optimizer.momentum", momentum, 0.0, 1.0),
        Rule::Adam { betas, eps } | Rule::AdamW { betas, eps } => {
            for (beta, at) in betas.into_iter().zip(0..) {
                within(&format!("optimizer.betas[{at}]"), beta, 0.0, 1.0)?;
            }
            positive("optimizer.eps", eps)
        }
        Rule::RmsProp { alpha, eps, momentum } => {
            within("optimizer.alpha", alpha, 0.0, 1.0)?;
            within("optimizer.momentum", momentum, 0.0, 1.0)?;
            positive("optimizer.eps", eps)
        }
        Rule::Lars { momentum, trust_coefficient, .. } => {
            within("optimizer.momentum", momentum, 0.0, 1.0)?;
            positive("optimizer.trust_coefficient", trust_coefficient)
        }
    }
}

fn schedule(schedule: &ScheduleTable, epochs: u32) -> Result<(), Problem> {
    match *schedule {
        ScheduleTable::Constant {} => Ok(()),
        ScheduleTable::Cosine { warm_up_epochs, minimum_learning_rate } => {
            within("schedule.warm_up_epochs", warm_up_epochs, 0.0, epochs as f32)?;
            within("schedule.minimum_learning_rate", minimum_learning_rate, 0.0, 1e6)
        }
        ScheduleTable::WarmRestarts { restart_epochs, restart_factor, minimum_learning_rate } => {
            within("schedule.restart_epochs", restart_epochs, 1, 65_535)?;
            within("schedule.restart_factor", restart_factor, 1, 65_535)?;
            within("schedule.minimum_learning_rate", minimum_learning_rate, 0.0, 1e6)
        }
        ScheduleTable::OneCycle { pct_start, div_factor, final_div_factor } => {
            within("schedule.pct_start", pct_start, 0.0, 1.0)?;
            positive("schedule.div_factor", div_factor)?;
            positive("schedule.final_div_factor", final_div_factor)
        }
        ScheduleTable::Step { step_epochs, gamma } => {
            within("schedule.step_epochs", step_epochs, 1, 65_535)?;
            within("schedule.gamma", gamma, 0.0, 1e6)
        }
    }
}

/// Refuses settings that no machine can meet: sizes and counts have a limit, and numbers are
/// finite. What they mean is judged by the method.
fn numbers(table: &Table, prefix: &str) -> Result<(), Problem> {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => numbers(inner, &format!("{key}."))?,
            Value::Integer(number) if !usize::try_from(*number).is_ok_and(|number| number <= MOST) => {
                return Err(Problem::new(key, format!("expected 0 to {MOST}, found {number}")));
            }
            Value::Float(number) if !(*number as f32).is_finite() => {
                return Err(Problem::new(key, format!("expected a finite number, found {number}")));
            }
            _ => {}
        }
    }
    Ok(())
}

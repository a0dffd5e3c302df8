//! Recipes as they were before they had a version: flat keys, lists as texts, the method's settings
//! in `[options]`. Runs, checkpoints and anyone's own files of that form are read as they are;
//! `wgrad recipe FILE` prints what they are now.

use toml::{Table, Value};

use super::layers::{MAIN, nested, overlay};
use super::problem::Problem;
use super::tables::ScheduleTable;
use super::{Recipe, short};
use crate::error::closest;
use crate::models::TextConfig;
use crate::optim::Rule;

/// Every key there was, and where it is now.
const KEYS: [(&str, &str); 42] = [
    ("method", "method.name"),
    ("data", "data.path"),
    ("model", "model.name"),
    ("width", "model.width"),
    ("stem_stride", "model.stem_stride"),
    ("drop_rate", "model.drop_rate"),
    ("drop_path", "model.drop_path"),
    ("resolution", "data.resolution"),
    ("rgb", "data.rgb"),
    ("normalize", "data.normalize"),
    ("per_class", "data.per_class"),
    ("classes", "data.classes"),
    ("tasks", "data.tasks"),
    ("omit", "data.omit"),
    ("labels_per_class", "data.labels_per_class"),
    ("label_noise", "data.label_noise"),
    ("labelled_batch", "data.labelled_batch"),
    ("teachers", "teachers"),
    ("weights", "finetune.weights"),
    ("freeze", "finetune.freeze"),
    ("unfreeze_every", "finetune.unfreeze_every"),
    ("freeze_batch_norm", "finetune.freeze_batch_norm"),
    ("layer_decay", "finetune.layer_decay"),
    ("groups", "finetune.groups"),
    ("batch", "batch"),
    ("epochs", "epochs"),
    ("seed", "seed"),
    ("augmentation", "augmentation.views"),
    ("optimizer", "optimizer.name"),
    ("learning_rate", "optimizer.learning_rate"),
    ("schedule", "schedule.name"),
    ("warm_up_epochs", "schedule.warm_up_epochs"),
    ("minimum_learning_rate", "schedule.minimum_learning_rate"),
    ("momentum", "optimizer.momentum"),
    ("weight_decay", "optimizer.weight_decay"),
    ("weight_decay_end", "optimizer.weight_decay_end"),
    ("clip_norm", "optimizer.clip_norm"),
    ("clip_each", "optimizer.clip_each"),
    ("ema", "ema"),
    ("checkpoint_every", "checkpoint_every"),
    ("stop_on_collapse", "stop_on_collapse"),
    ("options", "method"),
];
/// Lists that were texts.
const TEXTS: [&str; 6] = ["classes", "tasks", "omit", "teachers", "freeze", "groups"];

/// Whether a recipe that names no version is of version 1: where it is flat, and has a key that is
/// elsewhere now.
pub(super) fn is_one(table: &Table) -> bool {
    let flat = table.iter().all(|(key, value)| !value.is_table() || key == "options");
    let moved = |key: &String| KEYS.iter().any(|(old, new)| old == key && old != new && MAIN.iter().all(|(main, _)| main != old));
    // A list of views was a text.
    let views = table.get("augmentation").and_then(Value::as_str).is_some_and(|views| views.contains([',', ' ']));
    flat && (views || table.keys().any(moved))
}

/// What the key of the present version was called.
pub(super) fn old_key(key: &str) -> String {
    let exact = KEYS.iter().find(|(_, new)| *new == key).map(|(old, _)| (*old).to_string());
    let inside = |key: &str| key.strip_prefix("method.").map(|setting| format!("options.{setting}"));
    let entry =
        || KEYS.iter().find(|(_, new)| key.strip_prefix(new).is_some_and(|rest| rest.starts_with('['))).map(|(old, _)| (*old).to_string());
    exact.or_else(entry).or_else(|| inside(key)).unwrap_or_else(|| key.into())
}

/// A recipe of version 1, without its version, as one of the present version.
///
/// # Errors
/// A key that there was not; a text that is no list.
pub(super) fn convert(old: &Table) -> Result<Table, Problem> {
    let mut new = Table::new();
    for (key, value) in old {
        let Some((_, place)) = KEYS.iter().find(|(old, _)| old == key) else {
            let names = KEYS.map(|(old, _)| old);
            let hint = closest(key, names).map_or("there".into(), |closest| format!("did you mean \"{closest}\"? There"));
            return Err(Problem::of_key(key, format!("there was no key \"{key}\" in version 1; {hint} were {}", names.join(", "))));
        };
        if has_no_effect(key, value, old) {
            continue;
        }
        let value = match value {
            Value::String(text) if key == "normalize" && text == "bytes" && reads(old) => "auto".into(),
            // Every list may be empty, but views.
            Value::String(text) if TEXTS.contains(&key.as_str()) && text.trim().is_empty() => Value::Array(Vec::new()),
            Value::String(text) => {
                short::value(place, text).map_err(|message| Problem::new(*place, message))?.unwrap_or_else(|| value.clone())
            }
            Value::Table(options) => Value::Table(settings(options)?),
            other => other.clone(),
        };
        overlay(&mut new, nested(place, value));
    }
    Ok(new)
}

/// Whether a key said nothing: what only another optimizer or schedule than the recipe's looked at.
/// Every run kept all of them.
fn has_no_effect(key: &str, value: &Value, old: &Table) -> bool {
    let method = old.get("method").and_then(Value::as_str).unwrap_or("supervised");
    let own = |key: &str| old.get(key).and_then(Value::as_str);
    let zero = value.as_float() == Some(0.0) || value.as_integer() == Some(0);
    match key {
        "momentum" => {
            let rule = own("optimizer").map_or(Ok(Recipe::defaults(method).optimizer.rule), Rule::named);
            matches!(rule, Ok(Rule::Adam { .. } | Rule::AdamW { .. }))
        }
        "warm_up_epochs" | "minimum_learning_rate" if zero => {
            let schedule = own("schedule").map(|name| name == "cosine");
            !schedule.unwrap_or_else(|| matches!(Recipe::defaults(method).schedule, ScheduleTable::Cosine { .. }))
        }
        _ => false,
    }
}

/// Whether the network is one of texts, which were images of bytes then; now they are normalised by
/// nothing.
fn reads(old: &Table) -> bool {
    let method = old.get("method").and_then(Value::as_str).unwrap_or("supervised");
    let own = old.get("model").and_then(Value::as_str).map(String::from);
    TextConfig::named(&own.unwrap_or_else(|| Recipe::defaults(method).model.name)).is_some()
}

/// `[options]`, in which some lists were texts, too.
fn settings(options: &Table) -> Result<Table, Problem> {
    let setting = |(key, value): (&String, &Value)| {
        let place = format!("method.{key}");
        let list = ["coarse", "task_weights"].contains(&key.as_str());
        let value = match value {
            Value::String(text) if list && text.trim().is_empty() => Value::Array(Vec::new()),
            Value::String(text) if list => {
                short::value(&place, text).map_err(|message| Problem::new(&place, message))?.unwrap_or_else(|| value.clone())
            }
            other => other.clone(),
        };
        Ok((key.clone(), value))
    };
    options.iter().map(setting).collect()
}

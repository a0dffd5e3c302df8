//! One recipe over another: which keys there are, of what kind their values are, and what a name
//! brings with it.

use serde::Serialize;
use toml::{Table, Value};

use super::Recipe;
use super::problem::{Problem, sentence, unknown};
use super::tables::{OptimizerTable, ScheduleTable};
use crate::error::Error;
use crate::optim::Rule;
use crate::train::methods::find;

/// The key of each table that may stand for all of it: `model = "resnet18"` is `model.name =
/// "resnet18"`.
pub(super) const MAIN: [(&str, &str); 8] = [
    ("method", "name"),
    ("data", "path"),
    ("model", "name"),
    ("optimizer", "name"),
    ("precision", "name"),
    ("schedule", "name"),
    ("augmentation", "views"),
    ("finetune", "weights"),
];

/// `base` with what `upper` says: keys and kinds of values are judged, ranges are not.
pub(super) fn layer(base: &Recipe, mut upper: Table) -> Result<Recipe, Problem> {
    spread(&mut upper);
    let mut lower = table(base)?;
    rename(&mut lower, &upper)?;
    compare(&upper, &lower, "", &lower)?;
    overlay(&mut lower, upper);
    let mut recipe: Recipe = serde_path_to_error::deserialize(lower).map_err(|e| {
        let key = e.path().to_string();
        Problem::new(key, sentence(e.inner().message()))
    })?;
    if let Ok(entry) = find(&recipe.method.name) {
        recipe.method.settings = entry.complete(&recipe.method.settings).map_err(|e| match e {
            Error::Argument { subject, message } => Problem::new(subject, sentence(&message)),
            other => Problem::of("method", other),
        })?;
    }
    Ok(recipe)
}

/// All keys and values of a recipe or of one of its tables.
pub(super) fn table(of: &impl Serialize) -> Result<Table, Problem> {
    // Through text, so that 0.1 of single precision stays 0.1.
    let wrong = |message: String| Problem::new("recipe", message);
    let text = toml::to_string(of).map_err(|e| wrong(e.to_string()))?;
    toml::from_str(&text).map_err(|e| wrong(e.message().into()))
}

/// Every key of a recipe that holds a value, with dots.
pub(super) fn keys(table: &Table) -> Vec<String> {
    fn walk(table: &Table, prefix: &str, keys: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                Value::Table(inner) => walk(inner, &format!("{prefix}{key}."), keys),
                _ => keys.push(format!("{prefix}{key}")),
            }
        }
    }
    let mut keys = Vec::new();
    walk(table, "", &mut keys);
    keys
}

/// The table in which `key`, with dots, is `value`.
pub(super) fn nested(key: &str, value: Value) -> Table {
    match key.split_once('.') {
        None => Table::from_iter([(key.to_string(), value)]),
        Some((first, rest)) => Table::from_iter([(first.to_string(), nested(rest, value).into())]),
    }
}

/// The last word of a key with dots.
pub(super) fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Puts values that stand for a table into it.
fn spread(table: &mut Table) {
    for (name, main) in MAIN {
        if let Some(value) = table.get_mut(name).filter(|value| !value.is_table()) {
            let inner = std::mem::replace(value, Value::Boolean(false));
            *value = Table::from_iter([(main.to_string(), inner)]).into();
        }
    }
}

/// Where `upper` names another method, optimizer or schedule than `lower`, gives `lower` the
/// settings of that one: its defaults, and what all optimizers have in common as it was.
pub(super) fn rename(lower: &mut Table, upper: &Table) -> Result<(), Problem> {
    for (kind, common) in [("method", &[][..]), ("optimizer", &OptimizerTable::COMMON), ("schedule", &[])] {
        let name = |table: &Table| table.get(kind).and_then(|inner| inner.get("name")).cloned();
        let (Some(new), old) = (name(upper), name(lower)) else { continue };
        if Some(&new) == old.as_ref() {
            continue;
        }
        let key = format!("{kind}.name");
        let Value::String(name) = &new else { return Err(Problem::new(key, format!("expected a name, found {new}"))) };
        let wrong = |e: Error| Problem::of(&key, e);
        let mut settings = match kind {
            "method" => find(name).and_then(|entry| entry.complete(&Table::new())).map_err(wrong)?,
            "optimizer" => self::table(&Rule::named(name).map_err(wrong)?)?,
            _ => self::table(&ScheduleTable::named(name).map_err(wrong)?)?,
        };
        settings.insert("name".into(), new.clone());
        if let Some(Value::Table(old)) = lower.get(kind) {
            settings.extend(old.iter().filter(|(key, _)| common.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())));
        }
        lower.insert(kind.into(), settings.into());
    }
    Ok(())
}

/// Refuses keys that `lower` does not have, and values of another kind than its own. Lists are left
/// to whoever reads them.
fn compare(upper: &Table, lower: &Table, prefix: &str, root: &Table) -> Result<(), Problem> {
    for (name, value) in upper {
        let key = format!("{prefix}{name}");
        let Some(own) = lower.get(name) else { return Err(unknown(&key, name, lower, prefix, root)) };
        let expected = match (own, value) {
            (Value::Table(own), Value::Table(value)) => {
                compare(value, own, &format!("{key}."), root)?;
                continue;
            }
            (Value::Table(_), _) => "a table".to_string(),
            (Value::Float(_), Value::Float(_) | Value::Integer(_)) | (Value::Boolean(_), Value::Boolean(_)) => continue,
            (Value::Integer(_), Value::Integer(0..)) => continue,
            // Of as many numbers as there are.
            (Value::Array(own), value) if prefix == "optimizer." && value.as_array().map(Vec::len) != Some(own.len()) => {
                format!("{} numbers like {}", own.len(), Value::Array(own.clone()))
            }
            (Value::String(_), Value::String(_) | Value::Array(_)) | (Value::Array(_), _) => continue,
            (Value::Float(_), _) => format!("a number like {own}"),
            (Value::Integer(_), Value::Integer(_)) => "0 or more".into(),
            (Value::Integer(_), _) => format!("a whole number like {own}"),
            (Value::Boolean(_), _) => "true or false".into(),
            _ => format!("a text like {own}"),
        };
        return Err(Problem::new(key, format!("expected {expected}, found {value}")));
    }
    Ok(())
}

/// Puts `upper` over `lower`, table by table.
pub(super) fn overlay(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => drop(lower.insert(key, value)),
        }
    }
}

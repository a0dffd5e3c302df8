//! What is wrong with a recipe, where, and what would be right.

use toml::{Table, Value};

use super::layers::{keys, last, table};
use super::tables::ScheduleTable;
use crate::error::{Error, closest};
use crate::optim::Rule;

/// What is wrong with a recipe, and where.
#[derive(Debug)]
pub(super) struct Problem {
    /// The key, with dots and `[0]`.
    pub key: String,
    /// What was found, and what is allowed.
    pub message: String,
    /// Whether the message names the key already.
    pub names_key: bool,
}

impl Problem {
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), names_key: false }
    }

    /// As [`Self::new`], where the message names the key.
    pub fn of_key(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { names_key: true, ..Self::new(key, message) }
    }

    /// An error of whoever looked up the value of `key`.
    pub fn of(key: &str, error: Error) -> Self {
        match error {
            Error::Argument { message, .. } => Self::new(key, message),
            other => Self::new(key, other.to_string()),
        }
    }
}

/// What serde says, in the words of TOML.
pub(super) fn sentence(message: &str) -> String {
    let message = message.trim().replace("a sequence", "a list").replace("a map", "a table").replace("u32", &format!("0 to {}", u32::MAX));
    let found = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: "));
    found.map_or_else(|| message.clone(), |rest| format!("found {rest}"))
}

/// What is said of the key `prefix` + `name` that there is not, where there are those of `known`,
/// and in other tables those of `root`.
pub(super) fn unknown(key: &str, name: &str, known: &Table, prefix: &str, root: &Table) -> Problem {
    let names: Vec<&str> = known.keys().map(String::as_str).filter(|key| prefix.is_empty() || *key != "name").collect();
    let elsewhere = keys(root);
    let moved = elsewhere.iter().find(|key| last(key) == name).map(String::as_str);
    let hint = moved.or_else(|| closest(name, names.iter().copied())).or_else(|| {
        let similar = closest(name, elsewhere.iter().map(|key| last(key)))?;
        elsewhere.iter().find(|key| last(key) == similar).map(String::as_str)
    });
    let hint = hint.map(|hint| format!("did you mean \"{hint}\"? "));
    let other = owners(prefix, name);
    let owner = known.get("name").and_then(Value::as_str).filter(|_| ["method.", "optimizer.", "schedule."].contains(&prefix));
    let (place, names) = (prefix.trim_end_matches('.'), names.join(", "));
    let [it, there] = if hint.is_some() { ["It", "There"] } else { ["it", "there"] };
    let hint = hint.unwrap_or_default();
    let message = match owner {
        Some(owner) if names.is_empty() => format!("the {place} {owner} has no setting \"{name}\"; {hint}{it} has none"),
        Some(owner) if !other.is_empty() => {
            format!("\"{name}\" is a setting of {}, not of the {place} {owner}, which has {names}", other.join(", "))
        }
        Some(owner) => format!("the {place} {owner} has no setting \"{name}\"; {hint}{it} has {names}"),
        None if place.is_empty() => format!("there is no key \"{name}\"; {hint}{there} are {names}"),
        None => format!("there is no key \"{name}\" in {place}; {hint}{there} are {names}"),
    };
    Problem::of_key(key, message)
}

/// The optimizers or schedules that have the setting `name`.
fn owners(prefix: &str, name: &str) -> Vec<&'static str> {
    let has = |table: Result<Table, Problem>| table.is_ok_and(|table| table.contains_key(name));
    match prefix {
        "optimizer." => Rule::NAMES.into_iter().filter(|rule| Rule::named(rule).is_ok_and(|rule| has(table(&rule)))).collect(),
        "schedule." => {
            let named = |name: &&str| ScheduleTable::named(name).is_ok_and(|schedule| has(table(&schedule)));
            ScheduleTable::NAMES.into_iter().filter(named).collect()
        }
        _ => Vec::new(),
    }
}

//! `KEY=VALUE`, as the command line sets one value of a recipe.

use toml::{Table, Value};

use super::layers::{MAIN, keys, last, layer, nested, overlay, rename, table};
use super::{Recipe, short};
use crate::error::{Error, Result, closest};

impl Recipe {
    /// Sets values from texts `KEY=VALUE`, all of them at once, so that their order does not
    /// matter.
    ///
    /// A key is one of the recipe's, with dots (`optimizer.learning_rate`), of which the table may
    /// be left out where no other has such a key: `learning_rate`, `projector.hidden`. A table by
    /// itself is the key that it is called by: `optimizer=adamw`. The value is TOML, or a bare
    /// text; a list may be a text with commas between, in the short forms of
    /// [`ClassGroup::list`](crate::data::ClassGroup::list),
    /// [`TaskGroups::list`](crate::data::TaskGroups::list) and [`Views`](crate::data::Views) where
    /// these are wanted. Another optimizer keeps what all optimizers have, another schedule or
    /// method nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the assignment, for a key that there is not or that is not clear,
    /// or a value of the wrong kind.
    pub fn set_all<'a>(&mut self, assignments: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let wrong = |text: &str, message: String| Error::argument(format!("\"{text}\""), message);
        let pairs = assignments.into_iter().map(|text| {
            let pair = text.split_once('=').map(|(key, value)| (text, key.trim(), value.trim()));
            pair.ok_or_else(|| wrong(text, "expected KEY=VALUE".into()))
        });
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let mut all = table(self).map_err(|problem| Error::argument(problem.key, problem.message))?;
        let mut upper = Table::new();
        // Names come first: they decide which keys there are.
        for named in [true, false] {
            let naming = |key: &str| ["method", "optimizer", "schedule"].contains(&key.strip_suffix(".name").unwrap_or(key));
            for (text, key, value) in pairs.iter().filter(|(_, key, _)| naming(key) == named) {
                let wrong = |message: String| wrong(text, message);
                let key = resolve(&all, key, value).map_err(wrong)?;
                let value = read(&all, &key, value).map_err(wrong)?;
                overlay(&mut upper, nested(&key, value));
                // Of one that is wrong there is more to say than of all together.
                let result = rename(&mut all, &upper).and_then(|()| layer(self, upper.clone()));
                result.map_err(|problem| wrong(problem.message))?;
            }
        }
        *self = layer(self, upper).map_err(|problem| Error::argument(problem.key, problem.message))?;
        Ok(())
    }
}

/// The value at a key with dots.
fn place<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => place(table.get(first)?.as_table()?, rest),
    }
}

/// The whole key that `key` is short for.
fn resolve(all: &Table, key: &str, value: &str) -> std::result::Result<String, String> {
    if let Some(found) = place(all, key) {
        let main = MAIN.iter().find(|(table, _)| *table == key).map(|(_, main)| *main);
        return match main {
            Some(main) if !matches!(toml(value), Some(Value::Table(_))) => Ok(format!("{key}.{main}")),
            None if found.is_table() && !matches!(toml(value), Some(Value::Table(_))) => {
                let inner = found.as_table().map(keys).unwrap_or_default();
                let inner: Vec<String> = inner.iter().map(|inner| format!("{key}.{inner}")).collect();
                Err(format!("{key} is a table; set {} or all of it as {{ KEY = VALUE, .. }}", inner.join(", ")))
            }
            _ => Ok(key.into()),
        };
    }
    let within =
        |(_, value): &(&String, &Value)| value.as_table().is_some_and(|inner| place(inner, key).is_some_and(|found| !found.is_table()));
    let found: Vec<String> = all.iter().filter(within).map(|(table, _)| format!("{table}.{key}")).collect();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let known = keys(all);
            let same = known.iter().find(|known| last(known) == last(key));
            let similar = same.map(String::as_str).or_else(|| {
                let similar = closest(last(key), known.iter().map(|key| last(key)))?;
                known.iter().map(String::as_str).find(|key| last(key) == similar)
            });
            let hint = similar.map_or("there".into(), |similar| format!("did you mean {similar}? There"));
            Err(format!("there is no key \"{key}\"; {hint} are {}", known.join(", ")))
        }
        several => Err(format!("\"{key}\" may be {}: write it in full", several.join(" or "))),
    }
}

/// A TOML value.
fn toml(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("value = {text}")).ok()?;
    // A text with an end of line could hold other keys.
    table.remove("value").filter(|_| table.is_empty())
}

/// The value that `text` gives `key`.
fn read(all: &Table, key: &str, text: &str) -> std::result::Result<Value, String> {
    let (like, value) = (place(all, key), toml(text));
    Ok(match (like, value) {
        // A text stays one, though it may look like a number.
        (Some(Value::String(_)), Some(value @ (Value::String(_) | Value::Array(_)))) => value,
        (Some(Value::String(_)), _) => short::value(key, text)?.unwrap_or_else(|| text.into()),
        (Some(Value::Array(_)), Some(value @ (Value::Array(_) | Value::Table(_)))) => value,
        (Some(Value::Array(_)), _) => {
            short::value(key, text)?.unwrap_or_else(|| short::list(text, |word| toml(word).unwrap_or_else(|| word.into())))
        }
        (Some(Value::Float(_)), None) => text.parse().map_or_else(|_| text.into(), Value::Float),
        (Some(Value::Integer(_)), None) => text.parse().map_or_else(|_| text.into(), Value::Integer),
        (_, value) => value.unwrap_or_else(|| text.into()),
    })
}

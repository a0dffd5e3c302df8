//! The short forms of lists: texts as the command line takes them, and as version 1 of recipes
//! wrote them.

use serde::Serialize;
use toml::Value;

use super::tables::GroupTable;
use crate::data::{Class, ClassGroup, TaskGroups, Views};

/// What `text` means where it is the value of `key`; `None` where that has no form of its own.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn value(key: &str, text: &str) -> Result<Option<Value>, String> {
    let words = |text: &str| list(text, |word| word.into());
    Ok(Some(match key {
        _ if text.trim().is_empty() && key != "augmentation.views" => return Ok(None),
        "data.classes" => written(&ClassGroup::list(text))?,
        "data.omit" => written(&Class::list(text))?,
        "data.tasks" => written(&TaskGroups::list(text).map_err(|e| e.to_string())?)?,
        "augmentation.views" => written(&text.parse::<Views>().map_err(|e| e.to_string())?)?,
        "finetune.groups" => written(&groups(text)?)?,
        "finetune.freeze" | "teachers" => words(text),
        "method.coarse" => list(text, |group| Value::Array(group.split('+').map(|class| number(class.trim())).collect())),
        "method.task_weights" => list(text, number),
        _ => return Ok(None),
    }))
}

/// The parts of `text` between commas; empty ones are passed over.
pub(super) fn list(text: &str, read: impl Fn(&str) -> Value) -> Value {
    Value::Array(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(read).collect())
}

fn number(text: &str) -> Value {
    let whole = text.parse().map(Value::Integer).ok();
    whole.or_else(|| text.parse().map(Value::Float).ok()).unwrap_or_else(|| text.into())
}

fn written(value: &impl Serialize) -> Result<Value, String> {
    Value::try_from(value).map_err(|e| e.to_string())
}

/// `PATTERN lr=FACTOR decay=FACTOR` for each group, with commas between; either of the two factors.
fn groups(text: &str) -> Result<Vec<GroupTable>, String> {
    let group = |text: &str| {
        let mut parts = text.split_whitespace();
        let mut group = GroupTable { pattern: parts.next().unwrap_or_default().into(), lr_scale: 1.0, weight_decay_scale: 1.0 };
        for part in parts {
            let wrong = || format!("\"{text}\": expected PATTERN lr=FACTOR decay=FACTOR, found \"{part}\"");
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let target = match key {
                "lr" => &mut group.lr_scale,
                "decay" => &mut group.weight_decay_scale,
                _ => return Err(wrong()),
            };
            *target = value.parse().map_err(|_| wrong())?;
        }
        Ok(group)
    };
    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_text() {
        let group = |pattern: &str, lr_scale, weight_decay_scale| GroupTable { pattern: pattern.into(), lr_scale, weight_decay_scale };
        let expected = [group("classifier", 10.0, 1.0), group("*.bias", 2.0, 0.0)];
        assert_eq!(groups(" classifier lr=10, *.bias lr=2 decay=0,").unwrap(), expected);
        assert!(groups("").unwrap().is_empty());
        for (bad, words) in [("a b", "\"b\""), ("a lr=x", "\"lr=x\""), ("a rate=1", "\"rate=1\"")] {
            let message = groups(bad).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}

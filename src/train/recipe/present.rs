//! A recipe's text as it would be written now.

use toml::{Table, Value};

use super::document::Document;
use super::layers::MAIN;
use super::{Recipe, VERSION};
use crate::error::Result;

/// What a recipe of any version says, no more, as text of the present version. Of comments those
/// that have a line of their own are kept, above all else.
///
/// # Errors
/// As [`Recipe::parse`].
pub fn present_form(text: &str, source: &str) -> Result<String> {
    Recipe::parse(text, source)?;
    let document = Document::parse(text, source)?;
    let comments = text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n"));
    Ok(comments.collect::<String>() + &written(document.table()))
}

/// A recipe's text: keys in the order of [`Recipe`], a table of its main key alone in one line.
fn written(table: &Table) -> String {
    let mut text = format!("version = {VERSION}\n");
    let (mut rest, mut tables) = (String::new(), String::new());
    for (key, main) in MAIN {
        match table.get(key) {
            Some(Value::Table(inner)) if inner.len() > 1 || !inner.contains_key(main) => {
                tables += &format!("\n[{key}]\n");
                let (first, others): (Vec<_>, Vec<_>) = inner.iter().partition(|(key, _)| *key == main);
                first.into_iter().chain(others).for_each(|(key, value)| tables += &format!("{key} = {value}\n"));
            }
            Some(Value::Table(inner)) => inner.values().for_each(|value| text += &format!("{key} = {value}\n")),
            Some(value) => text += &format!("{key} = {value}\n"),
            None => {}
        }
    }
    for (key, value) in table.iter().filter(|(key, _)| MAIN.iter().all(|(main, _)| main != key)) {
        rest += &format!("{key} = {value}\n");
    }
    text + &rest + &tables
}

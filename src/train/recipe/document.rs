//! A recipe's text: its keys and values, and the line of each.

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::layers::layer;
use super::problem::Problem;
use super::{Recipe, VERSION, version1};
use crate::error::{Error, Result};

/// A text that was read, in the form of the present version.
pub(super) struct Document<'a> {
    text: &'a str,
    source: &'a str,
    lines: Spanned<DeTable<'a>>,
    table: Table,
    version: u32,
}

impl<'a> Document<'a> {
    /// Reads `text`, which errors call `source`.
    ///
    /// # Errors
    /// [`Error::Data`] for a text that is no TOML, a version that there is not, or a key of version
    /// 1 that there was not.
    pub fn parse(text: &'a str, source: &'a str) -> Result<Self> {
        let wrong = |e: toml::de::Error| Error::data(source, e.to_string());
        let (lines, mut table) = (DeTable::parse(text).map_err(wrong)?, toml::from_str::<Table>(text).map_err(wrong)?);
        let version = match table.remove("version") {
            None if version1::is_one(&table) => 1,
            None => VERSION,
            Some(Value::Integer(1)) => 1,
            Some(Value::Integer(number)) if number == i64::from(VERSION) => VERSION,
            Some(other) => {
                let message = format!("line 1: version: expected 1 or {VERSION}, found {other}; a newer wgrad may have written it");
                return Err(Error::data(source, message));
            }
        };
        let mut document = Self { text, source, lines, table, version };
        if version == 1 {
            document.table = version1::convert(&document.table).map_err(|problem| document.error(&problem))?;
        }
        Ok(document)
    }

    /// The name of its method; `supervised` where it names none.
    ///
    /// # Errors
    /// [`Error::Data`] where that is no text.
    pub fn method(&self) -> Result<&str> {
        let found = self.table.get("method").map(|method| method.get("name").unwrap_or(method));
        match found {
            Some(Value::String(name)) => Ok(name),
            Some(other) if !other.is_table() => {
                Err(self.error(&Problem::new("method.name", format!("expected a method's name, found {other}"))))
            }
            _ => Ok("supervised"),
        }
    }

    /// Whether it is of an earlier version than is written now.
    pub fn is_old(&self) -> bool {
        self.version < VERSION
    }

    /// Its keys and values, in the form of the present version.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The recipe `base` with what this one says.
    ///
    /// # Errors
    /// [`Error::Data`] with line and key.
    pub fn over(&self, base: &Recipe) -> Result<Recipe> {
        layer(base, self.table.clone()).map_err(|problem| self.error(&problem))
    }

    /// A problem with its line.
    pub fn error(&self, problem: &Problem) -> Error {
        let key = if self.version == 1 { version1::old_key(&problem.key) } else { problem.key.clone() };
        let place = self.line(&key).map_or(String::new(), |line| format!("line {line}: "));
        let key = if problem.names_key { String::new() } else { format!("{key}: ") };
        Error::data(self.source, format!("{place}{key}{}", problem.message))
    }

    /// The line of `key`, or of the table that it should lie in.
    fn line(&self, key: &str) -> Option<usize> {
        let mut found = None;
        let mut table = Some(self.lines.get_ref());
        let mut list: Option<&[Spanned<DeValue>]> = None;
        for part in key.split(['.', '[']) {
            let value = if let Some(index) = part.strip_suffix(']') {
                list.and_then(|list| list.get(index.parse::<usize>().ok()?)).inspect(|value| found = Some(value.span()))
            } else {
                let entry = table.and_then(|table| table.iter().find(|(name, _)| name.get_ref().as_ref() == part));
                entry.map(|(name, value)| {
                    found = Some(name.span());
                    value
                })
            };
            let Some(value) = value else { break };
            (table, list) = match value.get_ref() {
                DeValue::Table(inner) => (Some(inner), None),
                DeValue::Array(inner) => (None, Some(inner.as_ref())),
                _ => (None, None),
            };
        }
        found.map(|span| self.text.get(..span.start).unwrap_or_default().matches('\n').count() + 1)
    }
}

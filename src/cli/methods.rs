//! `wgrad methods`: the ways to learn, and where they come from.

use std::process::ExitCode;

use serde_json::{Value, json};
use toml::Table as Options;

use super::output::say;
use super::table::Table;
use crate::error::{Error, Result};
use crate::methods::MethodCard;
use crate::train::methods::{Entry, METHODS, find};

/// List the learning methods, or show one's card: authors, paper, relatives, options, recipes
#[derive(clap::Args)]
pub(super) struct Methods {
    /// A method's name; all of them when not given
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Methods {
    pub(super) fn run(self) -> Result<ExitCode> {
        match (&self.name, self.json) {
            (Some(name), false) => say(card(find(name)?)?)?,
            (Some(name), true) => say(format!("{:#}", whole(find(name)?)?))?,
            (None, false) => say(list())?,
            (None, true) => say(format!("{:#}", Value::Array(METHODS.iter().map(whole).collect::<Result<_>>()?)))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list() -> String {
    let mut table = Table::of_words(&["method", "called", "learns from", "family", "year", "what it does"]);
    for entry in METHODS {
        let MethodCard { name, title, text, supervision, family, year, .. } = entry.card;
        table.row(&[name, title, &supervision.to_string(), family, &year.to_string(), text].map(String::from));
    }
    format!("{table}`wgrad methods NAME` shows one in full, `wgrad compare A B` lays several side by side\n")
}

/// Its options with their defaults.
fn options(entry: &Entry) -> Result<Options> {
    entry.complete(&Options::new())
}

fn card(entry: &Entry) -> Result<String> {
    let MethodCard { name, title, text, supervision, family, year, authors, paper, .. } = entry.card;
    let recipes = if entry.recipe.is_empty() { "the defaults".into() } else { entry.recipes().join(", ") };
    let related: Vec<String> = entry.card.related.iter().zip(entry.related()).map(|(name, title)| format!("{title} ({name})")).collect();
    let lines = [
        ("learns from", supervision.to_string()),
        ("family", family.into()),
        ("year", year.to_string()),
        ("authors", authors.into()),
        ("paper", paper.into()),
        ("related", related.join(", ")),
        ("recipes", recipes),
    ];
    let lines: String = lines.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect();
    let options = toml::to_string(&options(entry)?).map_err(|e| Error::argument(name, e.to_string()))?;
    let options: String = options.lines().filter(|line| !line.is_empty()).map(|line| format!("  {line}\n")).collect();
    let options = if options.is_empty() { "options        none\n".into() } else { format!("options\n{options}") };
    Ok(format!("{title} ({name})\n{text}\n\n{lines}{options}"))
}

fn whole(entry: &Entry) -> Result<Value> {
    let mut card = entry.to_json();
    if let Some(card) = card.as_object_mut() {
        card.insert("options".into(), json!(options(entry)?));
        card.insert("recipes".into(), json!(entry.recipes()));
    }
    Ok(card)
}

//! The methods by name: what each is called, what it begins with, and how it is made.

use serde_json::{Value, json};
use toml::Table;

use crate::error::{Error, Result};
use crate::methods::{self, Build, Method, MethodCard, MethodContext, MethodFactory, every_method};
use crate::nn::Parameters;

type Make = fn(&Parameters, Build, &Table, &MethodContext) -> Result<Box<dyn Method>>;

/// A method as recipes know it.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its card.
    pub card: MethodCard,
    /// The scopes of its own heads, see [`MethodFactory::HEADS`].
    pub heads: &'static [&'static str],
    /// The smallest batch that it takes.
    pub min_batch: usize,
    /// Whether it asks teachers for logits.
    pub teacher_logits: bool,
    /// The recipe that it begins with, in TOML: what a small network learns from small grey images
    /// on two cores in minutes.
    pub recipe: &'static str,
    complete: fn(&Table) -> Result<Table>,
    uses_labels: fn(&Table) -> Result<bool>,
    make: Make,
}

/// Supervised learning begins with the defaults of a recipe, and needs no file of its own.
macro_rules! recipe {
    (supervised) => {
        ""
    };
    ($module:ident) => {
        include_str!(concat!("../../recipes/", stringify!($module), ".toml"))
    };
}

macro_rules! table {
    ($($module:ident $method:ident,)*) => {
        /// All of them.
        pub const METHODS: &[Entry] = &[$(entry::<methods::$method>(recipe!($module)),)*];

        #[cfg(test)]
        const MODULES: &[&str] = &[$(stringify!($module),)*];
    };
}
every_method!(table);

const fn entry<M: MethodFactory>(recipe: &'static str) -> Entry {
    Entry {
        name: M::CARD.name,
        card: M::CARD,
        heads: M::HEADS,
        min_batch: M::MIN_BATCH,
        teacher_logits: M::TEACHER_LOGITS,
        recipe,
        complete: complete::<M>,
        uses_labels: |options| Ok(M::uses_labels(&parse::<M>(options)?)),
        make: make::<M>,
    }
}

/// The method called `name`.
///
/// # Errors
/// [`Error::Argument`] for an unknown one, with those that there are.
pub fn find(name: &str) -> Result<&'static Entry> {
    let found = METHODS.iter().find(|entry| entry.name == name);
    found.ok_or_else(|| Error::unknown("method", name, METHODS.iter().map(|entry| entry.name)))
}

fn parse<M: MethodFactory>(options: &Table) -> Result<M::Config> {
    let wrong = |e: serde_path_to_error::Error<toml::de::Error>| {
        let path = e.path().to_string();
        let key = if path == "." { "method".to_string() } else { format!("method.{path}") };
        Error::argument(key, e.inner().message().to_string())
    };
    serde_path_to_error::deserialize(options.clone()).map_err(wrong)
}

/// All settings: those given, and the others' defaults.
fn complete<M: MethodFactory>(options: &Table) -> Result<Table> {
    let text = toml::to_string(&parse::<M>(options)?).map_err(|e| Error::argument("method", e.to_string()))?;
    toml::from_str(&text).map_err(|e| Error::argument("method", e.to_string()))
}

fn make<M: MethodFactory>(params: &Parameters, build: Build, options: &Table, context: &MethodContext) -> Result<Box<dyn Method>> {
    Ok(Box::new(M::new(params, build, parse::<M>(options)?, context)?))
}

impl Entry {
    /// The files of its recipes: for two cores, a consumer GPU and a large one. The defaults need
    /// none.
    pub fn recipes(&self) -> Vec<String> {
        let folders = if self.recipe.is_empty() { &[][..] } else { &["", "gpu/", "datacentre/"] };
        folders.iter().map(|folder| format!("recipes/{folder}{}.toml", self.name)).collect()
    }

    /// The titles of methods that are close to it.
    pub fn related(&self) -> Vec<&'static str> {
        self.card
            .related
            .iter()
            .map(|name| METHODS.iter().find(|entry| entry.name == *name).map_or(*name, |entry| entry.card.title))
            .collect()
    }

    /// Its card.
    pub fn to_json(&self) -> Value {
        let MethodCard { name, title, text, supervision, family, year, authors, paper, related } = self.card;
        json!({
            "name": name, "title": title, "description": text, "supervision": supervision.to_string(), "family": family, "year": year,
            "authors": authors, "paper": paper, "related": related,
        })
    }

    /// All of the method's settings: those in `options`, and the others' defaults.
    ///
    /// # Errors
    /// [`Error::Argument`] for a key that it does not have, or a value of the wrong type.
    pub fn complete(&self, options: &Table) -> Result<Table> {
        (self.complete)(options)
    }

    /// Whether it looks at labels with the settings `options`.
    ///
    /// # Errors
    /// As [`Self::complete`].
    pub fn uses_labels(&self, options: &Table) -> Result<bool> {
        (self.uses_labels)(options)
    }

    /// The method with the settings `options`, in the scope `params`.
    ///
    /// # Errors
    /// As [`MethodFactory::new`]; [`Error::Argument`] for a setting that it does not have.
    pub fn make(&self, params: &Parameters, build: Build, options: &Table, context: &MethodContext) -> Result<Box<dyn Method>> {
        (self.make)(params, build, options, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_card_is_complete() {
        for (entry, module) in METHODS.iter().zip(MODULES) {
            assert_eq!(entry.name, *module, "a method is called after its file");
            let MethodCard { name, title, text, supervision, family, year, authors, paper, related } = entry.card;
            let words = [name, title, text, family, authors, paper];
            assert!(words.iter().all(|word| !word.is_empty() && word.trim() == *word), "{name}: {words:?}");
            assert_eq!(METHODS.iter().filter(|other| other.name == name || other.card.title == title).count(), 1, "{name}, {title}");
            assert!(!supervision.to_string().is_empty() && (1950..=2026).contains(&year), "{name}: {year}");
            // A title has several words; the year of a paper on arXiv is in its number.
            assert!(paper.split_whitespace().count() > 3, "{name}: {paper}");
            for id in paper.split("arXiv:").skip(1) {
                let id: String = id.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                let parts: Vec<&str> = id.trim_end_matches('.').split('.').collect();
                assert!(parts.len() == 2 && parts[0].len() == 4 && [4, 5].contains(&parts[1].len()), "{name}: {id}");
            }
            for other in related {
                assert!(*other != name && METHODS.iter().any(|entry| entry.name == *other), "{name} is related to {other}");
            }
            assert!(related.iter().zip(related.iter().skip(1)).all(|(a, b)| a != b), "{name}: {related:?}");
            assert!(entry.complete(&Table::new()).is_ok(), "{name}");
            for file in entry.recipes() {
                assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).exists(), "{file}");
            }
        }
    }
}

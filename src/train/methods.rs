//! The methods by name: what each is called, what it begins with, and how it is made.

use serde_json::{Value, json};
use toml::Table;

use crate::error::{Error, Result};
use crate::methods::{self, Build, Method, MethodCard, MethodContext, MethodFactory};
use crate::nn::Parameters;

type Make = fn(&Parameters, Build, &Table, &MethodContext) -> Result<Box<dyn Method>>;

/// A method as recipes know it.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its card.
    pub about: MethodCard,
    /// Whether it asks teachers for logits.
    pub logits: bool,
    /// The recipe that it begins with, in TOML: what a small network learns from small grey images on two cores in minutes.
    pub recipe: &'static str,
    complete: fn(&Table) -> Result<Table>,
    make: Make,
}

/// All of them.
pub const METHODS: &[Entry] = &[
    entry::<methods::Supervised>(""),
    entry::<methods::SimClr>(include_str!("../../recipes/simclr.toml")),
    entry::<methods::Moco>(include_str!("../../recipes/moco.toml")),
    entry::<methods::MocoV3>(include_str!("../../recipes/moco_v3.toml")),
    entry::<methods::Byol>(include_str!("../../recipes/byol.toml")),
    entry::<methods::SimSiam>(include_str!("../../recipes/simsiam.toml")),
    entry::<methods::Dino>(include_str!("../../recipes/dino.toml")),
    entry::<methods::SupCon>(include_str!("../../recipes/supcon.toml")),
    entry::<methods::Rotation>(include_str!("../../recipes/rotation.toml")),
    entry::<methods::Jigsaw>(include_str!("../../recipes/jigsaw.toml")),
    entry::<methods::Mae>(include_str!("../../recipes/mae.toml")),
    entry::<methods::Autoencoder>(include_str!("../../recipes/autoencoder.toml")),
    entry::<methods::Vae>(include_str!("../../recipes/vae.toml")),
    entry::<methods::Distillation>(include_str!("../../recipes/distillation.toml")),
    entry::<methods::DecoupledDistillation>(include_str!("../../recipes/decoupled_distillation.toml")),
    entry::<methods::FeatureDistillation>(include_str!("../../recipes/feature_distillation.toml")),
    entry::<methods::ContrastiveDistillation>(include_str!("../../recipes/contrastive_distillation.toml")),
    entry::<methods::EmbeddingDistillation>(include_str!("../../recipes/embedding_distillation.toml")),
    entry::<methods::Mutual>(include_str!("../../recipes/mutual.toml")),
    entry::<methods::SelfDistillation>(include_str!("../../recipes/self_distillation.toml")),
    entry::<methods::Merge>(include_str!("../../recipes/merge.toml")),
    entry::<methods::PseudoLabel>(include_str!("../../recipes/pseudo_label.toml")),
    entry::<methods::MeanTeacher>(include_str!("../../recipes/mean_teacher.toml")),
    entry::<methods::FixMatch>(include_str!("../../recipes/fixmatch.toml")),
    entry::<methods::PartialLabels>(include_str!("../../recipes/partial_labels.toml")),
    entry::<methods::CoarseToFine>(include_str!("../../recipes/coarse_to_fine.toml")),
    entry::<methods::Multitask>(include_str!("../../recipes/multitask.toml")),
    entry::<methods::MaskedTokens>(include_str!("../../recipes/masked_tokens.toml")),
    entry::<methods::TransformerDistillation>(include_str!("../../recipes/transformer_distillation.toml")),
];

const fn entry<M: MethodFactory>(recipe: &'static str) -> Entry {
    Entry { name: M::CARD.name, about: M::CARD, logits: M::LOGITS, recipe, complete: complete::<M>, make: make::<M> }
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
    /// The files of its recipes: for two cores, a consumer GPU and a large one. The defaults need none.
    pub fn recipes(&self) -> Vec<String> {
        let folders = if self.recipe.is_empty() { &[][..] } else { &["", "gpu/", "datacentre/"] };
        folders.iter().map(|folder| format!("recipes/{folder}{}.toml", self.name)).collect()
    }

    /// The titles of methods that are close to it.
    pub fn related(&self) -> Vec<&'static str> {
        self.about
            .related
            .iter()
            .map(|name| METHODS.iter().find(|entry| entry.name == *name).map_or(*name, |entry| entry.about.title))
            .collect()
    }

    /// Its card.
    pub fn to_json(&self) -> Value {
        let MethodCard { name, title, text, supervision, family, year, authors, paper, related } = self.about;
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
        for entry in METHODS {
            let MethodCard { name, title, text, supervision, family, year, authors, paper, related } = entry.about;
            let words = [name, title, text, family, authors, paper];
            assert!(words.iter().all(|word| !word.is_empty() && word.trim() == *word), "{name}: {words:?}");
            assert_eq!(METHODS.iter().filter(|other| other.name == name || other.about.title == title).count(), 1, "{name}, {title}");
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

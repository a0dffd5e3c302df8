//! The methods by name: what each is called, what it begins with, and how it is made.

use toml::Table;

use crate::error::{Error, Result};
use crate::methods::{
    About, Autoencoder, Build, Byol, Configured, ContrastiveDistillation, DecoupledDistillation, Dino, Distillation, EmbeddingDistillation,
    FeatureDistillation, Jigsaw, Mae, MaskedTokens, Method, Moco, MocoV3, Mutual, Rotation, SelfDistillation, Setting, SimClr, SimSiam,
    SupCon, Supervised, TransformerDistillation, Vae,
};
use crate::nn::Parameters;

type Make = fn(&Parameters, Build, &Table, &Setting) -> Result<Box<dyn Method>>;

/// A method as recipes know it.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its card.
    pub about: About,
    /// Whether it asks teachers for logits.
    pub logits: bool,
    /// The recipe that it begins with, in TOML: what a small network learns from small grey images on two cores in minutes.
    pub recipe: &'static str,
    complete: fn(&Table) -> Result<Table>,
    make: Make,
}

/// All of them.
pub const METHODS: &[Entry] = &[
    entry::<Supervised>(""),
    entry::<SimClr>(include_str!("../../recipes/simclr.toml")),
    entry::<Moco>(include_str!("../../recipes/moco.toml")),
    entry::<MocoV3>(include_str!("../../recipes/moco_v3.toml")),
    entry::<Byol>(include_str!("../../recipes/byol.toml")),
    entry::<SimSiam>(include_str!("../../recipes/simsiam.toml")),
    entry::<Dino>(include_str!("../../recipes/dino.toml")),
    entry::<SupCon>(include_str!("../../recipes/supcon.toml")),
    entry::<Rotation>(include_str!("../../recipes/rotation.toml")),
    entry::<Jigsaw>(include_str!("../../recipes/jigsaw.toml")),
    entry::<Mae>(include_str!("../../recipes/mae.toml")),
    entry::<Autoencoder>(include_str!("../../recipes/autoencoder.toml")),
    entry::<Vae>(include_str!("../../recipes/vae.toml")),
    entry::<Distillation>(include_str!("../../recipes/distillation.toml")),
    entry::<DecoupledDistillation>(include_str!("../../recipes/decoupled_distillation.toml")),
    entry::<FeatureDistillation>(include_str!("../../recipes/feature_distillation.toml")),
    entry::<ContrastiveDistillation>(include_str!("../../recipes/contrastive_distillation.toml")),
    entry::<EmbeddingDistillation>(include_str!("../../recipes/embedding_distillation.toml")),
    entry::<Mutual>(include_str!("../../recipes/mutual.toml")),
    entry::<SelfDistillation>(include_str!("../../recipes/self_distillation.toml")),
    entry::<MaskedTokens>(include_str!("../../recipes/masked_tokens.toml")),
    entry::<TransformerDistillation>(include_str!("../../recipes/transformer_distillation.toml")),
];

const fn entry<M: Configured>(recipe: &'static str) -> Entry {
    Entry { name: M::ABOUT.name, about: M::ABOUT, logits: M::LOGITS, recipe, complete: complete::<M>, make: make::<M> }
}

/// The method called `name`.
///
/// # Errors
/// [`Error::Argument`] for an unknown one, with those that there are.
pub fn find(name: &str) -> Result<&'static Entry> {
    METHODS.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<&str> = METHODS.iter().map(|entry| entry.name).collect();
        Error::argument("method", format!("there is no \"{name}\"; there are {}", names.join(", ")))
    })
}

fn parse<M: Configured>(options: &Table) -> Result<M::Config> {
    options.clone().try_into().map_err(|e: toml::de::Error| Error::argument("options", e.message().to_string()))
}

/// All settings: those given, and the others' defaults.
fn complete<M: Configured>(options: &Table) -> Result<Table> {
    let text = toml::to_string(&parse::<M>(options)?).map_err(|e| Error::argument("options", e.to_string()))?;
    toml::from_str(&text).map_err(|e| Error::argument("options", e.to_string()))
}

fn make<M: Configured>(params: &Parameters, build: Build, options: &Table, setting: &Setting) -> Result<Box<dyn Method>> {
    Ok(Box::new(M::new(params, build, parse::<M>(options)?, setting)?))
}

impl Entry {
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
    /// As [`Configured::new`]; [`Error::Argument`] for a setting that it does not have.
    pub fn make(&self, params: &Parameters, build: Build, options: &Table, setting: &Setting) -> Result<Box<dyn Method>> {
        (self.make)(params, build, options, setting)
    }
}

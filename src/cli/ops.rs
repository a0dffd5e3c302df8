//! `wgrad ops`: the registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::output::{say, write};
use super::table::Table;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, GpuOptions, Language, Schedule, translate};
use crate::io::atomic::{make_folder, write_atomically};
use crate::ops::gradcheck::gradcheck_sample;
use crate::ops::registry::{Entry, find, registry};

/// List the operators, or print what one's shaders become
#[derive(clap::Args)]
pub(super) struct Ops {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the shaders of OPERATOR in this language: all variants that its samples need, of both
    /// schedules. SPIR-V modules follow one another, each begins with its magic number
    #[arg(long, value_name = "LANGUAGE", requires = "operator", conflicts_with = "json", value_parser = ["wgsl", "spirv", "msl", "hlsl", "glsl"])]
    emit: Option<String>,
    /// Write a file for each shader into this folder instead
    #[arg(long, value_name = "DIR", requires = "emit")]
    out: Option<PathBuf>,
    /// An operator's name
    operator: Option<String>,
}

impl Ops {
    pub(super) fn run(self) -> Result<ExitCode> {
        let entries: Vec<Entry> = match &self.operator {
            None => registry(),
            Some(name) => {
                vec![find(name).ok_or_else(|| Error::argument("ops", format!("there is no operator \"{name}\"; `wgrad ops` lists them")))?]
            }
        };
        if let (Some(language), Some(entry)) = (&self.emit, entries.first()) {
            return emit(entry, language, self.out.as_deref());
        }
        if self.json {
            let list: Vec<_> = entries.iter().map(|e| json!({ "name": e.name, "family": e.family(), "inputs": e.inputs, "outputs": e.outputs, "shaders": e.shaders(), "schedules": schedules(e) })).collect();
            say(format!("{:#}", json!(list)))?;
            return Ok(ExitCode::SUCCESS);
        }
        if let (Some(_), Some(entry)) = (&self.operator, entries.first()) {
            say(format!("operator   {}", entry.name))?;
            say(format!("family     {}", entry.family()))?;
            say(format!("inputs     {}", entry.inputs.join(", ")))?;
            say(format!("outputs    {}", entry.outputs.join(", ")))?;
            say(format!("schedules  {}", schedules(entry).join(", ")))?;
            say(format!("shaders    {}", entry.shaders().join(", ")))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::of_words(&["operator", "family", "schedules", "shaders", "inputs"]);
        for entry in &entries {
            let shaders = match entry.shaders().as_slice() {
                [] => String::new(),
                [only] => only.to_string(),
                [first, more @ ..] => format!("{first} and {} more", more.len()),
            };
            table.row(&[entry.name.into(), entry.family().into(), schedules(entry).join(", "), shaders, entry.inputs.join(", ")]);
        }
        say(table)?;
        say(format!("{} operators; `wgrad ops NAME` shows one in full", entries.len()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Heavy kernels have a file for each schedule; the others serve any.
fn schedules(entry: &Entry) -> Vec<&'static str> {
    let has = |end: &str| entry.shaders().iter().any(|shader| shader.ends_with(end));
    match (has("_gpu"), has("_matrix")) {
        (true, true) => vec!["software", "gpu", "matrix"],
        (true, false) => vec!["software", "gpu"],
        _ => vec!["any"],
    }
}

fn emit(entry: &Entry, language: &str, folder: Option<&Path>) -> Result<ExitCode> {
    let mut texts = BTreeMap::new();
    for schedule in Schedule::ALL {
        let gpu = Gpu::with(GpuOptions { schedule: Some(schedule), ..GpuOptions::from_env()? })?;
        for sample in (entry.samples)() {
            // Only the shaders that the samples build are wanted; `wgrad doctor` judges the
            // results.
            if let Err(error) = gradcheck_sample(&gpu, sample, 1) {
                log::warn!("{}: {error}", entry.name);
            }
        }
        let shaders = entry.shaders();
        let own = |kernel: &str| shaders.contains(&kernel);
        texts.extend(
            gpu.built_shaders()
                .into_iter()
                .filter(|s| own(s.kernel.as_str()))
                .map(|s| (format!("{} {}", s.kernel, s.variant).trim().to_string(), s.native)),
        );
    }
    let (language, extension) = match language {
        "spirv" => (Some(Language::Spirv), "spv"),
        "msl" => (Some(Language::Msl), "metal"),
        "hlsl" => (Some(Language::Hlsl), "hlsl"),
        "glsl" => (Some(Language::Glsl), "comp"),
        _ => (None, "wgsl"),
    };
    for (index, (name, text)) in texts.iter().enumerate() {
        let translated = language.map(|language| translate(name, text, language)).transpose()?;
        let mut bytes = if language == Some(Language::Spirv) { Vec::new() } else { format!("// {name}\n").into_bytes() };
        bytes.extend(translated.unwrap_or_else(|| text.clone().into_bytes()));
        match folder {
            Some(folder) => {
                make_folder(folder)?;
                let path = folder.join(format!("{}-{index}.{extension}", entry.name));
                write_atomically(&path, &bytes)?;
                say(format!("{}: {name}", path.display()))?;
            }
            None => write(&bytes)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

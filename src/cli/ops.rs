//! `wgrad ops`: the registry.

use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use super::table::Table;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Language, translate};
use crate::ops::gradcheck::gradcheck_sample;
use crate::ops::registry::{Entry, find, registry};

/// List the operators, or print what one's shaders become
#[derive(clap::Args)]
pub(super) struct Ops {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the shaders of OPERATOR in this language
    #[arg(long, value_name = "LANGUAGE", requires = "operator", value_parser = ["wgsl", "spirv", "msl", "hlsl", "glsl"])]
    emit: Option<String>,
    /// An operator's name
    operator: Option<String>,
}

impl Ops {
    pub(super) fn run(self) -> Result<ExitCode> {
        let entries: Vec<Entry> = match &self.operator {
            None => registry(),
            Some(name) => vec![find(name).ok_or_else(|| Error::argument("ops", format!("there is no operator \"{name}\"; `wgrad ops` lists them")))?],
        };
        if let (Some(language), Some(entry)) = (&self.emit, entries.first()) {
            return emit(entry, language);
        }
        if self.json {
            let list: Vec<_> = entries.iter().map(|e| json!({ "name": e.name, "family": e.family, "inputs": e.inputs, "outputs": e.outputs, "shaders": e.shaders, "schedules": schedules(e) })).collect();
            println!("{:#}", json!(list));
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new(&["operator", "family", "schedules", "inputs", "shaders"]);
        for entry in &entries {
            table.row(&[entry.name.into(), entry.family.into(), schedules(entry).join(", "), entry.inputs.join(", "), entry.shaders.join(", ")]);
        }
        print!("{table}");
        println!("{} operators", entries.len());
        Ok(ExitCode::SUCCESS)
    }
}

/// Heavy kernels have a file for each schedule.
fn schedules(entry: &Entry) -> Vec<&'static str> {
    let has = |suffix: &str| entry.shaders.iter().any(|s| s.ends_with(suffix));
    if has("_simd") { vec!["cpu", "simd"] } else { vec!["one"] }
}

fn emit(entry: &Entry, language: &str) -> Result<ExitCode> {
    let gpu = Gpu::new()?;
    for sample in (entry.samples)() {
        // Only the shaders that the samples build are wanted; `wgrad doctor` judges the results.
        let _ = gradcheck_sample(&gpu, sample, 1);
    }
    let mut out = std::io::stdout().lock();
    for shader in gpu.built_shaders().iter().filter(|s| entry.shaders.contains(&s.kernel.as_str())) {
        let name = format!("{} {}", shader.kernel, shader.variant);
        let written = match language {
            "spirv" => translate(&name, &shader.native, Language::Spirv)?,
            "msl" => translate(&name, &shader.native, Language::Msl)?,
            "hlsl" => translate(&name, &shader.native, Language::Hlsl)?,
            "glsl" => translate(&name, &shader.native, Language::Glsl)?,
            _ => shader.native.clone().into_bytes(),
        };
        let head = if language == "spirv" { String::new() } else { format!("// {}\n", name.trim()) };
        let attempt = out.write_all(head.as_bytes()).and_then(|()| out.write_all(&written));
        attempt.map_err(|e| Error::io(std::path::Path::new("stdout"), &e))?;
    }
    Ok(ExitCode::SUCCESS)
}

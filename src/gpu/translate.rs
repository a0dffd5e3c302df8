//! What a shader becomes on each back end, by naga, with the options that wgpu sets: for tests and
//! for `wgrad ops --emit`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, SubgroupOperationSet, ValidationFlags, Validator};

use super::template::{uses_half, uses_matrices, uses_subgroups};
use crate::error::{Error, Result};

/// A language that naga writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// Vulkan's binary.
    Spirv,
    /// Metal's.
    Msl,
    /// DirectX 12's.
    Hlsl,
    /// OpenGL's; one text an entry point.
    Glsl,
}

impl Language {
    /// All of them.
    pub const ALL: [Language; 4] = [Language::Spirv, Language::Msl, Language::Hlsl, Language::Glsl];
}

/// Why a feature that a text uses cannot be had in a language; `None` where it can.
pub fn untranslatable(text: &str, language: Language) -> Option<&'static str> {
    match language {
        Language::Glsl | Language::Hlsl if uses_matrices(text) => {
            Some("neither OpenGL nor DirectX 12 has cooperative matrices in naga's writers")
        }
        Language::Glsl if uses_half(text) => Some("OpenGL has no 16-bit floats in naga's writer"),
        _ => None,
    }
}

/// Translates WGSL; SPIR-V as little-endian words, the others as text.
///
/// # Errors
/// [`Error::Shader`] where the text does not parse or validate, or the writer refuses it.
pub fn translate(name: &str, text: &str, language: Language) -> Result<Vec<u8>> {
    // naga does not know the line that browsers demand.
    let text = text.replace("enable subgroups;\n", "");
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| Error::shader(name, e.emit_to_string(&text)))?;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities(&text));
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
    let info = validator.validate(&module).map_err(|e| Error::shader(name, e.emit_to_string(&text)))?;
    // Writers have panicked on valid modules; a panic here must not take the program down.
    let written = catch_unwind(AssertUnwindSafe(|| write(&module, &info, language)));
    match written {
        Ok(result) => result.map_err(|e| Error::shader(name, format!("{language:?}: {e}"))),
        Err(_) => Err(Error::shader(name, format!("{language:?}: the writer panicked"))),
    }
}

/// No more than the text may rely on.
fn capabilities(text: &str) -> Capabilities {
    let mut capabilities = Capabilities::IMMEDIATES;
    capabilities.set(Capabilities::SHADER_FLOAT16, uses_half(text));
    capabilities.set(Capabilities::SUBGROUP, uses_subgroups(text));
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, uses_matrices(text));
    capabilities
}

fn write(module: &naga::Module, info: &ModuleInfo, language: Language) -> std::result::Result<Vec<u8>, String> {
    match language {
        Language::Spirv => {
            let options = spv::Options { lang_version: (1, 3), ..Default::default() };
            let words = spv::write_vec(module, info, &options, None).map_err(|e| e.to_string())?;
            Ok(words.iter().flat_map(|w| w.to_le_bytes()).collect())
        }
        Language::Msl => {
            let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
            let (text, _) = msl::write_string(module, info, &options, &msl::PipelineOptions::default()).map_err(|e| e.to_string())?;
            Ok(text.into_bytes())
        }
        Language::Hlsl => {
            let target = hlsl::BindTarget { space: 1, ..Default::default() };
            let options = hlsl::Options {
                shader_model: hlsl::ShaderModel::V6_2,
                fake_missing_bindings: true,
                immediates_target: Some(target),
                special_constants_binding: Some(hlsl::BindTarget { space: 2, ..target }),
                ..Default::default()
            };
            let mut text = String::new();
            let pipeline = hlsl::PipelineOptions { entry_point: None };
            hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| e.to_string())?;
            Ok(text.into_bytes())
        }
        Language::Glsl => {
            let mut all = String::new();
            for entry in &module.entry_points {
                let options = glsl::Options { version: glsl::Version::Desktop(450), ..Default::default() };
                let pipeline = glsl::PipelineOptions { shader_stage: entry.stage, entry_point: entry.name.clone(), multiview: None };
                let mut writer =
                    glsl::Writer::new(&mut all, module, info, &options, &pipeline, Default::default()).map_err(|e| e.to_string())?;
                writer.write().map_err(|e| e.to_string())?;
            }
            Ok(all.into_bytes())
        }
    }
}

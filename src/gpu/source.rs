//! A kernel's text as it is read: its IR, and the lines of its author that places in it come from.

use naga::Module;
use naga::valid::ModuleInfo;

use super::bounds::{on_large_stack, read};
use super::fault::Fault;
use super::kernel::Kernel;
use super::launch::Interface;
use super::reflection::reflect;
use super::template::{Defines, Target, Templates};
use crate::error::{Error, Result};

/// A kernel's text, read without a device.
pub(crate) struct Source {
    name: String,
    text: String,
    /// What was read: lines stand behind marks that say whose they are.
    marked: String,
    /// What it says.
    pub module: Module,
    /// The types of its expressions.
    pub info: ModuleInfo,
}

impl Source {
    /// Reads a kernel with constants of its template, as the command line gives them.
    ///
    /// # Errors
    /// [`Error::Shader`] with the line, where it is no WGSL, or takes too much to read.
    pub(crate) fn read(kernel: &Kernel, defines: &[(String, String)]) -> Result<Self> {
        let (name, text) = (kernel.name().to_string(), kernel.text().to_string());
        let number = |value: &String| value.parse::<i64>().map_or_else(|_| minijinja::Value::from(value.clone()), minijinja::Value::from);
        let defines: Defines = defines.iter().map(|(name, value)| (name.clone(), number(value))).collect();
        // Within the limits of text from outside; then once more, with marks.
        Templates::new()?.render_outside(&name, &text, &defines, Target::Native)?;
        let marked = Templates::marked(&name, &text, &defines, Target::Native)?;
        let features = wgpu::Features::IMMEDIATES | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        let found = on_large_stack(&name, || Ok(read(&marked, Some(features))))?;
        match found {
            Ok((module, Some(info))) => Ok(Self { name, text, marked, module, info }),
            Ok((_, None)) => Err(Error::shader(name, "was read without its types")),
            Err(fault) => {
                let message = fault.located(&marked, &Templates::files(&name, &text));
                Err(Error::shader(name, message))
            }
        }
    }

    /// What it declares.
    ///
    /// # Errors
    /// [`Error::Shader`] for what no launch can bind; an entry point that is not there.
    pub(crate) fn interface(&self, entry: &str) -> Result<Interface> {
        Interface::of(&self.name, &reflect(&self.name, &self.module)?, entry)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The line that a place comes from, as compilers name it: below the one before.
    pub(crate) fn place(&self, span: naga::Span, label: &str) -> String {
        let Some(range) = span.to_range() else { return String::new() };
        Fault::new(String::new(), range.start, label).located(&self.marked, &Templates::files(&self.name, &self.text))
    }
}

//! What is refused before anything is recorded: what a driver would refuse, by name, or run wrong.

use super::super::binding::{Binding, Storage};
use super::super::kernel::Pipeline;
use super::super::pool::ALIGNMENT;
use super::super::reflection::{BindingInfo, Element};
use super::super::scalar::Param;
use super::Launch;
use crate::error::{Error, Result};

impl Launch<'_> {
    pub(super) fn check_bindings(&self, pipeline: &Pipeline) -> Result<()> {
        let (declared, given) = (&pipeline.reflection.bindings, &self.bindings);
        let name = self.kernel.name();
        if declared.len() != given.len() {
            let names: Vec<&str> = declared.iter().map(|d| d.name.as_str()).collect();
            return Err(Error::shader(
                name,
                format!("{} buffers were bound, the text declares {} ({})", given.len(), declared.len(), names.join(", ")),
            ));
        }
        let caps = self.gpu.capabilities();
        if given.len() > caps.max_storage_buffers as usize {
            return Err(self.limit(format!("{} storage buffers exceed the limit of {}", given.len(), caps.max_storage_buffers)));
        }
        for (BindingInfo { name: binding, writable, element, bytes }, (index, (bound, write))) in
            declared.iter().zip(given.iter().enumerate())
        {
            if writable != write {
                let words = |w: bool| if w { "written" } else { "only read" };
                return Err(Error::shader(
                    name,
                    format!("{binding} is bound to be {}, but the text declares it to be {}", words(*write), words(*writable)),
                ));
            }
            let fits = match element {
                Element::F32 => bound.storage == Storage::F32,
                Element::F16 => bound.storage == Storage::F16,
                Element::I32 | Element::U32 => bound.storage == Storage::I32,
                Element::Opaque => true,
            };
            if !fits {
                return Err(Error::dtype(name, format!("{binding} is declared as {element:?}, a tensor of {:?} was bound", bound.storage)));
            }
            self.check_size(binding, index)?;
            if bound.offset % ALIGNMENT != 0 || bound.offset + bound.bytes > bound.buffer.bytes() {
                return Err(Error::shader(name, format!("{binding} lies outside its buffer")));
            }
            if bound.size() < *bytes {
                return Err(Error::shader(name, format!("{binding} is declared with {bytes} bytes at least, {} were bound", bound.bytes)));
            }
        }
        self.check_memory(|index| declared.get(index).map_or_else(String::new, |info| info.name.clone()))
    }

    /// Refuses memory of another device, and memory that one binding writes and another uses as
    /// well. WebGPU forbids to read and write one buffer in a dispatch, whatever the ranges, and to
    /// write a range twice: which invocation would come first, nobody knows.
    pub(super) fn check_memory(&self, name: impl Fn(usize) -> String) -> Result<()> {
        for (index, (bound, writes)) in self.bindings.iter().enumerate() {
            if !self.gpu.owns(bound) {
                let message = format!("{} lives on another device than the launch; read it back and upload it to this one", name(index));
                return Err(Error::argument(self.kernel.name(), message));
            }
            let clashes = |(other, also): &(Binding, bool)| match (*writes, *also) {
                (false, false) => false,
                (true, true) => bound.overlaps(other),
                _ => bound.buffer.id() == other.buffer.id(),
            };
            if let Some(earlier) = self.bindings.iter().take(index).position(clashes) {
                let written = |at: usize| self.bindings.get(at).is_some_and(|(_, write)| *write);
                let words = |at: usize| format!("{} ({})", name(at), if written(at) { "written" } else { "only read" });
                let message = format!(
                    "{} and {} are bound to the same memory; give one of them a copy (Tensor::copy), or declare a single read_write binding",
                    words(earlier),
                    words(index)
                );
                return Err(Error::argument(self.kernel.name(), message));
            }
        }
        Ok(())
    }

    /// Refuses what is too large to bind, with the remedy that there is.
    pub(super) fn check_size(&self, name: &str, index: usize) -> Result<()> {
        let most = self.gpu.capabilities().max_binding_bytes;
        let (bytes, rows) =
            (self.bindings.get(index).map_or(0, |(b, _)| b.bytes), self.rows.get(index).copied().unwrap_or(1).max(1) as u64);
        if bytes <= most {
            return Ok(());
        }
        let remedy = match most / (bytes / rows).max(1) {
            0 => "a smaller batch does not help, because one index of its axis 0 is too large by itself: use smaller images or fewer features"
                .to_string(),
            fit => format!("use a smaller batch: its axis 0 has {rows} indices, and {fit} fit"),
        };
        Err(self.limit(format!("{name} of {bytes} bytes exceeds the largest binding of {most} bytes; {remedy}")))
    }

    /// No kernel of the crate walks a way that nobody has measured.
    pub(super) fn check_walk(&self, loops: bool) -> Result<()> {
        match self.walk {
            Some(rounds) => self.gpu.capabilities().check_walk(self.kernel.name(), rounds),
            None if loops && self.kernel.is_own() => {
                let message = format!("{} has a loop, and its launch does not say how far it walks (Launch::walk)", self.entry);
                Err(Error::shader(self.kernel.name(), message))
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_params(&self, pipeline: &Pipeline) -> Result<()> {
        let declared = &pipeline.reflection.params;
        let wrong = |message: String| Err(Error::shader(self.kernel.name(), message));
        if declared.len() != self.params.len() {
            return wrong(format!("{} parameters were given, the text declares {}", self.params.len(), declared.len()));
        }
        for ((name, scalar), param) in declared.iter().zip(&self.params) {
            if param.kind() != *scalar {
                return wrong(format!("parameter {name} is declared as {scalar:?}, {param:?} was given"));
            }
        }
        Ok(())
    }

    /// Refuses numbers that the kernel cannot be told.
    pub(super) fn check_fits(&self) -> Result<()> {
        let too_large = |param: &Param| if let Param::TooLarge(number, kind) = param { Some((*number, *kind)) } else { None };
        match self.params.iter().enumerate().find_map(|(index, param)| Some((index, too_large(param)?))) {
            Some((index, (number, kind))) => {
                Err(self.limit(format!("parameter {index} is {number}, which {kind:?} cannot hold; use smaller sizes")))
            }
            None => Ok(()),
        }
    }
}

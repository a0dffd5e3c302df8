//! Weights of a model in a file: state_dict names, PyTorch's layouts.

use std::path::Path;

use super::{Parameter, Parameters, Role, Slot};
use crate::error::{Error, Result};
use crate::io::layout::Layout;
use crate::io::{Archive, HostTensor};
use crate::tensor::Shape;

/// What loading found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Tensors of the model that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the model lacks.
    pub extra: Vec<String>,
}

fn layout(slot: &Slot) -> Layout {
    match slot.role {
        Role::Value(kind) => kind.layout(),
        Role::Statistic => Layout::Plain,
    }
}

/// The state of a model in order: names and shapes as PyTorch would list them, counters included.
///
/// # Errors
/// A weight whose shape does not fit its kind.
pub fn state(params: &Parameters) -> Result<Vec<(String, Shape)>> {
    let slots = params.slots();
    let counters = params.counters();
    let mut list = Vec::new();
    for index in 0..=slots.len() {
        list.extend(counters.iter().filter(|(at, ..)| *at == index).map(|(_, name, _)| (name.clone(), Shape::default())));
        if let Some(slot) = slots.get(index) {
            list.push((slot.name.clone(), layout(slot).file_shape(&slot.shape)?));
        }
    }
    Ok(list)
}

/// Reads every parameter, statistic and counter to the host, in PyTorch's layouts.
///
/// # Errors
/// A lost device.
pub fn to_archive(params: &Parameters) -> Result<Archive> {
    let mut archive = Archive::default();
    // All reads are recorded before the first is waited for: one submission and not one for each parameter.
    let read = |parameter: Parameter| Ok((parameter.slot()?, parameter.plain()?.read_later()?));
    for (slot, read) in params.all().into_iter().map(read).collect::<Result<Vec<_>>>()? {
        let layout = layout(&slot);
        let data = layout.to_file(&bytemuck::pod_collect_to_vec::<u8, f32>(&read.wait()?), &slot.shape)?;
        archive.insert(&slot.name, HostTensor::F32(layout.file_shape(&slot.shape)?, data));
    }
    for (_, name, count) in params.counters() {
        archive.insert(name, HostTensor::I64(Shape::default(), vec![i64::try_from(count).unwrap_or(i64::MAX)]));
    }
    Ok(archive)
}

/// Writes the weights as safetensors, atomically.
///
/// # Errors
/// A lost device; [`Error::Io`].
pub fn save(params: &Parameters, path: &Path) -> Result<()> {
    to_archive(params)?.save(path)
}

/// Fills the model from a file's tensors. Nothing is changed where a shape is wrong.
///
/// # Errors
/// [`Error::Data`] naming the tensor and both shapes where one does not fit.
pub fn from_archive(params: &Parameters, archive: &Archive, source: &str) -> Result<LoadReport> {
    let mut report = LoadReport::default();
    let mut ready = Vec::new();
    for parameter in params.all() {
        let slot = parameter.slot()?;
        let layout = layout(&slot);
        let expected = layout.file_shape(&slot.shape)?;
        match archive.tensors.get(&slot.name) {
            None => report.missing.push(slot.name),
            Some(HostTensor::F32(shape, data)) if *shape == expected => ready.push((parameter, layout.to_engine(data, shape)?)),
            Some(other) => {
                return Err(Error::data(
                    source,
                    format!("tensor \"{}\" has shape {}, the model's has {expected}", slot.name, other.shape()),
                ));
            }
        }
    }
    for (parameter, data) in ready {
        parameter.plain()?.write(&data)?;
    }
    let counters: Vec<String> = params.counters().into_iter().map(|(_, name, _)| name).collect();
    for (name, tensor) in &archive.tensors {
        match tensor {
            HostTensor::I64(_, values) if counters.contains(name) => {
                params.set_counter(name, values.first().and_then(|v| u64::try_from(*v).ok()).unwrap_or(0));
            }
            _ if params.get(name).is_none() => report.extra.push(name.clone()),
            _ => {}
        }
    }
    Ok(report)
}

/// Fills the model from a safetensors file.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`] as [`Archive::load`] and [`from_archive`]; a missing or extra tensor, by name.
pub fn load(params: &Parameters, path: &Path) -> Result<()> {
    let source = path.display().to_string();
    let report = from_archive(params, &Archive::load(path)?, &source)?;
    if report == LoadReport::default() {
        return Ok(());
    }
    let list = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
    Err(Error::data(
        source,
        format!("does not fit the model; missing: {}; not in the model: {}", list(&report.missing), list(&report.extra)),
    ))
}

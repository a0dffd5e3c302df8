//! Weights of a model in a file: state_dict names, PyTorch's layouts.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::{Parameter, ParameterSlot, Parameters, Role};
use crate::error::{Error, Result};
use crate::gpu::Pending;
use crate::io::layout::Layout;
use crate::io::{Archive, HostTensor, open_weights, prefix};
use crate::tensor::Shape;

/// What loading found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Tensors of the model that the file lacks. Counters are never missing, they stay as they are:
    /// files from before PyTorch 0.4.1 have none.
    pub missing: Vec<String>,
    /// Tensors of the file that the model lacks.
    pub extra: Vec<String>,
    /// Tensors of a head for another number of classes, which kept their initial values.
    pub replaced: Vec<String>,
}

fn layout(slot: &ParameterSlot) -> Layout {
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

/// Every parameter and statistic on its way to the host. All reads are recorded before the first is
/// waited for: one submission and not one for each parameter.
fn read_later(params: &Parameters) -> Result<Vec<(ParameterSlot, Pending<Vec<f32>>)>> {
    let read = |parameter: Parameter| Ok((parameter.slot()?, parameter.detach()?.to_vec_later()?));
    params.all().into_iter().map(read).collect()
}

/// Adds what was read, in PyTorch's layout.
fn insert(archive: &mut Archive, slot: &ParameterSlot, values: &[f32]) -> Result<()> {
    let layout = layout(slot);
    let data = layout.to_file(values, &slot.shape)?;
    archive.insert(&slot.name, HostTensor::F32(layout.file_shape(&slot.shape)?, data));
    Ok(())
}

/// An archive of the counters alone, which the host has.
fn counters(params: &Parameters) -> Archive {
    let mut archive = Archive::default();
    for (_, name, count) in params.counters() {
        archive.insert(name, HostTensor::I64(Shape::default(), vec![i64::try_from(count).unwrap_or(i64::MAX)]));
    }
    archive
}

/// Reads every parameter, statistic and counter to the host, in PyTorch's layouts. Waits for the
/// device.
///
/// # Errors
/// A lost device.
pub fn to_archive(params: &Parameters) -> Result<Archive> {
    let mut archive = counters(params);
    for (slot, values) in read_later(params)? {
        insert(&mut archive, &slot, &values.wait()?)?;
    }
    Ok(archive)
}

/// [`to_archive`] without blocking.
///
/// # Errors
/// As [`to_archive`].
pub async fn to_archive_async(params: &Parameters) -> Result<Archive> {
    let mut archive = counters(params);
    for (slot, values) in read_later(params)? {
        insert(&mut archive, &slot, &values.await?)?;
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

/// What a file would change in a model, and what of it would not fit.
#[derive(Default)]
struct Plan {
    report: LoadReport,
    values: Vec<(Parameter, Vec<f32>)>,
    counts: Vec<(String, u64)>,
    /// A line for each tensor of another shape or type.
    wrong: Vec<String>,
    /// Those that would fit, and hold NaN or infinity.
    not_finite: NotFinite,
}

impl Plan {
    fn new(params: &Parameters, archive: &Archive, head: &[&str]) -> Result<Self> {
        let mut plan = Self::default();
        for parameter in params.all() {
            let slot = parameter.slot()?;
            let layout = layout(&slot);
            let expected = layout.file_shape(&slot.shape)?;
            match archive.tensors.get(&slot.name) {
                None => plan.report.missing.push(slot.name),
                Some(HostTensor::F32(shape, data)) if *shape == expected => {
                    plan.not_finite.look_at(&slot.name, data);
                    plan.values.push((parameter, layout.to_engine(data, shape)?));
                }
                Some(HostTensor::F32(shape, _)) if head.contains(&slot.name.as_str()) && differ_in_classes(shape, &expected) => {
                    plan.report.replaced.push(slot.name);
                }
                Some(other) => plan.wrong.push(wrong(&slot.name, other, "F32", &expected)),
            }
        }
        let counters: HashSet<String> = params.counters().into_iter().map(|(_, name, _)| name).collect();
        for (name, tensor) in &archive.tensors {
            match tensor {
                HostTensor::I64(_, values) if counters.contains(name) && values.len() == 1 => {
                    plan.counts.push((name.clone(), values.first().and_then(|v| u64::try_from(*v).ok()).unwrap_or(0)));
                }
                other if counters.contains(name) => plan.wrong.push(wrong(name, other, "I64", &Shape::default())),
                _ if params.get(name).is_none() => plan.report.extra.push(name.clone()),
                _ => {}
            }
        }
        Ok(plan)
    }

    fn apply(self, params: &Parameters, source: &str) -> Result<LoadReport> {
        self.not_finite.check(source)?;
        for (parameter, data) in self.values {
            parameter.detach()?.write(&data)?;
        }
        for (name, count) in self.counts {
            params.set_counter(&name, count);
        }
        Ok(self.report)
    }

    /// The error that names every tensor that does not fit.
    fn error(&self, params: &Parameters, archive: &Archive, source: &str) -> Error {
        let expected: HashMap<String, Shape> = state(params).unwrap_or_default().into_iter().collect();
        let missing = self.report.missing.iter().map(|name| (name, expected.get(name), "is missing"));
        let extra = self.report.extra.iter().map(|name| (name, archive.tensors.get(name).map(HostTensor::shape), "is not in the model"));
        let line =
            |(name, shape, what): (&String, Option<&Shape>, &str)| format!("\"{name}\" {} {what}", shape.cloned().unwrap_or_default());
        let lines: Vec<String> = self.wrong.iter().cloned().chain(missing.chain(extra).map(line)).collect();
        let prefix = prefix::shared(archive.tensors.keys());
        let known = |name: &str| expected.contains_key(name);
        let apart = !prefix.is_empty() && !archive.tensors.keys().any(|name| known(name));
        let note = if apart {
            format!(" (all names in the file begin with \"{prefix}\", the model's do not: rename them)")
        } else {
            String::new()
        };
        Error::data(source, format!("does not fit the model in {} tensors{note}:\n  {}", lines.len(), lines.join("\n  ")))
    }
}

/// Tensors that hold NaN or infinity: no network gives an answer with them, but many a kernel gives
/// something that looks like one.
#[derive(Default)]
pub(crate) struct NotFinite {
    tensors: usize,
    /// A few words for each of the first.
    first: Vec<String>,
}

impl NotFinite {
    /// So many are named.
    const NAMED: usize = 5;

    /// Counts what is not finite in a tensor.
    pub(crate) fn look_at(&mut self, name: &str, data: &[f32]) {
        let bad = data.iter().filter(|v| !v.is_finite()).count();
        if bad > 0 {
            self.tensors += 1;
            if self.first.len() < Self::NAMED {
                self.first.push(format!("\"{name}\" ({bad} of {} values)", data.len()));
            }
        }
    }

    /// # Errors
    /// [`Error::Data`] of `source` where there was any.
    pub(crate) fn check(&self, source: &str) -> Result<()> {
        if self.tensors == 0 {
            return Ok(());
        }
        let more = self.tensors - self.first.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let (count, plural) = (self.tensors, if self.tensors == 1 { "tensor holds" } else { "tensors hold" });
        let message = format!(
            "{count} {plural} NaN or infinity: {}{more}; the file is damaged or its training had diverged: take an earlier or another one",
            self.first.join(", ")
        );
        Err(Error::data(source, message))
    }
}

fn wrong(name: &str, found: &HostTensor, dtype: &str, expected: &Shape) -> String {
    format!("\"{name}\" has shape {} of {}, the model's has {expected} of {dtype}", found.shape(), found.dtype())
}

/// Whether two shapes differ in the first axis only: in a head, the number of classes.
fn differ_in_classes(a: &Shape, b: &Shape) -> bool {
    matches!((a.split_first(), b.split_first()), (Some((_, a)), Some((_, b))) if a == b)
}

/// Fills the model from a file's tensors, of which some may be missing, and some more. Nothing is
/// changed where one does not fit.
///
/// # Errors
/// [`Error::Data`] naming every tensor of another shape or type, with both, and those that are
/// missing or extra; or the first that hold NaN or infinity.
pub fn from_archive(params: &Parameters, archive: &Archive, source: &str) -> Result<LoadReport> {
    let plan = Plan::new(params, archive, &[])?;
    if plan.wrong.is_empty() { plan.apply(params, source) } else { Err(plan.error(params, archive, source)) }
}

/// Fills the model from a file's tensors, which must be all that the model has, and no more. Those
/// named in `head` may differ in the first axis, which counts classes: they keep their initial
/// values, and the report names them as replaced.
///
/// # Errors
/// [`Error::Data`] naming every tensor that is missing, extra, or of another shape or type, with
/// both; or the first that hold NaN or infinity. Nothing was changed then.
pub fn fill(params: &Parameters, archive: &Archive, source: &str, head: &[&str]) -> Result<LoadReport> {
    let plan = Plan::new(params, archive, head)?;
    let fits = plan.wrong.is_empty() && plan.report.missing.is_empty() && plan.report.extra.is_empty();
    if fits { plan.apply(params, source) } else { Err(plan.error(params, archive, source)) }
}

/// Fills the model from a weights file: see [`open_weights`] and [`fill`].
///
/// # Errors
/// Theirs.
pub fn load(params: &Parameters, path: &Path) -> Result<()> {
    fill(params, &open_weights(path)?, &path.display().to_string(), &[]).map(drop)
}

//! PyTorch's own files of plain tensors, read and never run.
//!
//! Since 1.6, torch.save writes a zip file: `data.pkl`, a pickle of the dictionary, whose tensors
//! are views of storages, and a file `data/KEY` for each storage. Before that it wrote four pickles
//! (a mark, a version, the machine, the dictionary), a fifth with the storages' keys, and then each
//! storage behind its count of elements (`torch/serialization.py`, `_legacy_save`).

use std::collections::{BTreeMap, HashMap};

use super::element::{Element, View};
use super::pickle::{Id, Object, Pickle};
use super::{Archive, zip};
use crate::error::{Error, Result};

/// How every zip file starts.
pub(super) const ZIP: &[u8] = b"PK";
/// How every older file starts: a pickle of the number 0x1950a86a20f9469cfc6c.
pub(super) const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Entries that hold the weights in the checkpoints of training programs: as
/// `timm.models.load_state_dict` looks for them, then those of PyTorch's tutorials. One may lie in
/// another.
const WRAPPERS: [&str; 6] = ["state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net"];
const MOST_WRAPPERS: usize = 4;

/// PyTorch's own limit.
const MOST_AXES: usize = 64;

type Storages<'a> = HashMap<&'a str, &'a [u8]>;

/// Reads the contents of a file, which errors call `source`.
pub(super) fn parse(file: &[u8], source: &str) -> Result<Archive> {
    let read = || {
        let (pickle, storages) = if file.starts_with(ZIP) { zipped(file)? } else { legacy(file)? };
        tensors(&pickle, &storages, file.len())
    };
    read().map_err(|message: String| Error::data(source, message))
}

fn zipped(file: &[u8]) -> Result<(Pickle<'_>, Storages<'_>), String> {
    let entries = zip::entries(file)?;
    let pickles = entries.iter().filter_map(|(name, bytes)| Some((name.strip_suffix("data.pkl")?, *bytes)));
    let pickles: Vec<_> = pickles.filter(|(folder, _)| folder.is_empty() || folder.ends_with('/')).collect();
    let [(folder, bytes)] = pickles.as_slice() else {
        return Err(format!("is a zip file, but not one of torch.save: it has {} entries called data.pkl, expected 1", pickles.len()));
    };
    let inside = || entries.iter().filter_map(|(name, bytes)| Some((name.strip_prefix(folder)?, *bytes)));
    if let Some((_, order)) = inside().find(|(name, order)| *name == "byteorder" && *order != b"little") {
        return Err(format!("has the byte order \"{}\", expected \"little\"", String::from_utf8_lossy(order.get(..20).unwrap_or(order))));
    }
    let storages = inside().filter_map(|(name, bytes)| Some((name.strip_prefix("data/")?, bytes))).collect();
    Ok((Pickle::read(bytes)?.0, storages))
}

fn legacy(file: &[u8]) -> Result<(Pickle<'_>, Storages<'_>), String> {
    let (_, rest) = Pickle::read(file)?;
    let (_, rest) = Pickle::read(rest)?;
    let (machine, rest) = Pickle::read(rest)?;
    if let Some(Object::Bool(false)) = machine.entry(machine.root(), "little_endian") {
        return Err("was written on a big-endian machine; only little-endian files are read".into());
    }
    let (pickle, rest) = Pickle::read(rest)?;
    let (keys, mut rest) = Pickle::read(rest)?;
    let sizes: HashMap<&str, usize> = pickle
        .objects()
        .iter()
        .filter_map(|o| if let Object::Outside(name) = o { Storage::of(&pickle, *name).ok() } else { None })
        .map(|storage| (storage.key, storage.element.bytes()))
        .collect();
    let Object::Sequence(keys_in_order) = keys.root() else { return Err("is damaged: its list of storages is none".into()) };
    let mut storages = HashMap::new();
    for key in keys_in_order {
        let next = || {
            let Object::Text(key) = keys.get(*key) else { return None };
            let (count, rest) = rest.split_first_chunk()?;
            let bytes = usize::try_from(i64::from_le_bytes(*count)).ok()?.checked_mul(*sizes.get(key)?)?;
            Some((*key, rest.split_at_checked(bytes)?))
        };
        let (key, (bytes, behind)) = next().ok_or("is not complete: a storage is missing, or larger than what is left of the file")?;
        storages.insert(key, bytes);
        rest = behind;
    }
    Ok((pickle, storages))
}

/// A storage as the pickle names it.
struct Storage<'a> {
    element: Element,
    key: &'a str,
    elements: usize,
}

impl<'a> Storage<'a> {
    /// Of ("storage", type, key, device, elements); a sixth part, a view of a storage, is None in
    /// all files since PyTorch 0.4.
    fn of(pickle: &Pickle<'a>, name: Id) -> Result<Self, String> {
        let unknown = || "has a tensor whose storage is described in an unknown way".to_string();
        let Object::Sequence(parts) = pickle.get(name) else { return Err(unknown()) };
        let ([mark, kind, key, _, elements] | [mark, kind, key, _, elements, _]) = parts.as_slice() else { return Err(unknown()) };
        let (Object::Text("storage"), Object::Global(kind), Object::Text(key), Object::Int(elements)) =
            (pickle.get(*mark), pickle.get(*kind), pickle.get(*key), pickle.get(*elements))
        else {
            return Err(unknown());
        };
        if let [.., view] = parts.get(5..).unwrap_or_default()
            && *pickle.get(*view) != Object::Other
        {
            return Err(unknown());
        }
        let element = match *kind {
            "torch.DoubleStorage" => Element::F64,
            "torch.FloatStorage" => Element::F32,
            "torch.HalfStorage" => Element::F16,
            "torch.BFloat16Storage" => Element::BF16,
            "torch.LongStorage" => Element::I64,
            "torch.IntStorage" => Element::I32,
            "torch.ShortStorage" => Element::I16,
            "torch.CharStorage" => Element::I8,
            "torch.ByteStorage" | "torch.BoolStorage" => Element::U8,
            _ => return Err(unknown()),
        };
        Ok(Self { element, key, elements: usize::try_from(*elements).map_err(|_| unknown())? })
    }
}

/// The tensors of the weights' dictionary by name. Other entries are passed over.
fn tensors(pickle: &Pickle, storages: &Storages, bytes: usize) -> Result<Archive, String> {
    let inside =
        |outer: &&Object<'_>| WRAPPERS.iter().filter_map(|key| pickle.entry(outer, key)).find(|value| matches!(value, Object::Dict(_)));
    let wrapped = std::iter::successors(Some(pickle.root()), |outer| inside(outer)).take(MOST_WRAPPERS).last();
    let Some(Object::Dict(entries)) = wrapped else {
        return Err("holds no dictionary of tensors; save model.state_dict()".into());
    };
    let (mut found, mut left) = (BTreeMap::new(), bytes);
    for (key, value) in entries {
        let (Object::Text(name), Some(arguments)) = (pickle.get(*key), tensor_arguments(pickle, *value)) else { continue };
        let name = *name;
        let wrong = |message| format!("tensor \"{name}\" {message}");
        let (storage, view) = tensor(pickle, arguments).map_err(wrong)?;
        let stored = storages.get(storage.key).ok_or_else(|| wrong(format!("has no storage \"{}\"", storage.key)))?;
        if storage.elements.checked_mul(storage.element.bytes()) != Some(stored.len()) {
            return Err(wrong(format!("should have a storage of {} elements, it has {} bytes", storage.elements, stored.len())));
        }
        // Views of one storage are copied. More elements than the file has bytes are no weights but
        // an attack.
        left = left.checked_sub(view.elements()).ok_or_else(|| wrong("shows the same elements too often".into()))?;
        if found.insert(name.to_string(), storage.element.read(stored, &view)).is_some() {
            return Err(wrong("is there twice".into()));
        }
    }
    if found.is_empty() {
        let keys = entries.iter().take(10).filter_map(|(key, _)| if let Object::Text(t) = pickle.get(*key) { Some(*t) } else { None });
        return Err(format!("holds no tensors by name; its entries start with: {}", keys.collect::<Vec<_>>().join(", ")));
    }
    Ok(Archive { tensors: found, text: BTreeMap::new() })
}

/// What a tensor, or the tensor of a parameter, is rebuilt from; `None` of anything else.
fn tensor_arguments<'p>(pickle: &'p Pickle, value: Id) -> Option<&'p [Id]> {
    let arguments = |value: Id, function: &str| match pickle.get(value) {
        Object::Call(name, arguments) if *name == function => match pickle.get(*arguments) {
            Object::Sequence(arguments) => Some(arguments.as_slice()),
            _ => None,
        },
        _ => None,
    };
    let inner = arguments(value, "torch._utils._rebuild_parameter").and_then(|a| a.first().copied());
    arguments(inner.unwrap_or(value), "torch._utils._rebuild_tensor_v2")
}

/// Storage and view of (storage, offset, shape, strides, requires_grad, hooks).
fn tensor<'a>(pickle: &Pickle<'a>, arguments: &[Id]) -> Result<(Storage<'a>, View), String> {
    let unknown = || "is described in an unknown way".to_string();
    let [storage, offset, shape, strides, ..] = arguments else { return Err(unknown()) };
    let number = |id: &Id| match pickle.get(*id) {
        Object::Int(value) => usize::try_from(*value).map_err(|_| format!("has the size, stride or offset {value}")),
        _ => Err(unknown()),
    };
    let numbers = |id: &Id| match pickle.get(*id) {
        Object::Sequence(items) if items.len() <= MOST_AXES => items.iter().map(number).collect(),
        _ => Err(unknown()),
    };
    let Object::Outside(name) = pickle.get(*storage) else { return Err(unknown()) };
    let storage = Storage::of(pickle, *name)?;
    let view = View::new(numbers(shape)?, numbers(strides)?, number(offset)?, storage.elements)?;
    Ok((storage, view))
}

//! What naga reads from a kernel's text: its bindings, parameters, entry points and loops.

use super::adapter::IMMEDIATE_BYTES;
use super::walks;
use crate::error::{Error, Result};

/// The element type that a shader declares for a storage binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    I32,
    U32,
    /// A struct or something else that only the kernel's author understands.
    Opaque,
}

#[derive(Debug, Clone)]
pub(crate) struct BindingInfo {
    pub name: String,
    pub writable: bool,
    pub element: Element,
    /// The least that must be bound: one element of an array without a length, all of anything
    /// else.
    pub bytes: u64,
}

/// The type of one member of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// `u32`
    U32,
    /// `i32`
    I32,
    /// `f32`
    F32,
}

/// What naga reads from the text.
pub(crate) struct Reflection {
    pub bindings: Vec<BindingInfo>,
    /// The members of the parameters after `groups`, with their names.
    pub params: Vec<(String, ParamKind)>,
    pub has_params: bool,
    pub entries: Vec<(String, [u32; 3])>,
    /// Entry points that can reach a loop.
    pub looping: Vec<String>,
}

impl Reflection {
    /// Invocations of one of the entry point's workgroups.
    pub(super) fn invocations(&self, entry: &str) -> usize {
        let size = self.entries.iter().find(|(name, _)| name == entry).map_or(1, |(_, size)| size.iter().product::<u32>());
        size.max(1) as usize
    }
}

fn scalar(inner: &naga::TypeInner) -> Option<naga::Scalar> {
    match inner {
        naga::TypeInner::Scalar(s) | naga::TypeInner::Vector { scalar: s, .. } => Some(*s),
        _ => None,
    }
}

fn element(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Element {
    let inner = match module.types.get_handle(ty).map(|t| &t.inner) {
        Ok(naga::TypeInner::Array { base, .. }) => module.types.get_handle(*base).map(|t| &t.inner),
        other => other,
    };
    match inner.ok().and_then(scalar) {
        Some(naga::Scalar { kind: naga::ScalarKind::Float, width: 4 }) => Element::F32,
        Some(naga::Scalar { kind: naga::ScalarKind::Float, width: 2 }) => Element::F16,
        Some(naga::Scalar { kind: naga::ScalarKind::Sint, width: 4 }) => Element::I32,
        Some(naga::Scalar { kind: naga::ScalarKind::Uint, width: 4 }) => Element::U32,
        _ => Element::Opaque,
    }
}

/// What the text declares, if a launch can bind it.
pub(super) fn reflect(kernel: &str, module: &naga::Module) -> Result<Reflection> {
    let mut bindings: Vec<(u32, BindingInfo)> = Vec::new();
    let (mut params, mut has_params) = (Vec::new(), false);
    for (_, variable) in module.global_variables.iter() {
        let name = variable.name.clone().unwrap_or_default();
        match variable.space {
            naga::AddressSpace::Storage { access } => {
                let Some(at) = variable.binding.filter(|b| b.group == 0) else {
                    return Err(Error::shader(kernel, format!("storage buffer {name} must be in @group(0)")));
                };
                let writable = access.contains(naga::StorageAccess::STORE);
                let bytes = module.types.get_handle(variable.ty).map_or(0, |t| u64::from(t.inner.size(module.to_ctx())));
                bindings.push((at.binding, BindingInfo { name, writable, element: element(module, variable.ty), bytes }));
            }
            naga::AddressSpace::Uniform | naga::AddressSpace::Immediate => {
                has_params = true;
                params = param_list(kernel, module, variable.ty)?;
            }
            naga::AddressSpace::WorkGroup | naga::AddressSpace::Private => {}
            _ => return Err(Error::shader(kernel, format!("{name}: only storage buffers and `params` can be bound"))),
        }
    }
    bindings.sort_by_key(|(index, _)| *index);
    for (expected, (found, info)) in bindings.iter().enumerate() {
        if expected as u32 != *found {
            return Err(Error::shader(kernel, format!("bindings must count up from 0: {} is at {found}, expected {expected}", info.name)));
        }
    }
    let entries = module.entry_points.iter().map(|e| (e.name.clone(), e.workgroup_size)).collect();
    Ok(Reflection {
        bindings: bindings.into_iter().map(|(_, info)| info).collect(),
        params,
        has_params,
        entries,
        looping: walks::looping(module),
    })
}

fn param_list(kernel: &str, module: &naga::Module, ty: naga::Handle<naga::Type>) -> Result<Vec<(String, ParamKind)>> {
    let wrong = || Error::shader(kernel, "parameters must be a struct of u32, i32 and f32 that begins with `groups: u32`");
    let Ok(naga::Type { inner: naga::TypeInner::Struct { members, .. }, .. }) = module.types.get_handle(ty) else {
        return Err(wrong());
    };
    let mut list = Vec::new();
    for member in members {
        let kind = match module.types.get_handle(member.ty).map(|t| &t.inner) {
            Ok(naga::TypeInner::Scalar(s)) if s.width == 4 => match s.kind {
                naga::ScalarKind::Uint => ParamKind::U32,
                naga::ScalarKind::Sint => ParamKind::I32,
                naga::ScalarKind::Float => ParamKind::F32,
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        list.push((member.name.clone().unwrap_or_default(), kind));
    }
    if list.first().is_none_or(|(name, kind)| name != "groups" || *kind != ParamKind::U32) {
        return Err(wrong());
    }
    if list.len() * 4 > IMMEDIATE_BYTES as usize {
        return Err(Error::shader(
            kernel,
            format!("{} parameters exceed the {IMMEDIATE_BYTES} bytes that every adapter grants", list.len()),
        ));
    }
    list.remove(0);
    Ok(list)
}

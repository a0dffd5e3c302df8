//! A kernel from a file: WGSL as it is, or a template as wgrad's own are. It is built with bounds
//! checks.

use std::path::Path;

use super::arguments::{Bound, params};
use super::run::Gate;
use super::sampled::NO_REFERENCE;
use super::workload::{Prepared, Workload};
use crate::check::{self, Report};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Kernel, Launch, Param};
use crate::ops::Cost;
use crate::tensor::{DType, Tensor};

/// A kernel, and what it is to be run on.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Its text.
    pub text: String,
    /// Its name, for rows and errors.
    pub name: String,
    /// The entry point; the only one where none is named.
    pub entry: Option<String>,
    /// Constants of a template.
    pub defines: Vec<(String, String)>,
    /// Its buffers.
    pub bound: Vec<Bound>,
    /// Its parameters, as [`params`] reads them.
    pub params: String,
    /// Workgroups along x, y and z.
    pub grid: [u32; 3],
}

/// The text of a shader whose parameters are a uniform buffer, as wgrad passes parameters: a struct
/// that begins with the number of workgroups, in immediates where there are any.
fn with_params(text: &str, immediates: bool) -> String {
    const UNIFORM: &str = "var<uniform>";
    let Some((before, after)) = text.split_once(UNIFORM) else { return text.to_string() };
    // Templates declare theirs themselves.
    let Some(kind) = after.split_once(':').and_then(|(_, rest)| rest.split_once(';')).map(|(kind, _)| kind.trim().to_string()) else {
        return text.to_string();
    };
    let head = before.rfind(['}', ';']).map_or(0, |at| at + 1);
    let (kept, attributes) = before.split_at_checked(head).unwrap_or((before, ""));
    // Lines stay where they are: errors name them.
    let comments: Vec<&str> = attributes.split('\n').map(|l| if l.trim_start().starts_with('@') { "" } else { l }).collect();
    let comments = comments.join("\n");
    let place = if immediates { "var<immediate>" } else { "@group(1) @binding(0) var<uniform>" };
    let text = format!("{kept}{comments}{place}{after}");
    let declared = format!("struct {kind}");
    match text.split_once(&declared).and_then(|(a, rest)| Some((a, rest.split_once('{')?))) {
        Some((a, (space, members))) if space.trim().is_empty() => format!("{a}{declared} {{ groups: u32,{members}"),
        _ => text,
    }
}

/// The kernel of a file's text on this device.
pub fn kernel(gpu: &Gpu, name: &str, text: &str) -> Kernel {
    Kernel::new(name, with_params(text, gpu.capabilities().immediates))
}

/// Sets constants of a template as the command line gives them: whole numbers, or texts.
pub fn with_defines<'a>(launch: Launch<'a>, defines: &[(String, String)]) -> Launch<'a> {
    defines.iter().fold(launch, |launch, (name, value)| match value.parse::<i64>() {
        Ok(number) => launch.define(name, number),
        Err(_) => launch.define(name, value.clone()),
    })
}

/// The buffers of one run, in the order of the shader's bindings, and whether each is written.
type Buffers = Vec<(String, Tensor, bool)>;

/// A kernel built for a device.
struct Built {
    gpu: Gpu,
    kernel: Kernel,
    entry: String,
    defines: Vec<(String, String)>,
    params: Vec<Param>,
    grid: [u32; 3],
    buffers: Buffers,
}

impl Built {
    fn launch(&self) -> Result<Vec<Tensor>> {
        let mut launch = with_defines(Launch::new(&self.gpu, &self.kernel, &self.entry), &self.defines);
        for (_, tensor, written) in &self.buffers {
            launch = if *written { launch.write(tensor) } else { launch.read(tensor) };
        }
        launch.params(&self.params).grid(self.grid)?;
        Ok(self.buffers.iter().filter(|(_, _, written)| *written).map(|(_, tensor, _)| tensor.clone()).collect())
    }
}

impl User {
    /// The kernel in a file.
    ///
    /// # Errors
    /// [`Error::Io`]; a file that is not text.
    pub fn read(path: &Path) -> Result<(String, String)> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
        Ok((path.file_stem().map_or("kernel".into(), |name| name.to_string_lossy().into_owned()), text))
    }

    fn build(&self, gpu: &Gpu) -> Result<Built> {
        let kernel = kernel(gpu, &self.name, &self.text);
        let probe = with_defines(Launch::new(gpu, &kernel, self.entry.as_deref().unwrap_or_default()), &self.defines);
        let interface = probe.interface()?;
        let given: Vec<&str> = self.bound.iter().map(|b| b.name.as_str()).collect();
        let names: Vec<&str> = interface.bindings.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(unknown) = given.iter().find(|name| !names.contains(name)) {
            return Err(Error::argument("--bind", format!("{} has no buffer \"{unknown}\"; it has {}", self.name, names.join(", "))));
        }
        let buffers = interface.bindings.iter().map(|(name, written)| {
            let bound = self.bound.iter().find(|b| b.name == *name);
            let bound =
                bound.ok_or_else(|| Error::argument("--bind", format!("{name} is missing; {} has {}", self.name, names.join(", "))))?;
            Ok((name.clone(), bound.tensor(gpu)?, *written))
        });
        Ok(Built {
            gpu: gpu.clone(),
            params: params(&self.params, &interface.params)?,
            entry: interface.entry,
            defines: self.defines.clone(),
            grid: self.grid,
            buffers: buffers.collect::<Result<_>>()?,
            kernel,
        })
    }

    /// Runs it on the interpreter, which looks for what WGSL forbids.
    ///
    /// # Errors
    /// As [`check`].
    pub fn check(&self, options: check::Options) -> Result<Report> {
        let kernel = Kernel::new(&self.name, with_params(&self.text, true));
        let entry = self.entry.as_deref().unwrap_or_default();
        let interface = check::interface(&kernel, entry, &self.defines)?;
        let params = params(&self.params, &interface.params)?;
        let buffers = self.bound.iter().map(Bound::contents).collect();
        check::check(&kernel, &interface.entry, &self.defines, buffers, &params, self.grid, options)
    }

    /// The workload of it: `expect` is compared with on the same inputs.
    pub fn workload(self, expect: Option<User>, tolerance: f64, cost: Cost) -> Workload {
        let shape: Vec<String> = self.bound.iter().map(|b| format!("{} {}{}", b.name, b.dtype, b.shape)).collect();
        Workload::new("file", self.name.clone(), "file", shape.join(", "), move |gpu| {
            let built = self.build(gpu)?;
            let dtype = built.buffers.first().map_or(DType::F32, |(_, tensor, _)| tensor.dtype());
            let (own, other, given) = (self.clone(), expect.clone(), gpu.clone());
            Ok(Prepared {
                step: Box::new(move || built.launch()),
                gate: Box::new(move || gate(&given, &own, other.as_ref(), tolerance)),
                cost,
                dtype,
            })
        })
    }
}

/// Runs both once, each on buffers of its own, and compares what is written.
fn gate(gpu: &Gpu, own: &User, other: Option<&User>, tolerance: f64) -> Result<Gate> {
    let Some(other) = other else {
        return Ok(Gate { against: "nothing: no --expect was given".into(), ..Default::default() });
    };
    let (ours, theirs) = (own.build(gpu)?, other.build(gpu)?);
    ours.launch()?;
    theirs.launch()?;
    let mut worst = 0.0_f64;
    for (name, tensor, _) in ours.buffers.iter().filter(|(_, _, written)| *written) {
        let twin = theirs.buffers.iter().find(|(their, _, written)| their == name && *written);
        let (_, twin, _) = twin.ok_or_else(|| Error::argument("--expect", format!("{} writes no \"{name}\"", other.name)))?;
        let expected = twin.to_f64()?;
        if !expected.is_empty() && expected.iter().all(|v| *v == 0.0) {
            return Err(Error::argument("--expect", format!("{name} of {}: {NO_REFERENCE}", other.name)));
        }
        worst = worst.max(relative_error(&tensor.to_f64()?, &expected));
    }
    let against = format!("{}, every element of what is written; relative, {tolerance:.0e} allowed", other.name);
    Ok(Gate { passed: Some(worst <= tolerance), max_error: Some(worst), against })
}

/// The largest error, relative to the element expected, but to no less than a thousandth of the
/// largest: zero is not expected exactly.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let floor = (largest * 1e-3).max(f64::MIN_POSITIVE);
    let errors = found.iter().zip(expected).map(|(f, e)| if f == e { 0.0 } else { (f - e).abs() / e.abs().max(floor) });
    errors.fold(0.0, |worst, error| if error.is_nan() { f64::INFINITY } else { worst.max(error) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)]
    use super::*;

    #[test]
    fn errors_are_relative_and_nothing_hides_in_nan() {
        assert_eq!(relative_error(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        approx::assert_abs_diff_eq!(relative_error(&[1.01, 100.0], &[1.0, 100.0]), 0.01, epsilon = 1e-9);
        assert_eq!(relative_error(&[1e-9, 1.0], &[0.0, 1.0]), 1e-9 / 1e-3);
        assert_eq!(relative_error(&[f64::NAN], &[1.0]), f64::INFINITY);
    }

    #[test]
    fn uniform_parameters_become_those_that_wgrad_passes() {
        let text = "struct P { n: u32, scale: f32 }\n@group(0) @binding(2) var<uniform> p: P;\n@compute fn f() {}";
        let native = with_params(text, true);
        assert!(native.contains("struct P { groups: u32, n: u32, scale: f32 }"), "{native}");
        assert!(native.contains("var<immediate> p: P;") && !native.contains("@binding(2)"), "{native}");
        assert!(with_params(text, false).contains("@group(1) @binding(0) var<uniform> p: P;"));
        assert_eq!(with_params("@compute fn f() {}", true), "@compute fn f() {}");
    }
}

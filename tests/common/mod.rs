//! What the test programs share: a device, and the fields of reference files.
#![allow(dead_code)]

pub mod black;
pub mod filled;
pub mod group;
pub mod linear;
pub mod program;
pub mod samples;
pub mod teachers;
pub mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wgrad::gpu::{Gpu, GpuOptions, Schedule, Tuning};
use wgrad::ops::{Array, Attributes, attributes::Value};
use wgrad::tensor::{DType, Shape};

/// Whether an operator, a method or a case of this name is to be tried: all are, or those whose
/// name begins with one of `WGRAD_ONLY`'s words, commas between.
pub fn wanted(name: &str) -> bool {
    std::env::var("WGRAD_ONLY").map_or(true, |only| only.split(',').any(|word| name.starts_with(word)))
}

/// Options from the environment with poisoned memory: every test runs on buffers that were full of
/// NaN.
pub fn options() -> GpuOptions {
    GpuOptions { poison: true, ..GpuOptions::from_env().unwrap() }
}

/// The device of a test. Where there is no adapter the test fails, and says how to get one.
pub fn gpu() -> Gpu {
    Gpu::with(options()).unwrap_or_else(|error| panic!("{error}"))
}

/// A device of each schedule, that of cooperative matrices where the adapter has any.
pub fn gpus() -> Vec<(Schedule, Gpu)> {
    let device = |schedule| Gpu::with(GpuOptions { schedule: Some(schedule), ..options() });
    let mut gpus: Vec<_> = Schedule::ALL.into_iter().map(|s| (s, device(s).unwrap_or_else(|e| panic!("{e}")))).collect();
    match device(Schedule::Matrix) {
        Ok(gpu) => gpus.push((Schedule::Matrix, gpu)),
        Err(error) => println!("schedule matrix did not run: {error}"),
    }
    gpus
}

/// What `work` gives on a device of each schedule, on a thread each.
pub fn on_each_schedule<T: Send>(work: impl Fn(Schedule, &Gpu) -> Vec<T> + Sync) -> Vec<T> {
    let (gpus, work) = (gpus(), &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = gpus.iter().map(|(schedule, gpu)| scope.spawn(move || work(*schedule, gpu))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// A device of each schedule, and two whose tuning tables choose by chance: whatever kernels leave
/// to measurement must be right.
pub fn tuned_gpus() -> Vec<(String, Gpu)> {
    let random = |seed: u64| {
        let tuning = Some(Arc::new(Tuning::random(seed)));
        let gpu = Gpu::with(GpuOptions { tuning, schedule: None, ..options() }).unwrap_or_else(|e| panic!("{e}"));
        (format!("of random table {seed}"), gpu)
    };
    gpus().into_iter().map(|(schedule, gpu)| (schedule.to_string(), gpu)).chain([random(1), random(2)]).collect()
}

/// The folder of reference files: from the environment, else the one in the tree.
pub fn folder(variable: &str, name: &str) -> PathBuf {
    std::env::var(variable).map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name), PathBuf::from)
}

/// The reference files of a folder that [`folder`] finds, in order, but for those that are not
/// [`wanted`].
pub fn reference_files(variable: &str, name: &str, extension: &str) -> Vec<PathBuf> {
    let folder = folder(variable, name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    assert!(!paths.is_empty(), "{} holds no case", folder.display());
    paths.retain(|p| wanted(&p.file_name().unwrap().to_string_lossy()));
    paths.sort();
    paths
}

/// One case of an operator.
pub struct Case {
    pub name: String,
    pub operator: String,
    pub attributes: Attributes,
    pub tensors: BTreeMap<String, Array>,
    /// PyTorch's own error in float32 of outputs and gradients, where the case is about precision:
    /// see [`relative_error`].
    pub float32: BTreeMap<String, f64>,
}

/// The root of the mean square of the differences, over that of the expected values.
pub fn relative_error(found: &Array, expected: &Array) -> f64 {
    let off: f64 = found.data.iter().zip(&expected.data).map(|(f, e)| (f - e).powi(2)).sum();
    (off / expected.data.iter().map(|e| e.powi(2)).sum::<f64>()).sqrt()
}

impl Case {
    pub fn read(path: &Path) -> Case {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let info = metadata.metadata().clone().unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let words = view.data().chunks_exact(4).map(|b| <[u8; 4]>::try_from(b).unwrap());
                let shape = Shape::from(view.shape());
                let array = match view.dtype() {
                    safetensors::Dtype::F32 => Array::new(shape, words.map(|b| f64::from(f32::from_le_bytes(b))).collect()),
                    safetensors::Dtype::I32 => Array::integers(shape, words.map(|b| f64::from(i32::from_le_bytes(b))).collect()),
                    other => panic!("{name}: unexpected type {other:?}"),
                };
                (name, array)
            })
            .collect();
        Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            operator: info["op"].clone(),
            attributes: attributes(&serde_json::from_str(&info["attrs"]).unwrap()),
            tensors,
            float32: info.get("float32").map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default(),
        }
    }

    /// The tensors whose name starts with `prefix`, without it.
    pub fn group(&self, prefix: &str) -> BTreeMap<&str, &Array> {
        self.tensors.iter().filter_map(|(name, a)| Some((name.strip_prefix(prefix)?, a))).collect()
    }
}

fn attributes(json: &serde_json::Value) -> Attributes {
    let number = |v: &serde_json::Value| v.as_f64().or(v.as_bool().map(|b| f64::from(u8::from(b)))).unwrap();
    let mut attributes = Attributes::new();
    for (name, value) in json.as_object().unwrap() {
        let value = match value {
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(list) => Value::List(list.iter().map(number).collect()),
            other => Value::Number(number(other)),
        };
        attributes.insert(name, value);
    }
    attributes
}

/// A 4-D image array from PyTorch's NCHW to NHWC.
pub fn to_nhwc(array: &Array) -> Array {
    let [n, c, h, w] = array.shape.array().unwrap();
    Array { dtype: array.dtype, ..Array::from_fn([n, h, w, c], |i| array.at(&[i[0], i[3], i[1], i[2]])) }
}

pub fn is_float(array: &Array) -> bool {
    array.dtype != DType::I32
}

/// The files in a folder and its folders, by name.
pub fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            names.extend(files(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    names
}

//! Named host tensors and text in one safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::atomic::{read, write_atomically};
use crate::error::{Error, Result};
use crate::tensor::Shape;

/// A tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub enum HostTensor {
    /// 32-bit floats.
    F32(Shape, Vec<f32>),
    /// 32-bit integers.
    I32(Shape, Vec<i32>),
    /// 64-bit integers: PyTorch's counters.
    I64(Shape, Vec<i64>),
}

impl HostTensor {
    /// The shape.
    pub fn shape(&self) -> &Shape {
        match self {
            HostTensor::F32(shape, _) | HostTensor::I32(shape, _) | HostTensor::I64(shape, _) => shape,
        }
    }

    fn view(&self) -> (Dtype, &[u8]) {
        match self {
            HostTensor::F32(_, data) => (Dtype::F32, bytemuck::cast_slice(data)),
            HostTensor::I32(_, data) => (Dtype::I32, bytemuck::cast_slice(data)),
            HostTensor::I64(_, data) => (Dtype::I64, bytemuck::cast_slice(data)),
        }
    }
}

/// The contents of one file: tensors in the order of their names, and text by key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Archive {
    /// Tensors by name.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Text by key (safetensors' `__metadata__`).
    pub text: BTreeMap<String, String>,
}

impl Archive {
    /// Adds a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: HostTensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path.
    pub fn save(&self, path: &Path) -> Result<()> {
        let wrong = |e: safetensors::SafeTensorError| Error::data(path.display().to_string(), e.to_string());
        let mut views = Vec::new();
        for (name, tensor) in &self.tensors {
            let (dtype, bytes) = tensor.view();
            views.push((name, TensorView::new(dtype, tensor.shape().to_vec(), bytes).map_err(wrong)?));
        }
        let text: HashMap<String, String> = self.text.clone().into_iter().collect();
        let bytes = safetensors::serialize(views, Some(text)).map_err(wrong)?;
        write_atomically(path, &bytes)
    }

    /// Reads a file. F16, BF16 and F64 tensors are read as F32.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read; [`Error::Data`] where it is truncated, corrupt, or holds a type that has no place here.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let name = path.display().to_string();
        let wrong = |e: safetensors::SafeTensorError| Error::data(name.as_str(), format!("is no complete safetensors file: {e}"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
        let file = SafeTensors::deserialize(&bytes).map_err(wrong)?;
        let mut archive = Archive { tensors: BTreeMap::new(), text: metadata.metadata().clone().unwrap_or_default().into_iter().collect() };
        for (key, view) in file.tensors() {
            let tensor = host_tensor(&view)
                .ok_or_else(|| Error::data(name.as_str(), format!("tensor \"{key}\" has the unsupported type {:?}", view.dtype())))?;
            archive.tensors.insert(key, tensor);
        }
        Ok(archive)
    }

    /// Text that must be there.
    ///
    /// # Errors
    /// [`Error::Data`] naming `source` and the key.
    pub fn require_text(&self, source: &Path, key: &str) -> Result<&str> {
        self.text
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| Error::data(source.display().to_string(), format!("lacks the entry \"{key}\"")))
    }
}

fn host_tensor(view: &TensorView) -> Option<HostTensor> {
    fn numbers<const N: usize, T>(view: &TensorView, f: impl Fn([u8; N]) -> T) -> Vec<T> {
        view.data().chunks_exact(N).filter_map(|b| b.try_into().ok()).map(f).collect()
    }
    let shape = Shape::from(view.shape());
    Some(match view.dtype() {
        Dtype::F32 => HostTensor::F32(shape, numbers(view, f32::from_le_bytes)),
        Dtype::F64 => HostTensor::F32(shape, numbers(view, |b| f64::from_le_bytes(b) as f32)),
        Dtype::F16 => HostTensor::F32(shape, numbers(view, |b| half::f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => HostTensor::F32(shape, numbers(view, |b| half::bf16::from_le_bytes(b).to_f32())),
        Dtype::I32 => HostTensor::I32(shape, numbers(view, i32::from_le_bytes)),
        Dtype::I64 => HostTensor::I64(shape, numbers(view, i64::from_le_bytes)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut archive = Archive::default();
        archive.insert("w", HostTensor::F32(Shape::from([2, 2]), vec![1.0, -2.5, f32::MIN_POSITIVE, 3.0e30]));
        archive.insert("n", HostTensor::I64(Shape::from([]), vec![7]));
        archive.text.insert("step".into(), "12".into());
        archive.save(&path).unwrap();
        assert_eq!(Archive::load(&path).unwrap(), archive);

        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(matches!(Archive::load(&path), Err(Error::Data { .. })), "{length} bytes were accepted");
        }
        assert!(matches!(Archive::load(&folder.path().join("missing")), Err(Error::Io { .. })));
    }
}

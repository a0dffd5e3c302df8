//! Named host tensors and text in one safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::atomic::{read, write_atomically};
use super::element::{Element, View};
use super::{checksum, header};
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
    /// Another type, by its name: listed, so that one that a model does not need is in nobody's
    /// way, but its contents are not read.
    Other(Shape, String),
}

impl HostTensor {
    /// The shape.
    pub fn shape(&self) -> &Shape {
        match self {
            HostTensor::F32(shape, _) | HostTensor::I32(shape, _) | HostTensor::I64(shape, _) | HostTensor::Other(shape, _) => shape,
        }
    }

    /// The type's name, as safetensors has it.
    pub fn dtype(&self) -> &str {
        match self {
            HostTensor::F32(..) => "F32",
            HostTensor::I32(..) => "I32",
            HostTensor::I64(..) => "I64",
            HostTensor::Other(_, name) => name,
        }
    }

    fn view(&self) -> Option<(Dtype, &[u8])> {
        match self {
            HostTensor::F32(_, data) => Some((Dtype::F32, bytemuck::cast_slice(data))),
            HostTensor::I32(_, data) => Some((Dtype::I32, bytemuck::cast_slice(data))),
            HostTensor::I64(_, data) => Some((Dtype::I64, bytemuck::cast_slice(data))),
            HostTensor::Other(..) => None,
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

    /// Writes the file atomically, with a checksum over all of it. Equal archives are equal bytes.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path; [`Error::Data`] naming a tensor of [`HostTensor::Other`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let source = path.display().to_string();
        let wrong = |e: safetensors::SafeTensorError| Error::data(&source, e.to_string());
        let mut views = Vec::new();
        for (name, tensor) in &self.tensors {
            let (dtype, bytes) = tensor
                .view()
                .ok_or_else(|| Error::data(&source, format!("tensor \"{name}\" of type {} cannot be written", tensor.dtype())))?;
            views.push((name, TensorView::new(dtype, tensor.shape().to_vec(), bytes).map_err(wrong)?));
        }
        // Text goes in by itself: the crate would write it in another order each time.
        let bytes = safetensors::serialize(views, None).map_err(wrong)?;
        let sealed = checksum::seal(&bytes, &self.text).map_err(|message| Error::data(&source, message))?;
        write_atomically(path, &sealed)
    }

    /// Reads a safetensors file. All floats are read as F32, integers below 64 bits and booleans as
    /// I32.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read; [`Error::Data`] naming what is wrong where it is
    /// truncated, corrupt, or none, or where it has a checksum that is not that of its contents.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_checked(path).map(|(archive, _)| archive)
    }

    /// As [`Self::load`], and whether the file has a checksum: those of earlier versions and of
    /// other programs have none.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_checked(path: &Path) -> Result<(Self, bool)> {
        let file = read(path)?;
        Ok((Self::parse(&file, &path.display().to_string())?, checksum::is_sealed(&file)))
    }

    /// Reads the contents of a safetensors file, which errors call `source`.
    pub(super) fn parse(file: &[u8], source: &str) -> Result<Self> {
        let (tensors, mut text) = header::read(file).map_err(|message| Error::data(source, message))?;
        checksum::verify(file).map_err(|message| Error::data(source, message))?;
        text.remove(checksum::KEY);
        let mut archive = Archive { tensors: BTreeMap::new(), text };
        for (name, info, bytes) in tensors {
            let tensor = match Element::of(info.dtype) {
                Some(element) => element.read(bytes, &View::whole(info.shape).map_err(|message| Error::data(source, message))?),
                None => HostTensor::Other(Shape::from(info.shape), info.dtype.to_string()),
            };
            archive.insert(name, tensor);
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
        // Any bit, wherever it is.
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            assert!(matches!(Archive::load(&path), Err(Error::Data { .. })), "a flipped bit {bit} was accepted");
        }
        assert!(matches!(Archive::load(&folder.path().join("missing")), Err(Error::Io { .. })));
    }

    #[test]
    fn equal_archives_are_equal_bytes_that_other_programs_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut archive = Archive::default();
        archive.insert("w", HostTensor::F32(Shape::from([3]), vec![1.0, 2.0, 3.0]));
        (0..20).for_each(|i| drop(archive.text.insert(format!("key {i} \"\u{1b}"), format!("text {i}\n"))));
        let written = || {
            archive.save(&path).unwrap();
            std::fs::read(&path).unwrap()
        };
        let bytes = written();
        assert!((0..5).all(|_| written() == bytes));
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap().len(), 21);
        assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("w").unwrap().shape(), [3]);
        assert_eq!(Archive::load_checked(&path).unwrap(), (archive.clone(), true));
        // A file of another program has none; one that another program wrote anew has one that no
        // longer fits.
        let view = safetensors::tensor::TensorView::new(Dtype::U8, vec![2], &[1, 2]).unwrap();
        std::fs::write(&path, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
        assert!(!Archive::load_checked(&path).unwrap().1);
        Archive::default().save(&path).unwrap();
        assert_eq!(Archive::load_checked(&path).unwrap(), (Archive::default(), true));
    }
}

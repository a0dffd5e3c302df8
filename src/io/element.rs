//! Element types of files, and tensors as views of stored elements.

use safetensors::Dtype;

use super::HostTensor;
use crate::tensor::Shape;

/// An element type that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    /// Also booleans.
    U8,
}

impl Element {
    /// That of a safetensors file; `None` for types that have no place here.
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F64 => Element::F64,
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            Dtype::I64 => Element::I64,
            Dtype::I32 => Element::I32,
            Dtype::I16 => Element::I16,
            Dtype::I8 => Element::I8,
            Dtype::U8 | Dtype::BOOL => Element::U8,
            _ => return None,
        })
    }

    /// Bytes of one.
    pub(super) fn bytes(self) -> usize {
        match self {
            Element::F64 | Element::I64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::F16 | Element::BF16 | Element::I16 => 2,
            Element::I8 | Element::U8 => 1,
        }
    }

    /// The tensor that `view` shows of little-endian elements.
    pub(super) fn read(self, stored: &[u8], view: &View) -> HostTensor {
        let shape = view.shape.clone();
        match self {
            Element::F64 => HostTensor::F32(shape, view.numbers(stored, |b| f64::from_le_bytes(b) as f32)),
            Element::F32 => HostTensor::F32(shape, view.numbers(stored, f32::from_le_bytes)),
            Element::F16 => HostTensor::F32(shape, view.numbers(stored, |b| half::f16::from_le_bytes(b).to_f32())),
            Element::BF16 => HostTensor::F32(shape, view.numbers(stored, |b| half::bf16::from_le_bytes(b).to_f32())),
            Element::I64 => HostTensor::I64(shape, view.numbers(stored, i64::from_le_bytes)),
            Element::I32 => HostTensor::I32(shape, view.numbers(stored, i32::from_le_bytes)),
            Element::I16 => HostTensor::I32(shape, view.numbers(stored, |b| i16::from_le_bytes(b).into())),
            Element::I8 => HostTensor::I32(shape, view.numbers(stored, |b| i8::from_le_bytes(b).into())),
            Element::U8 => HostTensor::I32(shape, view.numbers(stored, |b| u8::from_le_bytes(b).into())),
        }
    }
}

/// How many elements a shape has, where that can be counted; also what its other axes have beside
/// one of size 0.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    let others = shape.iter().map(|size| *size.max(&1)).try_fold(1usize, usize::checked_mul)?;
    Some(if shape.contains(&0) { 0 } else { others })
}

/// A tensor inside a storage: element `i` lies at `offset + sum of i * strides`.
pub(super) struct View {
    shape: Shape,
    strides: Vec<usize>,
    offset: usize,
    elements: usize,
}

impl View {
    /// The view of a storage of `stored` elements; says what is wrong with one that leaves it.
    pub(super) fn new(shape: Vec<usize>, strides: Vec<usize>, offset: usize, stored: usize) -> Result<Self, String> {
        let shape = Shape::from(shape);
        if shape.rank() != strides.len() {
            return Err(format!("has shape {shape} and {} strides", strides.len()));
        }
        let elements = elements(&shape).ok_or_else(|| format!("has shape {shape}: too many elements to count"))?;
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |at, (size, stride)| size.saturating_sub(1).checked_mul(*stride).and_then(|step| at.checked_add(step)));
        if elements > 0 && last.is_none_or(|last| last >= stored) {
            return Err(format!("has shape {shape}, strides {strides:?} and offset {offset}: beyond its storage of {stored} elements"));
        }
        Ok(Self { shape, strides, offset, elements })
    }

    /// A whole storage in row-major order.
    pub(super) fn whole(shape: Vec<usize>) -> Result<Self, String> {
        let stored = elements(&shape).unwrap_or(usize::MAX);
        let strides = Shape::from(shape.as_slice()).strides();
        Self::new(shape, strides, 0, stored)
    }

    /// How many elements it shows. Strides of 0 let few bytes show as many as they like.
    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    fn numbers<const N: usize, T>(&self, stored: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (stored, _) = stored.as_chunks::<N>();
        if self.strides == self.shape.strides() {
            let shown = stored.get(self.offset..).and_then(|s| s.get(..self.elements)).unwrap_or_default();
            return shown.iter().copied().map(number).collect();
        }
        let mut numbers = Vec::with_capacity(self.elements);
        numbers.extend(self.positions().filter_map(|at| stored.get(at)).copied().map(number));
        numbers
    }

    /// Where the elements lie, the last axis moving fastest.
    fn positions(&self) -> impl Iterator<Item = usize> {
        let mut at = self.offset;
        let mut index = vec![0; self.shape.rank()];
        (0..self.elements).map(move |_| {
            let position = at;
            for ((i, size), stride) in index.iter_mut().zip(self.shape.iter()).zip(&self.strides).rev() {
                *i += 1;
                at += stride;
                if *i < *size {
                    break;
                }
                *i = 0;
                at -= size * stride;
            }
            position
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(shape: &[usize], strides: &[usize], offset: usize) -> Result<Vec<i32>, String> {
        let view = View::new(shape.to_vec(), strides.to_vec(), offset, 6)?;
        match Element::U8.read(&[0, 1, 2, 3, 4, 5], &view) {
            HostTensor::I32(found, data) if *found == *shape => Ok(data),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn views_show_what_their_strides_say_and_never_leave_their_storage() {
        assert_eq!(shown(&[2, 3], &[3, 1], 0).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(shown(&[3, 2], &[1, 3], 0).unwrap(), [0, 3, 1, 4, 2, 5]);
        assert_eq!(shown(&[2, 2], &[2, 2], 1).unwrap(), [1, 3, 3, 5]);
        assert_eq!(shown(&[], &[], 5).unwrap(), [5]);
        assert_eq!(shown(&[4], &[0], 2).unwrap(), [2, 2, 2, 2]);
        assert!(shown(&[0, 9], &[9, 1], 99).unwrap().is_empty());
        for (shape, strides, offset) in [
            (&[2, 3][..], &[3, 1][..], 1),
            (&[], &[], 6),
            (&[2], &[usize::MAX], 5),
            (&[usize::MAX, 2], &[0, 0], 0),
            (&[usize::MAX, 2, 0], &[0, 0, 0], 0),
            (&[2], &[1, 1], 0),
        ] {
            assert!(shown(shape, strides, offset).is_err(), "{shape:?} {strides:?} {offset}");
        }
    }
}

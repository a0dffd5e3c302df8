//! Float64 arrays on the host: what references compute with. Integers are held as whole numbers.

use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::{DType, Shape, Tensor};

/// The larger of two numbers; NaN where one of them is, which [`f64::max`] drops.
pub fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The smaller, likewise.
pub fn minimum(a: f64, b: f64) -> f64 {
    -maximum(-a, -b)
}

/// A host array, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// The sizes.
    pub shape: Shape,
    /// The values.
    pub data: Vec<f64>,
    /// What the values are on the device.
    pub dtype: DType,
}

impl Array {
    /// An f32 array with the given values.
    pub fn new(shape: impl Into<Shape>, data: Vec<f64>) -> Self {
        Self { shape: shape.into(), data, dtype: DType::F32 }
    }

    /// An i32 array with the given values.
    pub fn integers(shape: impl Into<Shape>, data: Vec<f64>) -> Self {
        Self { shape: shape.into(), data, dtype: DType::I32 }
    }

    /// An f32 array of zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Self { data: vec![0.0; shape.numel()], shape, dtype: DType::F32 }
    }

    /// The element-wise image under `f`.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { shape: self.shape.clone(), data: self.data.iter().map(|v| f(*v)).collect(), dtype: DType::F32 }
    }

    /// An array whose element at each index is `f(index)`.
    pub fn from_fn(shape: impl Into<Shape>, mut f: impl FnMut(&[usize]) -> f64) -> Self {
        let shape = shape.into();
        let mut index = vec![0usize; shape.rank()];
        let mut data = Vec::with_capacity(shape.numel());
        for _ in 0..shape.numel() {
            data.push(f(&index));
            for (i, size) in index.iter_mut().zip(shape.iter()).rev() {
                *i += 1;
                if *i < *size {
                    break;
                }
                *i = 0;
            }
        }
        Self { shape, data, dtype: DType::F32 }
    }

    /// The position of an index in `data`.
    fn position(&self, index: &[usize]) -> usize {
        index.iter().zip(self.shape.iter()).fold(0, |at, (i, size)| at * size + i)
    }

    /// The element at `index`; NaN outside.
    pub fn at(&self, index: &[usize]) -> f64 {
        if index.len() != self.shape.rank() || index.iter().zip(self.shape.iter()).any(|(i, size)| i >= size) {
            return f64::NAN;
        }
        self.data.get(self.position(index)).copied().unwrap_or(f64::NAN)
    }

    /// The element at a row-major position; NaN outside.
    pub fn flat(&self, position: usize) -> f64 {
        self.data.get(position).copied().unwrap_or(f64::NAN)
    }

    /// Adds to the element at `index`; outside, nothing happens.
    pub fn add_at(&mut self, index: &[usize], value: f64) {
        let position = self.position(index);
        if let Some(v) = self.data.get_mut(position) {
            *v += value;
        }
    }

    /// Sets the element at a row-major position; outside, nothing happens.
    pub fn set(&mut self, position: usize, value: f64) {
        if let Some(v) = self.data.get_mut(position) {
            *v = value;
        }
    }

    /// The rows along the last axis.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.data.chunks_exact(self.shape.last().max(1))
    }

    /// The length of the shortest row.
    pub(crate) fn shortest_row(&self) -> f64 {
        self.rows().map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).fold(f64::INFINITY, f64::min)
    }

    /// The array on a device, rounded to its element type.
    ///
    /// # Errors
    /// Out of memory or a lost device.
    pub fn upload(&self, gpu: &Gpu) -> Result<Tensor> {
        match self.dtype {
            DType::I32 => Tensor::from_slice(gpu, &self.data.iter().map(|v| *v as i32).collect::<Vec<_>>(), &self.shape),
            DType::F32 => Tensor::from_slice(gpu, &self.data.iter().map(|v| *v as f32).collect::<Vec<_>>(), &self.shape),
            DType::F16 => Tensor::from_slice(gpu, &self.data.iter().map(|v| half::f16::from_f64(*v)).collect::<Vec<_>>(), &self.shape),
        }
    }

    /// A tensor's contents.
    ///
    /// # Errors
    /// A lost device.
    pub fn download(tensor: &Tensor) -> Result<Self> {
        Ok(Self { shape: tensor.shape().clone(), data: tensor.to_f64()?, dtype: tensor.dtype() })
    }

    /// The largest magnitude of what is finite, 0 when empty.
    pub fn max_abs(&self) -> f64 {
        self.data.iter().filter(|v| v.is_finite()).fold(0.0, |m, v| m.max(v.abs()))
    }
}

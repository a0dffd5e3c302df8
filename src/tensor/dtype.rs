//! Element types.

use std::fmt;

use crate::gpu::Storage;

/// The element type of a tensor, a run-time value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float: parameters, statistics, losses, and everything by default.
    F32,
    /// 16-bit float, storage only: kernels compute in f32.
    F16,
    /// 32-bit signed integer: labels and indices.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 => 2,
        }
    }

    /// Whether gradients can flow through it.
    pub fn is_float(self) -> bool {
        self != DType::I32
    }

    /// How a kernel stores it: `Launch::storage(tensor.dtype().storage())` lets a kernel follow its
    /// tensor.
    pub fn storage(self) -> Storage {
        match self {
            DType::F32 => Storage::F32,
            DType::F16 => Storage::F16,
            DType::I32 => Storage::I32,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::I32 => "i32",
        })
    }
}

/// Host types that tensors are made from and read into.
pub trait Element: bytemuck::Pod {
    /// The tensor type it stands for.
    const DTYPE: DType;
    /// The value as f64, exactly.
    fn to_f64(self) -> f64;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for half::f16 {
    const DTYPE: DType = DType::F16;
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for i32 {
    const DTYPE: DType = DType::I32;
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

//! What a kernel is given to read and write: ranges of buffers.

use std::sync::Arc;

use super::pool::Buffer;

/// How the elements of a buffer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 32-bit signed integer.
    I32,
}

/// A range of a buffer as a kernel sees it.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The buffer.
    pub buffer: Arc<Buffer>,
    /// First byte, a multiple of 256.
    pub offset: u64,
    /// Bytes of the contents (the binding itself is rounded up to 16).
    pub bytes: u64,
    /// The element type.
    pub storage: Storage,
}

impl Binding {
    /// Its buffer, and how much of it is used from its start.
    pub(super) fn used(&self) -> (&Arc<Buffer>, u64) {
        (&self.buffer, self.offset + self.bytes)
    }

    /// Bytes that are bound.
    pub(super) fn size(&self) -> u64 {
        self.bytes.max(4).next_multiple_of(16)
    }

    /// Whether the two share contents.
    pub(crate) fn overlaps(&self, other: &Binding) -> bool {
        let shared = self.offset.max(other.offset)..(self.offset + self.bytes).min(other.offset + other.bytes);
        self.buffer.id() == other.buffer.id() && !shared.is_empty()
    }
}

/// Whatever can be bound: tensors, above this folder.
pub trait Bind {
    /// The range to bind.
    fn binding(&self) -> Binding;

    /// How many equal parts it can be worked on in, one after another: what a smaller batch has
    /// fewer of.
    fn rows(&self) -> usize {
        1
    }
}

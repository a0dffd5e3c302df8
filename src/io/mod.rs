//! Files that hold tensors: safetensors, and the one table of weight layouts.

pub mod archive;
pub mod atomic;
pub mod layout;

pub use archive::{Archive, HostTensor};

//! Files that hold tensors: safetensors, and the one table of weight layouts; and what is said beside weights of the pictures that they expect.

pub mod archive;
pub mod atomic;
pub mod layout;
pub mod preprocessing;

pub use archive::{Archive, HostTensor};
pub use preprocessing::{Interpolation, Preprocessing};

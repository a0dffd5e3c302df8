//! Files that hold tensors: safetensors, checkpoints, and the one table of weight layouts.

pub mod layout;

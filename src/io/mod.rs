//! Files that hold tensors: safetensors, PyTorch's own (read only), and the one table of weight
//! layouts; and what is said beside weights of the pictures that they expect.

pub mod archive;
pub mod atomic;
mod checksum;
pub mod console;
mod element;
mod header;
pub mod layout;
#[cfg(feature = "cli")]
pub mod lock;
mod pickle;
pub(crate) mod prefix;
pub mod preprocessing;
mod pytorch;
mod zip;

use std::path::Path;

pub use archive::{Archive, HostTensor};
pub use preprocessing::{Interpolation, Preprocessing};

use crate::error::{Error, Result};

/// Reads a weights file, recognised by its content: safetensors, or what torch.save wrote of a
/// dictionary of tensors. Of a checkpoint it is the entry `state_dict_ema`, `model_ema`,
/// `state_dict`, `model`, `model_state_dict` or `net`, the first that is there. What wrappers put
/// before all names goes: `module.` (DataParallel), `_orig_mod.` (torch.compile), `model.` and
/// `net.` (Lightning and others), in any combination.
///
/// Nothing in a file is ever run, and nothing is allocated for what it only promises.
///
/// # Errors
/// [`Error::Io`] where it cannot be read; [`Error::Data`] naming the file, and the tensor where it
/// is one, where it is truncated, damaged, holds code, or is of another format.
pub fn open_weights(path: &Path) -> Result<Archive> {
    let file = atomic::read(path)?;
    let source = path.display().to_string();
    let archive = match file.as_slice() {
        f if f.starts_with(pytorch::ZIP) || f.starts_with(pytorch::LEGACY) => pytorch::parse(f, &source)?,
        [_, _, _, _, _, _, _, _, b'{', ..] => Archive::parse(&file, &source)?,
        _ => return Err(Error::data(source, "is no weights file: expected safetensors, or a file of PyTorch's torch.save (.pth, .pt)")),
    };
    prefix::without(archive).map_err(|message| Error::data(source, message))
}

//! Weights files for a named network.

use std::path::Path;

use super::Model;
use super::registry::split_tag;
use super::torchvision::is_torchvision;
use crate::error::{Error, Result};
use crate::io::{Archive, open_weights};

/// The text entry of a safetensors file that says which network its weights are of.
const OF: &str = "model";

impl Model {
    /// Reads a file of weights for this network, which was asked for as `name`: safetensors or
    /// `.pth`, with timm's names or torchvision's, which become timm's.
    ///
    /// # Errors
    /// As [`open_weights`]; [`Error::Data`] where the file says that its weights are another
    /// network's. Its tensors' names may be the same, and only padding or batch norm differ.
    pub fn open_weights(&self, name: &str, path: &Path) -> Result<Archive> {
        let archive = open_weights(path)?;
        let structure = |name: &str| split_tag(name).0.to_string();
        if let Some(own) = archive.text.get(OF).filter(|own| structure(own) != structure(name)) {
            return Err(Error::data(path.display().to_string(), format!("says that its weights are of {own}; use that instead of {name}")));
        }
        if is_torchvision(&archive) { self.timm_names(archive) } else { Ok(archive) }
    }
}

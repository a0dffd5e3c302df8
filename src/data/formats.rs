//! Formats of data sets: one line each. What is opened, and what an error lists, follows from it.

use std::path::Path;

use super::dataset::{Dataset, Split};
use super::pictures::{LIST_FORMAT, PictureOptions, SHARDS_FORMAT};
use super::{cifar, folder, idx, text};
use crate::error::Result;

/// A format that a folder may have.
pub(super) struct Format {
    /// What it is called, and its files.
    pub expects: &'static str,
    /// Whether a folder has it.
    pub recognise: fn(&Path) -> bool,
    /// Reads one split; the options are for images that come in many sizes.
    pub read: fn(&Path, Split, PictureOptions) -> Result<Dataset>,
}

/// All of them, in the order in which folders are tried: anything may be a folder of pictures.
pub(super) const FORMATS: &[Format] =
    &[idx::FORMAT, cifar::CIFAR10_FORMAT, cifar::CIFAR100_FORMAT, text::FORMAT, LIST_FORMAT, SHARDS_FORMAT, folder::FORMAT];

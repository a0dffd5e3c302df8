//! A batch in host memory.

use super::dataset::Dataset;
use super::samples::Samples;
use crate::error::Result;

/// Images or texts of one step, and their labels, in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostBatch {
    /// The images or texts.
    pub samples: Samples,
    /// One label an image.
    pub labels: Vec<i32>,
    /// Each image's place in the data set: augmentation is keyed by it.
    pub indices: Vec<u32>,
    /// How many classes there are: labels lie below.
    pub classes: usize,
    /// Labels may be [`HIDDEN`](crate::ops::loss::HIDDEN).
    pub hidden: bool,
}

impl HostBatch {
    /// Those at `indices` of `dataset`, whose labels are known; an index that does not exist is
    /// passed over.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn of(dataset: &Dataset, indices: &[usize]) -> Result<Self> {
        Self::read(dataset, indices, Dataset::read)
    }

    /// As [`Self::of`], of pictures of many sizes each in its own: see [`Loader::uncropped`](super::Loader::uncropped).
    ///
    /// # Errors
    /// As [`Dataset::read`].
    pub fn uncropped(dataset: &Dataset, indices: &[usize]) -> Result<Self> {
        Self::read(dataset, indices, Dataset::read_uncropped)
    }

    pub(super) fn read(dataset: &Dataset, indices: &[usize], read: impl Fn(&Dataset, &[usize]) -> Result<Samples>) -> Result<Self> {
        let indices: Vec<usize> = indices.iter().copied().filter(|index| *index < dataset.len()).collect();
        Ok(Self {
            samples: read(dataset, &indices)?,
            labels: indices.iter().filter_map(|index| dataset.label(*index)).collect(),
            // A data set has fewer than 2^32.
            indices: indices.iter().map(|index| *index as u32).collect(),
            classes: dataset.classes(),
            hidden: false,
        })
    }
}

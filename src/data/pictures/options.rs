//! How pictures of many sizes are read.

use super::super::picture::ImageOptions;
use crate::error::{Error, Result};

/// Where a recipe says nothing of it, pictures are kept so much larger than the images that are cut
/// from them: random crops are then rarely enlarged, and a batch is not larger than need be.
const LARGER: [usize; 2] = [3, 2];
/// A picture has at most so many pixels, as a part of its short side squared: 3 : 2, as
/// photographs are. Longer ones are kept smaller.
const AREA: [usize; 2] = [3, 2];

/// How pictures of many sizes are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureOptions {
    /// What each becomes where all must be alike.
    pub image: ImageOptions,
    /// Pictures that random crops are taken from are shrunk to a short side of so many pixels where
    /// theirs is longer; 0: 3/2 of the image's.
    pub short_side: usize,
    /// Threads that read and decode; 0: one a core.
    pub workers: usize,
    /// Decoded pictures that are kept, in MiB.
    pub memory_mib: usize,
    /// Every picture is read once when the data set is opened, and those that cannot be read are
    /// left out; otherwise the first of them is an error when it is come to.
    pub skip_bad: bool,
}

impl Default for PictureOptions {
    fn default() -> Self {
        ImageOptions::default().into()
    }
}

impl From<ImageOptions> for PictureOptions {
    fn from(image: ImageOptions) -> Self {
        Self { image, short_side: 0, workers: 0, memory_mib: Self::MEMORY_MIB, skip_bad: false }
    }
}

impl PictureOptions {
    /// What is kept of pictures that were read, where nothing else is said.
    pub const MEMORY_MIB: usize = 256;
    /// The largest short side that pictures may be kept with.
    pub const SHORTEST_SIDE: usize = 8192;
    /// The largest number of threads.
    pub const WORKERS: usize = 1024;
    /// The most that may be kept, in MiB.
    pub const MOST_MIB: usize = 1 << 24;

    pub(super) fn check(&self) -> Result<()> {
        self.image.image_bytes()?;
        for (name, value, most) in [
            ("data.short_side", self.short_side, Self::SHORTEST_SIDE),
            ("data.workers", self.workers, Self::WORKERS),
            ("data.memory_mib", self.memory_mib, Self::MOST_MIB),
        ] {
            if value > most {
                return Err(Error::argument(name, format!("expected at most {most}, found {value}")));
            }
        }
        Ok(())
    }

    /// The short side that pictures are kept with at most.
    pub fn short_side(&self) -> usize {
        let [larger, than] = LARGER;
        if self.short_side > 0 { self.short_side } else { (self.image.size * larger).div_ceil(than) }
    }

    /// Pixels that a picture is kept with at most.
    pub(super) fn pixels(&self) -> usize {
        let [area, of] = AREA;
        (self.short_side().pow(2) * area).div_ceil(of)
    }

    /// Bytes that each picture of a batch has room for, in whole words.
    pub(super) fn slot_bytes(&self) -> usize {
        (self.pixels() * self.image.channels()).next_multiple_of(4)
    }
}

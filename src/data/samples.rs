//! What a data set or a batch consists of: images of one size, texts of one length, or, of a batch,
//! pictures of many sizes.

use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::{InputShape, Tensor};

/// Images or texts, one behind the other.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// Images.
    Images {
        /// Height, width and channels of each.
        size: [usize; 3],
        /// Their pixels, NHWC.
        pixels: Vec<u8>,
    },
    /// Texts as numbers of a vocabulary.
    Tokens {
        /// Numbers of each text; a shorter one is filled up with 0.
        length: usize,
        /// The numbers.
        numbers: Vec<u16>,
    },
    /// Pictures that each have a size of their own.
    Pictures {
        /// Bytes a pixel.
        channels: usize,
        /// Bytes that each has room for, a multiple of 4.
        slot: usize,
        /// Heights and widths.
        sizes: Vec<[i32; 2]>,
        /// Their pixels, each row by row from the start of its slot.
        pixels: Vec<u8>,
    },
}

impl Samples {
    /// The shape of one; of pictures of many sizes as much as all have in common, a row of pixels as
    /// long as the largest.
    pub fn shape(&self) -> InputShape {
        match self {
            Self::Images { size, .. } => InputShape::Image(*size),
            Self::Tokens { length, .. } => InputShape::Tokens(*length),
            Self::Pictures { channels, slot, .. } => InputShape::Image([1, slot / (*channels).max(1), *channels]),
        }
    }

    /// How many pixels' channels or tokens there are in all.
    pub fn numel(&self) -> usize {
        match self {
            Self::Images { pixels, .. } | Self::Pictures { pixels, .. } => pixels.len(),
            Self::Tokens { numbers, .. } => numbers.len(),
        }
    }

    /// All of them as bytes: what they are known by.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Images { pixels, .. } | Self::Pictures { pixels, .. } => pixels,
            Self::Tokens { numbers, .. } => bytemuck::cast_slice(numbers),
        }
    }

    /// Those at `indices`, in that order; an index that does not exist is passed over.
    #[must_use]
    pub fn pick(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        fn rows<E: Copy>(all: &[E], length: usize, indices: impl Iterator<Item = usize>) -> Vec<E> {
            let row = |index: usize| index.checked_mul(length).and_then(|start| all.get(start..start.checked_add(length)?));
            indices.filter_map(row).flatten().copied().collect()
        }
        let (indices, length) = (indices.into_iter(), self.shape().numel());
        match self {
            Self::Pictures { channels, slot, sizes, pixels } => {
                let indices: Vec<usize> = indices.collect();
                let sizes = indices.iter().filter_map(|index| sizes.get(*index).copied()).collect();
                Self::Pictures { channels: *channels, slot: *slot, sizes, pixels: rows(pixels, *slot, indices.into_iter()) }
            }
            Self::Images { size, pixels } => Self::Images { size: *size, pixels: rows(pixels, length, indices) },
            Self::Tokens { length, numbers } => Self::Tokens { length: *length, numbers: rows(numbers, *length, indices) },
        }
    }

    /// Uploads them as they travel, i32: four bytes of pixels to a word, or a token in each.
    pub(super) fn upload(&self, gpu: &Gpu) -> Result<Tensor> {
        let word = |bytes: &[u8]| {
            let mut word = [0; 4];
            word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            i32::from_le_bytes(word)
        };
        let words: Vec<i32> = match self {
            Self::Images { pixels, .. } | Self::Pictures { pixels, .. } => pixels.chunks(4).map(word).collect(),
            Self::Tokens { numbers, .. } => numbers.iter().map(|number| i32::from(*number)).collect(),
        };
        Tensor::from_slice(gpu, &words, [words.len()])?.with_range(None)
    }
}

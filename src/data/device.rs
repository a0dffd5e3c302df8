//! A batch on the device.

use super::{HostBatch, Samples};
use crate::capture::Inputs;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::exactly;
use crate::ops::loss::HIDDEN;
use crate::tensor::{InputShape, Tensor};

/// Images or texts, labels and places in the data set of one step, on a device.
#[derive(Clone)]
pub struct DeviceBatch {
    /// Images `[N, H, W, C]`, f32 in 0..1, or the token numbers of texts, i32 `[N, L]`. Of pictures of
    /// many sizes the bytes, i32 `[N, W]`: [`CropPictures`](crate::ops::augment::CropPictures).
    pub inputs: Tensor,
    /// What there is to know of pictures of many sizes; `None` of all else.
    pub pictures: Option<PictureSizes>,
    /// One label an image, i32 `[N]`.
    pub labels: Tensor,
    /// Each image's place in the data set, i32 `[N]`: augmentation is keyed by it.
    pub indices: Tensor,
}

impl DeviceBatch {
    /// Uploads a batch and unpacks it: [`PackedBatch`].
    ///
    /// # Errors
    /// As [`PackedBatch::upload`] and [`PackedBatch::unpack`].
    pub fn upload(gpu: &Gpu, batch: &HostBatch) -> Result<Self> {
        PackedBatch::upload(gpu, batch)?.unpack()
    }
}

/// What there is to know of a batch of pictures of many sizes.
#[derive(Clone)]
pub struct PictureSizes {
    /// Heights and widths, i32 `[N, 2]`.
    pub sizes: Tensor,
    /// Bytes a pixel.
    pub channels: usize,
    /// Channels of the images that are cut from them.
    pub out_channels: usize,
}

/// A batch as it travels: of images a byte for each value of a pixel, four to a word; of texts a
/// word for each token. What a captured step takes.
#[derive(Clone)]
pub struct PackedBatch {
    /// The words, i32.
    pub words: Tensor,
    /// Heights and widths of pictures of many sizes, i32 `[N, 2]`.
    pub sizes: Option<Tensor>,
    /// One label an image, i32 `[N]`.
    pub labels: Tensor,
    /// Each image's place in the data set, i32 `[N]`.
    pub indices: Tensor,
    shape: InputShape,
    padded: bool,
}

impl Inputs for PackedBatch {
    fn tensors(&self) -> Vec<Tensor> {
        let sizes = self.sizes.iter().cloned();
        [&self.words, &self.labels, &self.indices].into_iter().cloned().chain(sizes).collect()
    }

    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self> {
        let (tensors, sizes) = tensors.split_at_checked(3).unwrap_or((tensors, &[]));
        let [words, labels, indices] = exactly("batch", tensors)?;
        let sizes = sizes.first().cloned();
        Ok(Self { words: words.clone(), labels: labels.clone(), indices: indices.clone(), sizes, ..self.clone() })
    }
}

impl PackedBatch {
    /// Uploads a batch.
    ///
    /// # Errors
    /// [`Error::Data`] where a label is none of the classes; out of memory.
    pub fn upload(gpu: &Gpu, batch: &HostBatch) -> Result<Self> {
        let n = batch.labels.len();
        let last = i32::try_from(batch.classes).unwrap_or(i32::MAX) - 1;
        let least = if batch.hidden { HIDDEN } else { 0 };
        if let Some(wrong) = batch.labels.iter().find(|label| !(least..=last).contains(*label)) {
            return Err(Error::data("batch", format!("label {wrong} is none of {} classes", batch.classes)));
        }
        let sizes = match &batch.samples {
            // Those of the next batch are others.
            Samples::Pictures { sizes, .. } => Some(Tensor::from_slice(gpu, sizes.as_flattened(), [n, 2])?.with_range(None)?),
            _ => None,
        };
        Ok(Self {
            words: batch.samples.upload(gpu)?,
            sizes,
            // Of all classes, not only those of this batch: a step that was captured with one batch
            // takes the next.
            labels: Tensor::from_slice(gpu, &batch.labels, [n])?.with_range(Some((least, last.max(0))))?,
            indices: Tensor::from_slice(gpu, bytemuck::cast_slice::<u32, i32>(&batch.indices), [batch.indices.len()])?.with_range(None)?,
            shape: batch.samples.shape(),
            padded: false,
        })
    }

    /// The same with colour images as 4 channels, the last of them zeros: augmentation and the
    /// first convolution then read a pixel at once.
    #[must_use]
    pub fn padded(self) -> Self {
        Self { padded: true, ..self }
    }

    /// The batch as tensors.
    ///
    /// # Errors
    /// When there are not as many pixels or tokens as the labels ask for; grey images that are
    /// [`padded`](Self::padded); out of memory.
    pub fn unpack(&self) -> Result<DeviceBatch> {
        let n = self.labels.numel();
        let out_channels = |channels| if self.padded { 4 } else { channels };
        let mut pictures = None;
        let inputs = match (self.shape, &self.sizes) {
            (InputShape::Image([.., channels]), Some(sizes)) => {
                pictures = Some(PictureSizes { sizes: sizes.clone(), channels, out_channels: out_channels(channels) });
                self.words.reshape(&[n as isize, (self.words.numel() / n.max(1)) as isize])?
            }
            (InputShape::Image([height, width, channels]), None) => {
                self.words.unpack([n, height, width, channels], out_channels(channels))?
            }
            (InputShape::Tokens(length), _) => self.words.reshape(&[n as isize, length as isize])?,
        };
        Ok(DeviceBatch { inputs, pictures, labels: self.labels.clone(), indices: self.indices.clone() })
    }
}

//! A batch on the device.

use super::{Dataset, HostBatch};
use crate::capture::Inputs;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::exactly;
use crate::ops::loss::HIDDEN;
use crate::tensor::Tensor;

/// Images, labels and places in the data set of one step, on a device.
#[derive(Clone)]
pub struct DeviceBatch {
    /// The images `[N, H, W, C]`, f32 in 0..1.
    pub pixels: Tensor,
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
    pub fn upload(gpu: &Gpu, batch: &HostBatch, size: [usize; 3], out_channels: usize) -> Result<Self> {
        PackedBatch::upload(gpu, batch, size, out_channels)?.unpack()
    }
}

/// A batch as it travels: a byte for each value of a pixel, four to a word. What a captured step takes.
#[derive(Clone)]
pub struct PackedBatch {
    /// The words, i32.
    pub words: Tensor,
    /// One label an image, i32 `[N]`.
    pub labels: Tensor,
    /// Each image's place in the data set, i32 `[N]`.
    pub indices: Tensor,
    size: [usize; 3],
    out_channels: usize,
}

impl Inputs for PackedBatch {
    fn tensors(&self) -> Vec<Tensor> {
        vec![self.words.clone(), self.labels.clone(), self.indices.clone()]
    }

    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self> {
        let [words, labels, indices] = exactly("batch", tensors)?;
        Ok(Self { words: words.clone(), labels: labels.clone(), indices: indices.clone(), ..self.clone() })
    }
}

impl PackedBatch {
    /// Uploads a batch of `dataset`, in its channels.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn of_dataset(gpu: &Gpu, batch: &HostBatch, dataset: &Dataset) -> Result<Self> {
        let channels = dataset.channels();
        Self::upload(gpu, batch, [dataset.height(), dataset.width(), channels], channels)
    }

    /// Uploads a batch of images of `[height, width, channels]`.
    ///
    /// `out_channels` is `channels`, or 4 for colour images padded with zeros: augmentation and the first convolution then
    /// read a pixel at once.
    ///
    /// # Errors
    /// [`Error::Data`] where a label is none of the classes; out of memory.
    pub fn upload(gpu: &Gpu, batch: &HostBatch, size: [usize; 3], out_channels: usize) -> Result<Self> {
        let n = batch.labels.len();
        let last = i32::try_from(batch.classes).unwrap_or(i32::MAX) - 1;
        let least = if batch.hidden { HIDDEN } else { 0 };
        if let Some(wrong) = batch.labels.iter().find(|label| !(least..=last).contains(*label)) {
            return Err(Error::data("batch", format!("label {wrong} is none of {} classes", batch.classes)));
        }
        let word = |bytes: &[u8]| {
            let mut word = [0; 4];
            word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            i32::from_le_bytes(word)
        };
        let words: Vec<i32> = batch.pixels.chunks(4).map(word).collect();
        Ok(Self {
            words: Tensor::from_slice(gpu, &words, [words.len()])?.with_range(None)?,
            // Of all classes, not only those of this batch: a step that was captured with one batch takes the next.
            labels: Tensor::from_slice(gpu, &batch.labels, [n])?.with_range(Some((least, last.max(0))))?,
            indices: Tensor::from_slice(gpu, bytemuck::cast_slice::<u32, i32>(&batch.indices), [batch.indices.len()])?.with_range(None)?,
            size,
            out_channels,
        })
    }

    /// The batch as tensors.
    ///
    /// # Errors
    /// When the pixels are not as many as the labels ask for; 3 channels into anything but 3 or 4, or 1 into anything but 1; out
    /// of memory.
    pub fn unpack(&self) -> Result<DeviceBatch> {
        let ([height, width, channels], n) = (self.size, self.labels.numel());
        Ok(DeviceBatch {
            pixels: self.words.unpack([n, height, width, channels], self.out_channels)?,
            labels: self.labels.clone(),
            indices: self.indices.clone(),
        })
    }
}

//! A batch on the device.

use super::loader::HostBatch;
use crate::error::Result;
use crate::gpu::Gpu;
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
    /// Uploads a batch of images of `[height, width, channels]`, as bytes, and unpacks them on the device.
    ///
    /// `out_channels` is `channels`, or 4 for colour images padded with zeros: augmentation and the first convolution then
    /// read a pixel at once.
    ///
    /// # Errors
    /// When the pixels are not as many as the labels ask for; 3 channels into anything but 3 or 4, or 1 into anything but 1; out
    /// of memory.
    pub fn upload(gpu: &Gpu, batch: &HostBatch, [height, width, channels]: [usize; 3], out_channels: usize) -> Result<Self> {
        let n = batch.labels.len();
        let word = |bytes: &[u8]| {
            let mut word = [0; 4];
            word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            i32::from_le_bytes(word)
        };
        let words: Vec<i32> = batch.pixels.chunks(4).map(word).collect();
        let words = Tensor::from_slice(gpu, &words, [words.len()])?;
        Ok(Self {
            pixels: words.unpack([n, height, width, channels], out_channels)?,
            labels: Tensor::from_slice(gpu, &batch.labels, [n])?,
            indices: Tensor::from_slice(gpu, bytemuck::cast_slice::<u32, i32>(&batch.indices), [batch.indices.len()])?,
        })
    }
}

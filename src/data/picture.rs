//! One picture file, as pixels of the size that is wanted.
//!
//! The shorter side is scaled and the centre is cut out, as timm and torchvision do, to the same
//! bytes; only what is kept is ever scaled, so a thin picture never becomes a huge one. Colours are
//! Pillow's `convert("RGB")`: transparency is left out, 16 bits lose the lower 8.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use image::DynamicImage;

use super::decoder::{self, Limit};
use super::resample::{Axis, resample};
use crate::error::{Error, Result};
use crate::io::{Interpolation, Preprocessing};

/// How images of any size and colour become images of one size and colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageOptions {
    /// Height and width of the result.
    pub size: usize,
    /// One channel (Rec. 709 luma) and not three.
    pub grey: bool,
    /// The part of the resized picture's shorter side that is kept: [`Preprocessing::crop`].
    pub crop: f64,
    /// Both sides are scaled alike: [`Preprocessing::squash`].
    pub squash: bool,
    /// The filter that scales.
    pub interpolation: Interpolation,
}

impl Default for ImageOptions {
    /// 64x64 in colour: what a small network trains on within minutes.
    fn default() -> Self {
        Self { size: 64, grey: false, crop: 1.0, squash: false, interpolation: Interpolation::Bilinear }
    }
}

impl From<Preprocessing> for ImageOptions {
    fn from(p: Preprocessing) -> Self {
        Self { size: p.resolution, grey: false, crop: p.crop, squash: p.squash, interpolation: p.interpolation }
    }
}

impl ImageOptions {
    /// Channels of the result.
    pub(super) fn channels(self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// Bytes of one image, where the options can be met.
    pub(super) fn image_bytes(self) -> Result<usize> {
        if !(1..=4096).contains(&self.size) {
            let message = format!("expected a size of 1 to 4096 pixels, found {}", self.size);
            return Err(Error::argument("image size", message));
        }
        if !(0.01..=1.0).contains(&self.crop) {
            return Err(Error::argument("image crop", format!("expected 0.01 to 1, found {}", self.crop)));
        }
        Ok(self.size * self.size * self.channels())
    }

    /// How the sides of a picture are scaled and cut: timm's `scale_size`, torchvision's `Resize`
    /// and `CenterCrop`.
    pub(super) fn axes(self, width: usize, height: usize) -> [Axis; 2] {
        let scaled = (self.size as f64 / self.crop).floor();
        let shorter = width.min(height) as f64;
        [width, height].map(|side| {
            let to = if self.squash { scaled } else { (scaled * side as f64 / shorter).floor() };
            // Python rounds halves to even numbers.
            let first = ((to - self.size as f64) / 2.0).round_ties_even();
            Axis { from: side, to: to as usize, first: first as usize, count: self.size }
        })
    }
}

/// The pixels of one image file, `options.image_bytes()` bytes of them.
pub(super) fn decode(path: &Path, options: ImageOptions, limit: Limit) -> Result<Vec<u8>> {
    let name = path.display().to_string();
    guarded(&name, || Ok(cut(decoder::decode(&name, &decoder::bytes(path, limit)?, limit)?, options)))
}

/// A picture as an image of the size that is wanted.
pub(super) fn cut(picture: DynamicImage, options: ImageOptions) -> Vec<u8> {
    let [horizontal, vertical] = options.axes(picture.width() as usize, picture.height() as usize);
    if options.grey {
        resample::<1>(&picture.into_luma8(), horizontal, vertical, options.interpolation)
    } else {
        resample::<3>(&picture.into_rgb8(), horizontal, vertical, options.interpolation)
    }
}

/// What `read` reads. Files come from anywhere; one that makes its decoder panic must not end a run
/// over thousands.
pub(super) fn guarded<T>(name: &str, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let crashed = |_| Err(Error::data(name, "this image made its decoder crash"));
    std::panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(crashed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use image::{DynamicImage, GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba};

    fn decode(path: &Path, options: ImageOptions) -> Result<Vec<u8>> {
        super::decode(path, options, Limit::from_env().unwrap())
    }

    #[test]
    fn the_middle_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide.png");
        // 12x4: white but for its ends, further from the middle than the filter reaches.
        GrayImage::from_fn(12, 4, |x, _| Luma([if (2..10).contains(&x) { 255 } else { 0 }])).save(&path).unwrap();
        assert_eq!(decode(&path, ImageOptions { size: 2, grey: true, ..Default::default() }).unwrap(), [255; 4]);
        assert_eq!(decode(&path, ImageOptions { size: 6, grey: false, ..Default::default() }).unwrap(), [255; 108]);
    }

    #[test]
    fn shrinking_averages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stripes.png");
        GrayImage::from_fn(64, 64, |x, _| Luma([if x % 2 == 0 { 200 } else { 0 }])).save(&path).unwrap();
        let pixels = decode(&path, ImageOptions { size: 4, grey: true, ..Default::default() }).unwrap();
        assert!(pixels.iter().all(|p| p.abs_diff(100) < 10), "{pixels:?}");
    }

    #[test]
    fn every_kind_of_png_becomes_8_bits_of_red_green_and_blue() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        let shades: [(DynamicImage, [u8; 3]); 5] = [
            (ImageBuffer::from_pixel(2, 2, Luma([0x12ff_u16])).into(), [0x12; 3]),
            (ImageBuffer::from_pixel(2, 2, LumaA([7u8, 0])).into(), [7; 3]),
            (ImageBuffer::from_pixel(2, 2, Rgb([0x12ff_u16, 0x3400, 0xffff])).into(), [0x12, 0x34, 0xff]),
            (ImageBuffer::from_pixel(2, 2, Rgba([0x12ff_u16, 0x3400, 0xffff, 9])).into(), [0x12, 0x34, 0xff]),
            (ImageBuffer::from_pixel(2, 2, Rgba([1u8, 2, 3, 0])).into(), [1, 2, 3]),
        ];
        for (picture, expected) in shades {
            picture.save(&path).unwrap();
            assert_eq!(decode(&path, ImageOptions { size: 1, ..Default::default() }).unwrap(), expected, "{:?}", picture.color());
        }
    }

    #[test]
    fn a_thin_picture_never_becomes_a_huge_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("thin.png");
        // The whole of it would have 2048 x 61 million pixels.
        GrayImage::from_fn(1, 30_000, |_, y| Luma([if y < 15_000 { 0 } else { 200 }])).save(&path).unwrap();
        let pixels = decode(&path, ImageOptions { size: 2048, grey: true, ..Default::default() }).unwrap();
        assert_eq!((pixels[0], pixels[2048 * 2048 - 1]), (0, 200));
    }

    #[test]
    fn a_format_is_recognised_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let (jpeg, misnamed) = (folder.path().join("x.jpg"), folder.path().join("x.png"));
        RgbImage::from_pixel(16, 16, Rgb([200, 100, 50])).save(&jpeg).unwrap();
        std::fs::rename(&jpeg, &misnamed).unwrap();
        let pixels = decode(&misnamed, ImageOptions { size: 4, grey: false, ..Default::default() }).unwrap();
        assert!(pixels.chunks(3).flat_map(|p| p.iter().zip([200u8, 100, 50])).all(|(a, b)| a.abs_diff(b) < 8), "{pixels:?}");
    }
}

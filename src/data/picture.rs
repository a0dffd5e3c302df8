//! One PNG or JPEG file, as pixels of the size that is wanted.
//!
//! The centred square is cut out, then scaled with a triangle filter (bilinear, averaging where it shrinks). That is what scaling the
//! shorter side and cropping gives, without ever holding a huge picture of a thin one.

use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, imageops};

use crate::error::{Error, Result};

/// Larger pictures are refused: a small file may claim to be a huge picture.
const LARGEST_SIDE: u32 = 32_768;
const LARGEST_PICTURE: u64 = 1 << 30;

/// How images of any size and colour become images of one size and colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageOptions {
    /// Height and width of the result.
    pub size: usize,
    /// One channel (Rec. 709 luma) and not three.
    pub grey: bool,
}

impl Default for ImageOptions {
    /// 64x64 in colour: what a small network trains on within minutes.
    fn default() -> Self {
        Self { size: 64, grey: false }
    }
}

impl ImageOptions {
    /// Channels of the result.
    pub(super) fn channels(self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// Bytes of one image, where the options can be met.
    pub(super) fn image_bytes(self) -> Result<usize> {
        if (1..=4096).contains(&self.size) {
            return Ok(self.size * self.size * self.channels());
        }
        let message = format!("expected a size of 1 to 4096 pixels, found {}", self.size);
        Err(Error::argument("image size", message))
    }
}

/// The pixels of several image files, one after the other: the images of a [`Dataset`](super::Dataset) of squares.
///
/// # Errors
/// [`Error::Io`](crate::error::Error) or [`Error::Data`](crate::error::Error) naming the first file that cannot be read or is no PNG or JPEG.
pub fn read_pictures(paths: &[std::path::PathBuf], options: ImageOptions) -> Result<Vec<u8>> {
    let mut pixels = Vec::with_capacity(paths.len() * options.image_bytes()?);
    for path in paths {
        pixels.extend(decode(path, options)?);
    }
    Ok(pixels)
}

/// The pixels of one image file, `options.image_bytes()` bytes of them.
pub(super) fn decode(path: &Path, options: ImageOptions) -> Result<Vec<u8>> {
    let wrong = |error: &dyn std::fmt::Display| {
        let message = format!("expected a PNG or JPEG image, found: {error}");
        Error::data(path.display().to_string(), message)
    };
    let failed = |error: std::io::Error| Error::io(path, &error);
    let mut reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(failed)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_PICTURE);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| wrong(&error))?;
    // Cameras store pictures as the sensor lies, and how to turn them apart.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| wrong(&error))?;
    picture.apply_orientation(orientation);

    let side = picture.width().min(picture.height());
    let (left, top) = ((picture.width() - side) / 2, (picture.height() - side) / 2);
    let square = picture.crop_imm(left, top, side, side);
    let (size, filter) = (options.size as u32, imageops::FilterType::Triangle);
    let pixels = if options.grey {
        imageops::resize(&square.into_luma8(), size, size, filter).into_raw()
    } else {
        imageops::resize(&square.into_rgb8(), size, size, filter).into_raw()
    };
    match options.image_bytes() {
        Ok(expected) if expected == pixels.len() => Ok(pixels),
        _ => Err(wrong(&format!("{} bytes", pixels.len()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    #[test]
    fn the_middle_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide.png");
        // 12x4: black, then a white square in the middle, then black.
        GrayImage::from_fn(12, 4, |x, _| Luma([if (4..8).contains(&x) { 255 } else { 0 }])).save(&path).unwrap();
        assert_eq!(decode(&path, ImageOptions { size: 2, grey: true }).unwrap(), [255; 4]);
        assert_eq!(decode(&path, ImageOptions { size: 6, grey: false }).unwrap(), [255; 108]);
    }

    #[test]
    fn shrinking_averages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stripes.png");
        GrayImage::from_fn(64, 64, |x, _| Luma([if x % 2 == 0 { 200 } else { 0 }])).save(&path).unwrap();
        let pixels = decode(&path, ImageOptions { size: 4, grey: true }).unwrap();
        assert!(pixels.iter().all(|p| p.abs_diff(100) < 10), "{pixels:?}");
    }

    #[test]
    fn a_format_is_recognised_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let (jpeg, misnamed) = (folder.path().join("x.jpg"), folder.path().join("x.png"));
        RgbImage::from_pixel(16, 16, Rgb([200, 100, 50])).save(&jpeg).unwrap();
        std::fs::rename(&jpeg, &misnamed).unwrap();
        let pixels = decode(&misnamed, ImageOptions { size: 4, grey: false }).unwrap();
        assert!(pixels.chunks(3).flat_map(|p| p.iter().zip([200u8, 100, 50])).all(|(a, b)| a.abs_diff(b) < 8), "{pixels:?}");
    }

    #[test]
    fn a_huge_picture_in_a_small_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        GrayImage::new(8, 8).save(&path).unwrap();
        // Width and height are the first fields of the first chunk; its checksum follows.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let mut checksum = flate2::Crc::new();
        checksum.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
        std::fs::write(&path, bytes).unwrap();
        let error = decode(&path, ImageOptions::default()).unwrap_err().to_string();
        assert!(error.contains("x.png") && error.contains("limit"), "{error}");
    }
}

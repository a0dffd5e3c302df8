//! One PNG, JPEG, WebP, GIF, BMP or TIFF file as it is, 8 bits a channel.
//!
//! Files come from anywhere. What a header promises is compared with a limit before anything is
//! allocated for it, parts that no pixel needs (texts, colour profiles) are not unpacked, and a
//! file that ends early is an error, never a picture with a grey lower half.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use crate::error::{Error, Result};

/// The largest picture where `WGRAD_PICTURE_MPIXELS` does not say otherwise: 64 million pixels.
const MEGAPIXELS: u64 = 64;
const VARIABLE: &str = "WGRAD_PICTURE_MPIXELS";
/// The longest side.
const SIDE: u64 = 32_768;

/// A picture and how it is to be turned, or what is wrong with it.
type Decoded = Result<(DynamicImage, Orientation), String>;

/// What pictures may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pixels: u64,
}

impl Limit {
    /// That of the environment.
    ///
    /// # Errors
    /// [`Error::Argument`] where `WGRAD_PICTURE_MPIXELS` is no number of 1 to 1000.
    pub(super) fn from_env() -> Result<Self> {
        let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) else { return Ok(Self::of(MEGAPIXELS)) };
        let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| (1..=1000).contains(number));
        number
            .map(Self::of)
            .ok_or_else(|| Error::argument(VARIABLE, format!("expected 1 to 1000 million pixels, found \"{}\"", text.to_string_lossy())))
    }

    fn of(megapixels: u64) -> Self {
        Self { pixels: megapixels * 1_000_000 }
    }

    fn check(self, width: u64, height: u64) -> Result<(), String> {
        if width > 0 && height > 0 && width.max(height) <= SIDE && width * height <= self.pixels {
            return Ok(());
        }
        let most = self.pixels / 1_000_000;
        Err(format!("{width}x{height} pixels; the limit is {most} million and {SIDE} a side: shrink it, or raise {VARIABLE}"))
    }

    /// The length of a file, where it is not beyond the limit.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file.
    pub(super) fn file_length(self, name: &str, bytes: u64) -> Result<usize> {
        let most = self.file_bytes();
        let length = usize::try_from(bytes).ok().filter(|_| bytes <= most);
        length.ok_or_else(|| Error::data(name, format!("{EXPECTED}: more than {most} bytes, the limit; raise {VARIABLE}")))
    }

    /// Bytes of a file at most: more than its pixels have uncompressed, with 16 bits a channel.
    fn file_bytes(self) -> u64 {
        (8 * self.pixels).saturating_add(1 << 20)
    }
}

/// What the files are that are read, for messages.
const EXPECTED: &str = "expected a PNG, JPEG, WebP, GIF, BMP or TIFF image, found";

/// The bytes of a file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] naming the file, for one that exceeds the limit.
pub(super) fn bytes(path: &Path, limit: Limit) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| Error::io(path, &error))?;
    let read = file.take(limit.file_bytes() + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, &error))?;
    limit.file_length(&path.display().to_string(), read as u64)?;
    Ok(bytes)
}

/// The picture in the bytes of a file, turned as it says.
///
/// # Errors
/// [`Error::Data`] naming the file, for one that is no picture, damaged, ends early, or exceeds the
/// limit.
pub(super) fn decode(name: &str, bytes: &[u8], limit: Limit) -> Result<DynamicImage> {
    let decoded = match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => png(bytes, limit),
        Ok(ImageFormat::Jpeg) => jpeg(bytes, limit),
        Ok(ImageFormat::WebP) => webp(bytes, limit),
        Ok(ImageFormat::Gif) if !gif_has_end(bytes) => Err("a file that ends early: the mark of the end is missing".into()),
        Ok(ImageFormat::Gif) => other(GifDecoder::new(Cursor::new(bytes)), limit),
        Ok(ImageFormat::Bmp) => other(BmpDecoder::new(Cursor::new(bytes)), limit),
        Ok(ImageFormat::Tiff) => other(TiffDecoder::new(Cursor::new(bytes)), limit),
        _ => Err("a file of another kind".into()),
    };
    let (mut picture, orientation) = decoded.map_err(|found| Error::data(name, format!("{EXPECTED}: {found}")))?;
    // Cameras store pictures as the sensor lies, and how to turn them apart.
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// What needs no care of its own: the first picture of a file, cut to 8 bits.
fn other<D: ImageDecoder>(decoder: image::ImageResult<D>, limit: Limit) -> Decoded {
    let text = |error: image::ImageError| error.to_string();
    let mut decoder = decoder.map_err(text)?;
    let (size, colour) = (decoder.dimensions(), decoder.color_type());
    limit.check(size.0.into(), size.1.into())?;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(limit.file_bytes());
    decoder.set_limits(limits).map_err(text)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut pixels = zeros(usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX))?;
    decoder.read_image(&mut pixels).map_err(text)?;
    let channels = colour.channel_count().into();
    // Of 16 bits it is the upper 8 that are kept.
    let pixels = match colour.bytes_per_pixel() / colour.channel_count() {
        1 => pixels,
        2 => pixels.as_chunks::<2>().0.iter().map(|bytes| (u16::from_ne_bytes(*bytes) >> 8) as u8).collect(),
        _ => return Err(format!("pixels of {colour:?}; 8 and 16 bits a channel are read")),
    };
    Ok((picture(size, channels, pixels)?, orientation))
}

fn png(bytes: &[u8], limit: Limit) -> Decoded {
    let text = |error: png::DecodingError| error.to_string();
    let most = usize::try_from(limit.file_bytes()).unwrap_or(usize::MAX);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: most });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let header = decoder.read_header_info().map_err(text)?;
    limit.check(header.width.into(), header.height.into())?;
    let mut reader = decoder.read_info().map_err(text)?;
    let size = reader.info().size();
    // The decoder takes it for granted that colours are whole.
    if reader.info().palette.as_ref().is_some_and(|palette| !palette.len().is_multiple_of(3) || palette.len() > 3 * 256) {
        return Err("a palette that is no list of colours".into());
    }
    let mut pixels = zeros(reader.output_buffer_size().ok_or("an uncountable number of pixels")?)?;
    let frame = reader.next_frame(&mut pixels).map_err(text)?;
    if (frame.width, frame.height) != size {
        return Err("an image of another size than its header's".into());
    }
    // What ends early lacks its last part.
    reader.finish().map_err(text)?;
    let exif = reader.info().exif_metadata.as_deref();
    Ok((picture(size, frame.color_type.samples(), pixels)?, turned(exif)))
}

fn jpeg(bytes: &[u8], limit: Limit) -> Decoded {
    // The decoder fills with grey what it cannot read, unless it is strict, and takes the end of a
    // file for the end of the image.
    let options = DecoderOptions::default().set_strict_mode(true).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("a header without a size")?;
    limit.check(width as u64, height as u64)?;
    if !has_end(bytes) {
        return Err("a file that ends early: the mark of the image's end is missing".into());
    }
    let (space, channels) = match decoder.input_colorspace() {
        Some(space @ ColorSpace::Luma) => (space, 1),
        Some(space @ ColorSpace::LumaA) => (space, 2),
        Some(space @ ColorSpace::RGBA) => (space, 4),
        _ => (ColorSpace::RGB, 3),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let mut pixels = zeros(width.saturating_mul(height).saturating_mul(channels))?;
    decoder.decode_into(&mut pixels).map_err(|error| error.to_string())?;
    let orientation = turned(decoder.exif().map(Vec::as_slice));
    // A JPEG's sides are below 2^16.
    Ok((picture((width as u32, height as u32), channels, pixels)?, orientation))
}

/// Whether the segments of a JPEG file lead to the mark of the image's end. What stands between two
/// marks without a length is compressed data.
fn has_end(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        match rest {
            [0xff, 0xd9, ..] => return true,
            // A zero follows an 0xff that is data. Fill bytes, restarts and the start have no
            // length.
            [0xff, 0xff, tail @ ..] => rest = rest.get(1..).unwrap_or(tail),
            [0xff, 0x00 | 0x01 | 0xd0..=0xd8, tail @ ..] => rest = tail,
            [0xff, _, high, low, ..] => rest = rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default(),
            [_, tail @ ..] => rest = tail,
            [] => return false,
        }
    }
}

fn webp(bytes: &[u8], limit: Limit) -> Decoded {
    let early = || "a file that ends early".to_string();
    let Some([a, b, c, d]) = bytes.get(4..).and_then(<[u8]>::first_chunk) else { return Err(early()) };
    let end = (u32::from_le_bytes([*a, *b, *c, *d]) as usize).saturating_add(8);
    webp_parts(bytes.get(12..end).ok_or_else(early)?, limit, true)?;
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    limit.check(width.into(), height.into())?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let channels = decoder.color_type().channel_count().into();
    let mut pixels = zeros(usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX))?;
    // Of an animation it is the first picture.
    decoder.read_image(&mut pixels).map_err(|error| error.to_string())?;
    Ok((picture((width, height), channels, pixels)?, orientation))
}

/// Whether the parts of a WebP file are there, as large as they say; a picture in them is measured
/// before it is decoded, since the whole's size may be another.
fn webp_parts(mut parts: &[u8], limit: Limit, outside: bool) -> Result<(), String> {
    while let Some(([kind @ .., a, b, c, d], rest)) = parts.split_first_chunk::<8>() {
        let size = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let part = rest.get(..size).ok_or("a file that ends early")?;
        match (kind, part) {
            (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, a, b, c, d, ..]) => {
                let side = |low: u8, high: u8| u64::from(u16::from_le_bytes([low, high]) & 0x3fff);
                limit.check(side(*a, *b), side(*c, *d))?;
            }
            (b"ANMF", _) if outside => webp_parts(part.get(16..).unwrap_or_default(), limit, false)?,
            _ => {}
        }
        // Parts begin at even places.
        parts = rest.get(size.next_multiple_of(2)..).unwrap_or_default();
    }
    Ok(())
}

/// Whether the blocks of a GIF file lead to the mark of its end.
fn gif_has_end(bytes: &[u8]) -> bool {
    // A table of colours has 3 bytes for each, and a power of two of them, where its flag is set.
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let Some(flags) = bytes.get(10) else { return false };
    let mut rest = bytes.get(13 + table(*flags)..).unwrap_or_default();
    loop {
        rest = match rest {
            [0x3b, ..] => return true,
            [0x21, _, tail @ ..] => tail,
            // A picture: its place, its colours, and the width of its codes.
            [0x2c, _, _, _, _, _, _, _, _, flags, tail @ ..] => tail.get(table(*flags) + 1..).unwrap_or_default(),
            _ => return false,
        };
        // Parts with their lengths, until one that is empty.
        while let Some((length @ 1.., tail)) = rest.split_first() {
            rest = tail.get(usize::from(*length)..).unwrap_or_default();
        }
        rest = rest.get(1..).unwrap_or_default();
    }
}

fn turned(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

fn zeros(bytes: usize) -> Result<Vec<u8>, String> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(bytes).map_err(|_| format!("pixels of {bytes} bytes, and there is no memory for them"))?;
    zeros.resize(bytes, 0);
    Ok(zeros)
}

fn picture((width, height): (u32, u32), channels: usize, pixels: Vec<u8>) -> Result<DynamicImage, String> {
    let picture = match channels {
        1 => ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8),
        2 => ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageLumaA8),
        3 => ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
        4 => ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageRgba8),
        _ => None,
    };
    picture.ok_or_else(|| format!("{channels} channels"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use image::{GrayImage, Rgb, RgbImage, Rgba, RgbaImage};

    const FILES: [(&str, &[u8]); 5] = [
        ("progressive.jpg", include_bytes!("../../tests/pictures/progressive.jpg")),
        ("restarts.jpg", include_bytes!("../../tests/pictures/restarts.jpg")),
        ("cmyk.jpg", include_bytes!("../../tests/pictures/cmyk.jpg")),
        ("lossy.webp", include_bytes!("../../tests/pictures/lossy.webp")),
        ("animated.webp", include_bytes!("../../tests/pictures/animated.webp")),
    ];

    fn parse(name: &str, bytes: &[u8], megapixels: u64) -> Result<DynamicImage> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let limit = Limit::of(megapixels);
        decode(name, &super::bytes(&path, limit)?, limit)
    }

    fn refused(name: &str, bytes: &[u8], words: &str) {
        let message = parse(name, bytes, 1).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(words), "{message}");
    }

    fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.into().write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn gif(frames: &[RgbImage]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
        let frame = |frame: &RgbImage| image::Frame::new(DynamicImage::from(frame.clone()).into_rgba8());
        encoder.encode_frames(frames.iter().map(frame)).unwrap();
        drop(encoder);
        bytes
    }

    /// One of each kind, with what the crate `image` makes of it, which forgives.
    fn all() -> Vec<(&'static str, Vec<u8>)> {
        let colours = RgbImage::from_fn(24, 17, |x, y| Rgb([10 * x as u8, 14 * y as u8, (x * y) as u8]));
        let clear = RgbaImage::from_fn(9, 5, |x, y| Rgba([x as u8, y as u8, 3, 99]));
        let made = [
            ("grey.png", encoded(GrayImage::from_fn(9, 7, |x, y| image::Luma([(x * y) as u8])), ImageFormat::Png)),
            ("clear.png", encoded(clear.clone(), ImageFormat::Png)),
            ("colour.jpg", encoded(colours.clone(), ImageFormat::Jpeg)),
            ("grey.jpg", encoded(GrayImage::new(9, 7), ImageFormat::Jpeg)),
            ("colour.webp", encoded(colours.clone(), ImageFormat::WebP)),
            ("clear.webp", encoded(clear.clone(), ImageFormat::WebP)),
            ("colour.bmp", encoded(colours.clone(), ImageFormat::Bmp)),
            ("colour.tiff", encoded(colours.clone(), ImageFormat::Tiff)),
            ("clear.tiff", encoded(clear, ImageFormat::Tiff)),
            ("first.gif", gif(&[colours.clone(), image::imageops::rotate180(&colours)])),
        ];
        FILES.map(|(name, bytes)| (name, bytes.to_vec())).into_iter().chain(made).collect()
    }

    #[test]
    fn whole_files_are_read_and_what_ends_early_is_an_error() {
        for (name, bytes) in all() {
            assert_eq!(parse(name, &bytes, 1).unwrap(), image::load_from_memory(&bytes).unwrap(), "{name}");
            // What follows the end is no part of the picture.
            assert!(parse(name, &[&bytes[..], b"more"].concat(), 1).is_ok(), "{name}");
            for length in 0..bytes.len() {
                let error = parse(name, &bytes[..length], 1).err().unwrap_or_else(|| panic!("{length} bytes of {name} were read"));
                assert!(error.to_string().contains(name), "{error}");
            }
        }
    }

    #[test]
    fn huge_pictures_in_small_files_are_refused_by_their_headers() {
        refused("bomb.jpg", include_bytes!("../../tests/pictures/bomb.jpg"), "27756x28277 pixels; the limit is 1 million");
        refused("palette.png", include_bytes!("../../tests/pictures/palette.png"), "palette");
        let mut wide = encoded(GrayImage::new(8, 8), ImageFormat::Png);
        // Width and height are the first fields of the first chunk; its checksum follows.
        wide[16..24].copy_from_slice(&[0, 0, 0x20, 0, 0, 0, 0x20, 0]);
        let mut checksum = flate2::Crc::new();
        checksum.update(&wide[12..29]);
        wide[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
        refused("wide.png", &wide, "8192x8192 pixels; the limit is 1 million");
        assert!(!parse("wide.png", &wide, 68).unwrap_err().to_string().contains("limit"));
        // Of a picture inside an animation, too.
        for name in ["lossy.webp", "animated.webp"] {
            let mut bytes = FILES.iter().find(|file| file.0 == name).unwrap().1.to_vec();
            let mark = bytes.windows(3).position(|w| w == [0x9d, 0x01, 0x2a]).unwrap();
            bytes[mark + 3..mark + 7].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
            refused(name, &bytes, "16383x16383 pixels");
        }
        refused("text.png", b"FLIF89a", "another kind");
        // Only the headers of others: their sides are the first numbers.
        let small = RgbImage::new(8, 8);
        let mut bmp = encoded(small.clone(), ImageFormat::Bmp);
        bmp[18..26].copy_from_slice(&[0, 0x20, 0, 0, 0, 0x20, 0, 0]);
        refused("wide.bmp", &bmp, "8192x8192 pixels; the limit is 1 million");
        let mut wide = gif(&[small]);
        wide[6..10].copy_from_slice(&[0, 0x20, 0, 0x20]);
        refused("wide.gif", &wide, "8192x8192 pixels; the limit is 1 million");
        refused("long.jpg", &vec![0; (9 << 20) + 1], "the limit");
    }
}

//! Pictures to look at: points, images, letters, heat maps and contact sheets, as PNG files.
//!
//! ```
//! use wgrad::report::{Canvas, Tile};
//!
//! # fn main() -> wgrad::error::Result<()> {
//! let matrix = Canvas::heat_map(&[1.0, 0.2, 0.2, 1.0], [2, 2], "similarity")?;
//! let sheet = Canvas::contact_sheet(&[Tile { pixels: &[0; 12], size: [2, 2, 3] }; 6], 3, &["image", "view 1", "view 2"], &[])?;
//! # let folder = std::env::temp_dir();
//! matrix.save(&folder.join("similarity.png"))?;
//! sheet.save(&folder.join("views.png"))?;
//! # Ok(())
//! # }
//! ```

mod font;

use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};
use crate::io::atomic::write_atomically;

/// Red, green and blue.
pub type Colour = [u8; 3];

/// Where nothing was drawn.
pub const WHITE: Colour = [255; 3];
/// Letters.
pub const BLACK: Colour = [0; 3];
/// What is no number, in a heat map.
const NO_NUMBER: Colour = [255, 0, 255];

/// Longest side of a picture.
const LARGEST_SIDE: usize = 16_384;
/// Sides that heat maps' and contact sheets' small contents are enlarged to, at least.
const HEAT_MAP_SIDE: usize = 512;
const TILE_SIDE: usize = 64;
/// Space around tiles and letters.
const GAP: usize = 4;
/// Height of a line of text with the space below it.
pub const LINE: usize = font::HEIGHT + GAP;

/// An image: `size` is height, width and channels (1 or 3), `pixels` are as many bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tile<'a> {
    /// The bytes, NHWC without the N.
    pub pixels: &'a [u8],
    /// Height, width, channels.
    pub size: [usize; 3],
}

/// A picture that is drawn on. Places are (x, y) from the top left corner; what lies outside is cut
/// off.
#[derive(Debug, Clone, PartialEq)]
pub struct Canvas {
    width: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    /// A white one.
    ///
    /// # Errors
    /// [`Error::Argument`] for a side of 0 or of more than 16,384 pixels.
    pub fn new(width: usize, height: usize) -> Result<Self> {
        if [width, height].iter().any(|side| !(1..=LARGEST_SIDE).contains(side)) {
            let message = format!("expected sides of 1 to {LARGEST_SIDE} pixels, found {width}x{height}; draw less at once");
            return Err(Error::argument("canvas", message));
        }
        Ok(Self { width, pixels: vec![WHITE; width * height] })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.pixels.len() / self.width
    }

    /// The colour at a place, where there is one.
    pub fn get(&self, x: usize, y: usize) -> Option<Colour> {
        if x < self.width { self.pixels.get(y * self.width + x).copied() } else { None }
    }

    /// Mixes a pixel with `opacity` (0 to 1) of a colour.
    pub fn blend(&mut self, x: usize, y: usize, colour: Colour, opacity: f32) {
        let pixel = if x < self.width { self.pixels.get_mut(y * self.width + x) } else { None };
        for (old, new) in pixel.into_iter().flatten().zip(colour) {
            *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * opacity).round() as u8;
        }
    }

    /// A filled rectangle.
    pub fn rectangle(&mut self, [x, y]: [usize; 2], [width, height]: [usize; 2], colour: Colour) {
        for row in self.pixels.chunks_exact_mut(self.width).skip(y).take(height) {
            row.iter_mut().skip(x).take(width).for_each(|pixel| *pixel = colour);
        }
    }

    /// A filled disc with a smooth edge.
    pub fn disc(&mut self, x: f32, y: f32, radius: f32, colour: Colour, opacity: f32) {
        let reach = |centre: f32| (centre - radius - 1.0).max(0.0) as usize..=(centre + radius + 1.0).max(0.0) as usize;
        for (i, j) in reach(y).flat_map(|j| reach(x).map(move |i| (i, j))) {
            let distance = (i as f32 - x).hypot(j as f32 - y);
            self.blend(i, j, colour, opacity * (radius + 0.5 - distance).clamp(0.0, 1.0));
        }
    }

    /// An image, each of its pixels `scale` x `scale` pixels.
    ///
    /// # Errors
    /// [`Error::Argument`] where its bytes are not of its size, or it has neither 1 nor 3 channels.
    pub fn image(&mut self, [x, y]: [usize; 2], tile: Tile, scale: usize) -> Result<()> {
        let [height, width, channels] = tile.size;
        if ![1, 3].contains(&channels) || Some(tile.pixels.len()) != height.checked_mul(width).and_then(|n| n.checked_mul(channels)) {
            let found = format!("{} bytes for {height}x{width}x{channels}", tile.pixels.len());
            return Err(Error::argument("canvas", format!("expected an image's height x width x 1 or 3 bytes, found {found}")));
        }
        for (i, pixel) in tile.pixels.chunks_exact(channels).enumerate() {
            let colour = if let [r, g, b] = *pixel { [r, g, b] } else { [pixel.first().copied().unwrap_or(0); 3] };
            self.rectangle([x + i % width * scale, y + i / width * scale], [scale; 2], colour);
        }
        Ok(())
    }

    /// A line of letters of 5x7 pixels, all capitals, each pixel `scale` x `scale`.
    pub fn text(&mut self, [x, y]: [usize; 2], text: &str, colour: Colour, scale: usize) {
        for (i, letter) in text.chars().enumerate() {
            for (dx, dy) in font::dots(letter) {
                self.rectangle([x + (i * font::ADVANCE + dx) * scale, y + dy * scale], [scale; 2], colour);
            }
        }
    }

    /// Width of what [`Self::text`] draws.
    pub fn text_width(text: &str, scale: usize) -> usize {
        text.chars().count() * font::ADVANCE * scale
    }

    /// A matrix of `[rows, columns]` values as squares from dark blue (the smallest) to yellow (the
    /// largest), under a line that says `title` and the range. What is no finite number is magenta.
    ///
    /// # Errors
    /// [`Error::Argument`] where the values are not of that shape, or there are more than 16,000
    /// rows or columns.
    pub fn heat_map(values: &[f32], [rows, columns]: [usize; 2], title: &str) -> Result<Self> {
        if rows.checked_mul(columns) != Some(values.len()) {
            return Err(Error::argument("heat map", format!("expected {rows}x{columns} values, found {}", values.len())));
        }
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let (low, high) = (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
        let range = if low <= high { format!("{low:.4} .. {high:.4}") } else { "nothing finite".to_string() };
        let head = format!("{title}  {range}");
        let scale = HEAT_MAP_SIDE.div_ceil(rows.max(columns).max(1));
        let width = (columns * scale).max(Self::text_width(&head, 1)) + 2 * GAP;
        let mut canvas = Self::new(width, rows * scale + LINE + 2 * GAP)?;
        canvas.text([GAP; 2], &head, BLACK, 1);
        for (i, value) in values.iter().enumerate() {
            let part = if high > low { (value - low) / (high - low) } else { 0.5 };
            let colour = if value.is_finite() { viridis(part) } else { NO_NUMBER };
            canvas.rectangle([GAP + i % columns * scale, GAP + LINE + i / columns * scale], [scale; 2], colour);
        }
        Ok(canvas)
    }

    /// Images in rows of `columns`, captions above the columns and labels beside the rows (as many
    /// as there are, perhaps none). Images may differ in size; small ones are enlarged by whole
    /// factors.
    ///
    /// # Errors
    /// [`Error::Argument`] without images or columns, for images that are not what they say, and
    /// for too large a sheet.
    pub fn contact_sheet(tiles: &[Tile], columns: usize, captions: &[&str], labels: &[&str]) -> Result<Self> {
        let side = |axis: usize| tiles.iter().filter_map(|tile| tile.size.get(axis)).max().copied().unwrap_or(0);
        let scale = TILE_SIDE.div_ceil(side(0).max(side(1)).max(1));
        let letters = |texts: &[&str]| texts.iter().map(|text| Self::text_width(text, 1)).max().unwrap_or(0);
        let (width, height) = ((side(1) * scale).max(letters(captions)) + GAP, side(0) * scale + GAP);
        let left = if labels.is_empty() { GAP } else { GAP + letters(labels) + GAP };
        let top = if captions.is_empty() { GAP } else { GAP + LINE };
        if columns == 0 || tiles.is_empty() {
            let message = format!("expected images and columns, found {} images in {columns} columns", tiles.len());
            return Err(Error::argument("contact sheet", message));
        }
        let mut canvas = Self::new(columns * width + left, tiles.len().div_ceil(columns) * height + top)?;
        for (i, caption) in captions.iter().take(columns).enumerate() {
            canvas.text([left + i * width, GAP], caption, BLACK, 1);
        }
        for (i, label) in labels.iter().enumerate() {
            canvas.text([GAP, top + i * height], label, BLACK, 1);
        }
        for (i, tile) in tiles.iter().enumerate() {
            canvas.image([left + i % columns * width, top + i / columns * height], *tile, scale)?;
        }
        Ok(canvas)
    }

    /// The picture as a PNG file's bytes.
    ///
    /// # Errors
    /// [`Error::Data`] where it cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        PngEncoder::new(&mut file)
            .write_image(self.pixels.as_flattened(), self.width as u32, self.height() as u32, ExtendedColorType::Rgb8)
            .map_err(|error| Error::data("PNG", error.to_string()))?;
        Ok(file)
    }

    /// Writes a PNG file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomically(path, &self.png()?)
    }
}

/// matplotlib's viridis: 0 is dark blue, 1 yellow, and equal steps look equal, in grey, too.
pub fn viridis(part: f32) -> Colour {
    const STOPS: [u32; 10] = [0x440154, 0x482878, 0x3e4a89, 0x31688e, 0x26828e, 0x1f9e89, 0x35b779, 0x6ece58, 0xb5de2b, 0xfde725];
    let place = part.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let stop = |i: usize| channels(STOPS.get(i).or(STOPS.last()).copied().unwrap_or(0));
    let (from, to) = (stop(place as usize), stop(place as usize + 1));
    std::array::from_fn(|c| {
        let [a, b] = [from, to].map(|colour| colour.get(c).copied().map_or(0.0, f32::from));
        (a + (b - a) * place.fract()).round() as u8
    })
}

/// A class's colour: Tableau's ten, then hues a golden angle apart.
pub fn class_colour(class: usize) -> Colour {
    const TEN: [u32; 10] = [0x1f77b4, 0xff7f0e, 0x2ca02c, 0xd62728, 0x9467bd, 0x8c564b, 0xe377c2, 0x7f7f7f, 0xbcbd22, 0x17becf];
    if let Some(colour) = TEN.get(class) {
        return channels(*colour);
    }
    let hue = (class as f32 * 0.618_034).fract() * 6.0;
    // Each channel is a trapezium over the hue's circle.
    [0.0, 4.0, 2.0].map(|shift| (70.0 + 150.0 * (((hue + shift) % 6.0 - 3.0).abs() - 1.0).clamp(0.0, 1.0)) as u8)
}

fn channels(colour: u32) -> Colour {
    let [_, r, g, b] = colour.to_be_bytes();
    [r, g, b]
}

/// Values between `low` and `high` as bytes, others cut off: a normalised image to look at.
pub fn to_bytes(values: &[f32], low: f32, high: f32) -> Vec<u8> {
    values.iter().map(|v| (255.0 * (v - low) / (high - low)).round() as u8).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn what_is_drawn_is_what_is_saved() {
        let mut canvas = Canvas::new(20, 10).unwrap();
        canvas.rectangle([18, 8], [5, 5], [1, 2, 3]);
        canvas.image([0, 0], Tile { pixels: &[9, 8], size: [1, 2, 1] }, 2).unwrap();
        canvas.text([6, 1], "l", BLACK, 1);
        canvas.disc(-50.0, 1e9, 1.0, BLACK, 1.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        canvas.save(&path).unwrap();
        let read = image::open(&path).unwrap().into_rgb8();
        let at = |x, y| read.get_pixel(x, y).0;
        assert_eq!((at(19, 9), at(17, 9), at(1, 1), at(2, 1), at(4, 0)), ([1, 2, 3], WHITE, [9; 3], [8; 3], WHITE));
        // The letter L: a stroke down and one to the right.
        let inked = (0..5).flat_map(|x| (0..7).map(move |y| (x, y))).filter(|&(x, y)| at(6 + x, 1 + y) == BLACK).count();
        assert_eq!((inked, at(6, 1), at(10, 7)), (11, BLACK, BLACK));
    }

    #[test]
    fn heat_maps_span_their_range_and_show_what_is_no_number() {
        let map = Canvas::heat_map(&[-1.0, 0.0, 1.0, f32::NAN], [2, 2], "x").unwrap();
        let at = |x: usize, y: usize| map.get(GAP + x * 256, GAP + LINE + y * 256).unwrap();
        assert_eq!([at(0, 0), at(0, 1), at(1, 1)], [[0x44, 1, 0x54], [0xfd, 0xe7, 0x25], NO_NUMBER]);
        // The middle of the published table is #21918c.
        assert!(at(1, 0).iter().zip([0x21u8, 0x91, 0x8c]).all(|(a, b)| a.abs_diff(b) <= 3), "{:?}", at(1, 0));
        assert!(Canvas::heat_map(&[1.0; 4], [2, 2], "all alike").is_ok());
        assert!(Canvas::heat_map(&[1.0; 3], [2, 2], "x").unwrap_err().to_string().contains("expected 2x2 values, found 3"));
        assert!(Canvas::heat_map(&[], [0, 0], "").is_ok());
    }

    #[test]
    fn a_contact_sheet_has_rows_of_tiles() {
        let (small, large) = (Tile { pixels: &[7; 3], size: [1, 1, 3] }, Tile { pixels: &[9; 4], size: [2, 2, 1] });
        let sheet = Canvas::contact_sheet(&[small, large, large], 2, &["a", "b"], &[]).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (2 * 68 + 4, 2 * 68 + 4 + LINE));
        let at = |x, y| sheet.get(x, y).unwrap();
        assert_eq!((at(4, 4 + LINE), at(40, 4 + LINE), at(72, 4 + LINE), at(4, 72 + LINE)), ([7; 3], WHITE, [9; 3], [9; 3]));
        // The letter L has its stroke on the left, and tiles begin behind it.
        let labelled = Canvas::contact_sheet(&[small, large, large], 2, &[], &["l", "l"]).unwrap();
        let left = GAP + Canvas::text_width("l", 1) + GAP;
        assert_eq!((labelled.width(), labelled.height()), (2 * 68 + left, 2 * 68 + 4));
        assert_eq!([labelled.get(4, 4), labelled.get(4, 72), labelled.get(left, 4)], [Some(BLACK), Some(BLACK), Some([7; 3])]);
        assert!(Canvas::contact_sheet(&[], 2, &[], &[]).is_err() && Canvas::contact_sheet(&[small], 0, &[], &[]).is_err());
        let wrong = Canvas::contact_sheet(&[Tile { size: [1, 2, 3], ..small }], 1, &[], &[]).unwrap_err().to_string();
        assert!(wrong.contains("found 3 bytes for 1x2x3"), "{wrong}");
        assert!(Canvas::new(0, 1).is_err() && Canvas::new(1, 20_000).is_err());
    }

    #[test]
    fn letters_and_classes_differ() {
        let drawn = |letter| font::dots(letter).collect::<Vec<_>>();
        let all = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+.,:/%()=_' ?";
        for (i, a) in all.chars().enumerate() {
            assert!(all.chars().skip(i + 1).all(|b| drawn(a) != drawn(b)), "{a}");
        }
        assert_eq!(drawn('a'), drawn('A'));
        let colours: std::collections::HashSet<_> = (0..30).map(class_colour).collect();
        assert_eq!(colours.len(), 30);
        assert_eq!(to_bytes(&[-1.0, 0.0, 1.0, 9.0, f32::NAN], -1.0, 1.0), [0, 128, 255, 255, 0]);
    }
}

//! A picture in its own shape, no larger than need be.

use super::super::resample::{Axis, resample};
use super::options::PictureOptions;

/// The longest side that kernels take.
const SIDE: usize = 32_767;

/// A picture in its own shape.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Stored {
    /// Height and width.
    pub size: [i32; 2],
    /// Bytes, row by row.
    pub pixels: Vec<u8>,
}

/// Height and width that a picture is kept with: its own, or smaller ones of the same shape.
pub(super) fn kept_size([height, width]: [usize; 2], options: PictureOptions) -> [usize; 2] {
    let (short, long) = (height.min(width) as f64, height.max(width) as f64);
    let most = (options.short_side() as f64 / short).min((options.pixels() as f64 / (short * long)).sqrt()).min(SIDE as f64 / long);
    if most >= 1.0 {
        return [height, width];
    }
    // Rounded down: a picture must fit into its slot. What is nearly a line becomes one.
    let [height, width] = [height, width].map(|side| ((side as f64 * most).floor() as usize).max(1));
    let longest = options.pixels() / height.min(width);
    [height.min(longest), width.min(longest)]
}

impl Stored {
    /// Of a picture's own pixels, `C` bytes each.
    pub fn shrunk<const C: usize>(pixels: Vec<u8>, size: [usize; 2], options: PictureOptions) -> Self {
        let [height, width] = kept_size(size, options);
        let pixels = if [height, width] == size {
            pixels
        } else {
            let [vertical, horizontal] = [(size[0], height), (size[1], width)].map(|(from, to)| Axis { from, to, first: 0, count: to });
            resample::<C>(&pixels, horizontal, vertical, options.image.interpolation)
        };
        Self { size: [height as i32, width as i32], pixels }
    }
}

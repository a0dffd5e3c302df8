//! Scaling a picture as Pillow does, to the same bytes, since that is what networks were trained
//! and judged with.
//!
//! Facts from Pillow's `Resample.c`: a filter is widened by the factor that it shrinks by; weights
//! of a pixel add up to 1 in float64, are then rounded to 22 bits behind the point; rows are scaled
//! first, and rounded to bytes before columns are.

use crate::io::Interpolation;

/// Bits behind the point of a weight.
const PRECISION: u32 = 32 - 8 - 2;

impl Interpolation {
    /// How far the filter reaches at its own scale.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Bicubic => 0.0,
        }
    }
}

/// One axis of a picture: scaled from `from` to `to` pixels, of which `count` are wanted from
/// `first` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub from: usize,
    pub to: usize,
    pub first: usize,
    pub count: usize,
}

/// What a pixel is the sum of: weights of the source's pixels from `first` on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

impl Axis {
    fn taps(self, filter: Interpolation) -> Vec<Taps> {
        let scale = self.from as f64 / self.to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let taps = |pixel: usize| {
            let center = (pixel as f64 + 0.5) * scale;
            // A cast cuts off and takes what is negative to 0.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(self.from);
            let weights: Vec<f64> = (first..end).map(|x| filter.weight((x as f64 - center + 0.5) / stretch)).collect();
            let sum: f64 = weights.iter().sum();
            let weights = weights.into_iter().map(|w| (w / sum * f64::from(1 << PRECISION)).round() as i32).collect();
            Taps { first, weights }
        };
        (self.first..self.first + self.count).map(taps).collect()
    }
}

/// The wanted part of a picture of `horizontal.from` by `vertical.from` pixels of `C` bytes,
/// scaled. Nothing outside of that part is computed, so a thin picture's length does not matter.
pub(super) fn resample<const C: usize>(pixels: &[u8], horizontal: Axis, vertical: Axis, filter: Interpolation) -> Vec<u8> {
    let (columns, rows) = (horizontal.taps(filter), vertical.taps(filter));
    let above = rows.first().map_or(0, |row| row.first);
    let below = rows.last().map_or(0, |row| row.first + row.weights.len());
    let source = pixels.as_chunks::<C>().0.chunks_exact(horizontal.from.max(1));
    let mut scaled = Vec::with_capacity((below - above) * columns.len());
    for row in source.skip(above).take(below - above) {
        for column in &columns {
            let taps = row.iter().skip(column.first).zip(&column.weights);
            scaled.push(taps.fold([0; C], |sum, (pixel, weight)| plus(sum, pixel, *weight)).map(byte));
        }
    }
    let mut result = Vec::with_capacity(rows.len() * columns.len() * C);
    for row in &rows {
        let mut sums = vec![[0; C]; columns.len()];
        for (scaled, weight) in scaled.chunks_exact(columns.len().max(1)).skip(row.first - above).zip(&row.weights) {
            for (sum, pixel) in sums.iter_mut().zip(scaled) {
                *sum = plus(*sum, pixel, *weight);
            }
        }
        result.extend(sums.into_iter().flat_map(|sum| sum.map(byte)));
    }
    result
}

fn plus<const C: usize>(mut sum: [i32; C], pixel: &[u8; C], weight: i32) -> [i32; C] {
    sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i32::from(*value) * weight);
    sum
}

fn byte(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::super::picture::ImageOptions;
    use super::*;

    /// What Pillow 13.0 and torchvision 0.29 make of the same 13x9 pixels:
    /// `CenterCrop(size)(Resize(int(size / crop), ...)(picture))`.
    #[test]
    fn pictures_are_scaled_to_pillows_bytes() {
        let (width, height) = (13, 9);
        let pixel = |at: usize| (at % width, at / width);
        let values = |(x, y): (usize, usize)| [(37 * x + 11 * y) as u8, (x * x + 5 * y) as u8, 255 * ((x + y) % 2) as u8];
        let picture: Vec<u8> = (0..width * height).flat_map(|at| values(pixel(at))).collect();
        let scaled = |size, crop, squash, interpolation| {
            let [horizontal, vertical] = ImageOptions { size, grey: false, crop, squash, interpolation }.axes(width, height);
            resample::<3>(&picture, horizontal, vertical, interpolation)
        };
        #[rustfmt::skip]
        let cubic = [
            166, 19, 127, 168, 38, 127, 32, 64, 127, 110, 97, 128, 185, 28, 128, 191, 47, 128, 51, 73, 128, 129, 106, 127,
            207, 37, 127, 101, 56, 127, 71, 82, 127, 149, 115, 128, 213, 46, 128, 75, 65, 128, 93, 91, 128, 171, 124, 127,
        ];
        assert_eq!(scaled(4, 0.8, false, Interpolation::Bicubic), cubic);
        #[rustfmt::skip]
        let linear = [
            157, 20, 128, 167, 39, 127, 43, 66, 128, 111, 99, 128, 174, 28, 128, 184, 47, 128, 60, 74, 128, 128, 107, 128,
            195, 37, 128, 103, 56, 127, 81, 83, 128, 149, 116, 128, 202, 46, 128, 80, 65, 128, 102, 92, 128, 170, 125, 128,
        ];
        assert_eq!(scaled(4, 0.8, false, Interpolation::Bilinear), linear);
        #[rustfmt::skip]
        let squashed = [
            37, 3, 125, 138, 13, 128, 148, 38, 128, 60, 77, 128, 161, 126, 125, 56, 12, 128, 157, 22, 127, 170, 47, 127, 79, 86, 127,
            180, 135, 128, 76, 21, 127, 178, 31, 128, 112, 56, 128, 99, 95, 128, 202, 144, 127, 97, 30, 128, 192, 40, 127, 96, 65, 127,
            121, 104, 127, 208, 153, 128, 120, 39, 125, 177, 49, 128, 59, 74, 128, 152, 113, 128, 155, 162, 125,
        ];
        assert_eq!(scaled(5, 1.0, true, Interpolation::Bicubic), squashed);
        // Enlarged: 17x12, of which the middle 12 columns stay; overshooting values are cut off.
        let large = scaled(12, 1.0, false, Interpolation::Bicubic);
        assert_eq!(large.len(), 12 * 12 * 3);
        assert_eq!(large[..12], [51, 2, 164, 80, 5, 10, 108, 9, 255, 136, 14, 45]);
        assert_eq!(large[36..48], [58, 5, 114, 87, 8, 169, 115, 12, 78, 143, 17, 157]);
    }

    #[test]
    fn a_picture_of_the_right_size_stays_as_it_is() {
        let picture: Vec<u8> = (0..=255).collect();
        for filter in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let axis = Axis { from: 16, to: 16, first: 0, count: 16 };
            assert_eq!(resample::<1>(&picture, axis, axis, filter), picture);
            let middle = Axis { first: 5, count: 2, ..axis };
            assert_eq!(resample::<1>(&picture, middle, middle, filter), [85, 86, 101, 102]);
        }
    }
}

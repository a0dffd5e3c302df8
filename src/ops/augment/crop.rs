//! Random boxes of images resized to one size: torchvision's RandomResizedCrop.

use serde::{Deserialize, Serialize};

use super::{
    Draws, bad_drawn, below, between, check_drawn, check_side, choice, images_of, range, sample_draws, sample_inputs, stage, unit,
};
use crate::error::{Result, require_share, require_within};
use crate::gpu::{Param, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample};
use crate::ops::{Array, Attributes, Cost, Edges, Operator, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(CROP = "augment/crop");

/// The tries that a box has to fit into the image.
const TRIES: u32 = 10;

/// The filter that scales a picture, widened where it shrinks, as Pillow's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// A triangle.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -0.5.
    Bicubic,
}

/// A random box of each image, resized to `size`, perhaps mirrored.
///
/// The box has an area of `scale` times the image's, uniform, and an aspect ratio (width / height)
/// uniform in its logarithm. Ten boxes are tried; where none fits, it is the largest one of an
/// allowed ratio in the centre. Where rounding a box's side to a pixel is a near tie, adapters may
/// differ by that pixel; otherwise only in the last bits.
///
/// `draws` `[N, 4]`: left, top, width, height in pixels; a negative width means mirrored.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomResizedCrop {
    /// Height and width of the result.
    pub size: [usize; 2],
    /// Least and greatest share of the area, within 0..=1.
    pub scale: [f32; 2],
    /// Least and greatest width / height.
    pub ratio: [f32; 2],
    /// The chance of an image to be mirrored.
    pub flip: f32,
    /// How boxes are resized.
    pub interpolation: Interpolation,
    /// Where the random numbers come from.
    pub draws: Draws,
}

impl RandomResizedCrop {
    /// Aspect ratios from 3 : 4 to 4 : 3, torchvision's default.
    pub const RATIO: [f32; 2] = [0.75, 4.0 / 3.0];

    /// Refuses what no crop can be: everything but the images.
    pub(super) fn check(&self, operator: &str) -> Result<()> {
        let ([h, w], [low, high], [thin, wide]) = (self.size, self.scale, self.ratio);
        check_side(operator, "the result", h)?;
        check_side(operator, "the result", w)?;
        require_within(operator, "the greatest scale", high, [0.0, 1.0])?;
        require_within(operator, "the least scale", low, [0.0, high])?;
        require_within(operator, "the least ratio", thin, [1e-3, 1e3])?;
        require_within(operator, "the greatest ratio", wide, [thin, 1e3])?;
        require_share(operator, "flip", self.flip)?;
        Ok(())
    }

    /// What the kernel's stage `draw` is told beside the sides of images.
    pub(super) fn params(&self) -> [Param; 7] {
        let ([low, high], [thin, wide]) = (self.scale, self.ratio);
        [low, high, thin.ln(), wide.ln(), thin, wide, self.flip].map(Param::from)
    }

    pub(super) fn from_attributes(attributes: &Attributes) -> Result<Self> {
        let filters = [("bilinear", Interpolation::Bilinear), ("bicubic", Interpolation::Bicubic)];
        Ok(Self {
            size: [attributes.size("height")?, attributes.size("width")?],
            scale: range(attributes, "scale_low", "scale_high", [0.08, 1.0])?,
            ratio: range(attributes, "ratio_low", "ratio_high", Self::RATIO)?,
            flip: attributes.number_or("flip", 0.0)? as f32,
            interpolation: choice(attributes, "interpolation", filters)?,
            draws: Draws::from_attributes(attributes)?,
        })
    }

    pub(super) fn record(&self, [h, w]: [usize; 2], bits: &dyn Fn(u32) -> [u32; 2]) -> Vec<f64> {
        let (height, width) = (h as f64, w as f64);
        let logarithms = self.ratio.map(f32::ln);
        let sides = (1..=TRIES).map(|block| {
            let [area, ratio] = bits(block);
            let (area, ratio) = (between(area, self.scale) * height * width, between(ratio, logarithms).exp());
            ((area * ratio).sqrt().round_ties_even(), (area / ratio).sqrt().round_ties_even())
        });
        let fitting = sides.into_iter().find(|(x, y)| (1.0..=width).contains(x) && (1.0..=height).contains(y));
        let [low, high] = self.ratio.map(f64::from);
        let (left, top, x, y) = match fitting {
            Some((x, y)) => {
                let [left, top] = bits(TRIES + 1);
                (below(left, w - x as usize + 1) as f64, below(top, h - y as usize + 1) as f64, x, y)
            }
            None => {
                let x = if width > high * height { (height * high).round_ties_even().clamp(1.0, width) } else { width };
                let y = if width < low * height { (width / low).round_ties_even().clamp(1.0, height) } else { height };
                (((width - x) / 2.0).floor(), ((height - y) / 2.0).floor(), x, y)
            }
        };
        let [flip, _] = bits(0);
        vec![left, top, if unit(flip) < f64::from(self.flip) { -x } else { x }, y]
    }
}

/// The kernel's second stage, whichever way the boxes were made.
pub(super) fn resize(images: &Tensor, boxes: &Tensor, spec: &Spec, interpolation: Interpolation) -> Result<Tensor> {
    let [_, out_h, out_w, c] = [0, 1, 2, 3].map(|axis| spec.shape.dim(axis));
    let (h, w) = (images.shape().dim(1), images.shape().dim(2));
    let y = Tensor::empty(images.gpu(), &spec.shape, spec.dtype)?;
    let pixels = y.numel() / c;
    let walk = walk([h, w], [out_h, out_w], interpolation);
    let launch = stage(&CROP, images, c).define("CUBIC", interpolation == Interpolation::Bicubic);
    launch.write(&y).read(boxes).params(params![pixels, h, w, out_h, out_w]).walk(walk).invocations(pixels)?;
    Ok(y)
}

/// Rounds of the loops over the taps of a whole image, which is the largest box.
pub(super) fn walk([h, w]: [usize; 2], [out_h, out_w]: [usize; 2], interpolation: Interpolation) -> usize {
    let support = if interpolation == Interpolation::Bicubic { 2 } else { 1 };
    let taps = |side: usize, out: usize| side.min((2 * support * side).div_ceil(out).max(2 * support) + 1);
    rounds(taps(h, out_h), rounds(taps(w, out_w), 0))
}

/// Weights of all pixels of a side for one of `out` pixels, normalised.
fn weights(at: usize, out: usize, side: f64, interpolation: Interpolation) -> Vec<f64> {
    let filter = |d: f64| match interpolation {
        Interpolation::Bilinear => (1.0 - d).max(0.0),
        Interpolation::Bicubic if d < 1.0 => 1.5 * d.powi(3) - 2.5 * d.powi(2) + 1.0,
        Interpolation::Bicubic if d < 2.0 => -0.5 * d.powi(3) + 2.5 * d.powi(2) - 4.0 * d + 2.0,
        Interpolation::Bicubic => 0.0,
    };
    let scale = side / out as f64;
    let centre = (at as f64 + 0.5) * scale;
    let weights = (0..side as usize).map(|i| filter((i as f64 + 0.5 - centre).abs() / scale.max(1.0)));
    let total: f64 = weights.clone().sum();
    weights.map(|weight| weight / total).collect()
}

pub(super) fn resize_reference(images: &Array, boxes: &Array, [out_h, out_w]: [usize; 2], interpolation: Interpolation) -> Array {
    let (n, c) = (images.shape.dim(0), images.shape.dim(3));
    Array::from_fn([n, out_h, out_w, c], |index| {
        let [n, y, x, c] = index else { return f64::NAN };
        let [left, top, width, height] = [0, 1, 2, 3].map(|i| boxes.at(&[*n, i]));
        let x = if width < 0.0 { out_w - 1 - x } else { *x };
        let (across, down) = (weights(x, out_w, width.abs(), interpolation), weights(*y, out_h, height, interpolation));
        let row = |y: usize| {
            let weighed = across.iter().enumerate().filter(|(_, weight)| **weight != 0.0);
            weighed.map(|(x, weight)| weight * images.at(&[*n, top as usize + y, left as usize + x, *c])).sum::<f64>()
        };
        let sum: f64 = down.iter().enumerate().filter(|(_, weight)| **weight != 0.0).map(|(y, weight)| weight * row(y)).sum();
        if interpolation == Interpolation::Bicubic { sum.clamp(0.0, 1.0) } else { sum }
    })
}

impl Operator for RandomResizedCrop {
    fn name(&self) -> &str {
        "random_resized_crop"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [n, _, _, c] = check_drawn(self.name(), inputs, &self.draws)?;
        self.check(self.name())?;
        let [h, w] = self.size;
        Ok(vec![Spec::f32([n, h, w, c]), Spec::f32([n, 4])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([images, indices], [spec, _]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let (h, w) = (images.shape().dim(1), images.shape().dim(2));
        let params = [&params![h, w][..], &self.params()].concat();
        let boxes = self.draws.launch(&CROP, indices, 4, &params, rounds(10, 0))?;
        Ok(vec![resize(images, &boxes, spec, self.interpolation)?, boxes])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::Nan
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [images, indices] = exactly(self.name(), inputs)?;
        let side = [images.shape.dim(1), images.shape.dim(2)];
        let boxes = self.draws.reference(indices, 4, |bits| self.record(side, bits));
        Ok(vec![resize_reference(images, &boxes, self.size, self.interpolation), boxes])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 8.0)
    }
}

pub(super) fn entry() -> Entry {
    let make = |size, scale, draws| {
        let (ratio, interpolation) = (RandomResizedCrop::RATIO, Interpolation::Bilinear);
        RandomResizedCrop { size, scale, ratio, flip: 0.5, interpolation, draws }
    };
    Entry {
        name: "random_resized_crop",
        module: module_path!(),
        inputs: &["images", "indices"],
        outputs: &["y", "draws"],
        kernels: &[KERNELS],
        build: Box::new(|attributes: &Attributes| Ok(Box::new(RandomResizedCrop::from_attributes(attributes)?))),
        samples: Box::new(move || {
            let crop = |size, scale| make(size, scale, sample_draws());
            let sample = |shape, crop| Sample::new(crop, sample_inputs(shape));
            let bicubic = |size, scale| RandomResizedCrop { interpolation: Interpolation::Bicubic, ..crop(size, scale) };
            vec![
                sample([33, 9, 9, 1], bicubic([9, 9], [0.3, 1.0])),
                sample([5, 33, 32, 3], bicubic([33, 32], [0.08, 1.0])),
                sample([3, 33, 65, 4], bicubic([5, 7], [0.4, 1.0])),
                sample([3, 1, 1, 3], bicubic([3, 3], [0.5, 1.0])),
                sample([1, 7, 5, 1], crop([7, 5], [0.08, 1.0])),
                sample([33, 28, 28, 1], crop([28, 28], [0.3, 1.0])),
                sample([9, 33, 32, 3], crop([33, 32], [0.08, 1.0])),
                sample([7, 33, 65, 4], crop([7, 5], [0.4, 1.0])),
                sample([7, 9, 9, 4], crop([33, 3], [0.05, 0.4])),
                sample([0, 5, 5, 3], crop([5, 5], [0.08, 1.0])),
                sample([3, 1, 1, 3], crop([3, 3], [0.5, 1.0])),
                // Whole images of odd shape never fit: the fallback.
                sample([3, 33, 5, 3], crop([7, 7], [1.0, 1.0])),
                sample([3, 5, 33, 1], crop([7, 7], [1.0, 1.0])),
                sample([5, 7, 7, 3], RandomResizedCrop { ratio: [1.0, 1.0], flip: 0.0, ..crop([7, 7], [1.0, 1.0]) }),
            ]
        }),
        bad: Box::new(move || {
            let mut bad = bad_drawn(move |draws| make([5, 5], [0.08, 1.0], draws));
            let good = make([5, 5], [0.08, 1.0], sample_draws());
            let cases = [
                (RandomResizedCrop { size: [0, 5], ..good.clone() }, "the result must have sides"),
                (RandomResizedCrop { scale: [0.5, 0.2], ..good.clone() }, "the least scale must lie in 0..=0.2, found 0.5"),
                (RandomResizedCrop { scale: [0.5, 2.0], ..good.clone() }, "the greatest scale"),
                (RandomResizedCrop { ratio: [0.0, 1.0], ..good.clone() }, "the least ratio"),
                (RandomResizedCrop { ratio: [1.0, 0.5], ..good.clone() }, "the greatest ratio"),
                (RandomResizedCrop { flip: f32::NAN, ..good.clone() }, "flip must lie in 0..=1"),
            ];
            bad.extend(cases.map(|(crop, words)| Bad::new(crop, sample_inputs([2, 5, 5, 3]), words)));
            bad
        }),
    }
}

impl Tensor {
    /// A random box of each of the images `[N, H, W, C]`, resized to `[N, size, C]`: see
    /// [`RandomResizedCrop`].
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; ranges that are empty or outside their
    /// limits.
    pub fn random_resized_crop(&self, indices: &Tensor, crop: RandomResizedCrop) -> Result<Tensor> {
        images_of(crop, &[self, indices])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, GpuOptions};

    /// torchvision 0.29's and Pillow 13's results, which agree to 2e-7, of the box of 3 x 5 pixels
    /// at (1, 0) of an image of 4 x 5.
    #[test]
    fn equal_boxes_give_what_torchvision_and_pillow_give() {
        let gpu = Gpu::with(GpuOptions::from_env().unwrap()).unwrap();
        let image: Vec<f32> = (0..20).map(|i| ((i * 37 + 11) % 101) as f32 / 100.0).collect();
        let image = Tensor::from_slice(&gpu, &image, [1, 5, 4, 1]).unwrap();
        let boxes = Tensor::from_slice(&gpu, &[1.0, 0.0, 3.0, 5.0], [1, 4]).unwrap();
        let cases: [(Interpolation, [usize; 2], &[f32]); 4] = [
            (
                Interpolation::Bilinear,
                [3, 4],
                &[0.6814, 0.6421, 0.5409, 0.4114, 0.6344, 0.5851, 0.4839, 0.3644, 0.5714, 0.5321, 0.4309, 0.3014],
            ),
            (
                Interpolation::Bicubic,
                [3, 4],
                &[0.6800, 0.6618, 0.5421, 0.3959, 0.6657, 0.5887, 0.4690, 0.3816, 0.5647, 0.5466, 0.4269, 0.2806],
            ),
            (
                Interpolation::Bilinear,
                [7, 6],
                &[0.4800, 0.5725, 0.7575, 0.6900, 0.3700, 0.2100, 0.7486, 0.6968, 0.5932, 0.5257, 0.4943, 0.4786],
            ),
            (
                Interpolation::Bicubic,
                [7, 6],
                &[0.4148, 0.5493, 0.8345, 0.7562, 0.3246, 0.1210, 0.8020, 0.7293, 0.5752, 0.4969, 0.5046, 0.5082],
            ),
        ];
        for (interpolation, [h, w], expected) in cases {
            let found = resize(&image, &boxes, &Spec::f32([1, h, w, 1]), interpolation).unwrap().to_vec::<f32>().unwrap();
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{interpolation:?} {found:?}");
        }
    }
}

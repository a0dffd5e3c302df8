//! RandAugment (Cubuk et al., "RandAugment: practical automated data augmentation with a reduced
//! search space", 2020, arXiv:1909.13719).

mod launch;
mod spec;

use serde::{Deserialize, Serialize};

use super::{Draws, check_drawn, choice, images_of};
use crate::error::{Error, Result};
use crate::gpu::rounds;
use crate::ops::entry::Entry;
use crate::ops::{Array, Attributes, Cost, Edges, Operator, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

/// How an image is read between its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// The nearest pixel, torchvision's default.
    #[default]
    Nearest,
    /// The four around, by their distances; what torchvision's reference recipes use.
    Bilinear,
}

/// `num_ops` operations for each image, drawn from fourteen, one after another: torchvision's
/// `RandAugment` on floats in 0..1.
///
/// With `r = magnitude / (num_magnitude_bins - 1)` and a sign that is drawn, too, the operations
/// are, in torchvision's order: Identity; ShearX and ShearY by 0.3 r; TranslateX and TranslateY by
/// whole pixels, 150 / 331 r of the side; Rotate by 30 r degrees; Brightness, Color, Contrast and
/// Sharpness by a factor of 1 + 0.9 r; and without a sign Posterize to 8 - round(4 r) bits,
/// Solarize from 1 - r up, AutoContrast, Equalize. What comes from outside is black, and grey is
/// 0.2989 R + 0.587 G + 0.114 B. Posterize and Equalize work on bytes, `floor(255.999 x)`, and give
/// them back divided by 255: torchvision's conversion, there and back. Where such a rounding, or
/// that of the nearest pixel, is a near tie, adapters may differ by a step or a pixel; otherwise
/// only in the last bits. A fourth channel is moved, and else stays as it is.
///
/// `draws` `[N, 4 num_ops]`: for each operation its number, 0 to 13; its magnitude (a shear,
/// pixels, degrees, a factor less 1, bits, a threshold; else 0); cosine and sine of a rotation.
#[derive(Debug, Clone, PartialEq)]
pub struct RandAugment {
    /// Operations an image, 1 to 16.
    pub num_ops: usize,
    /// Their strength, below `num_magnitude_bins`.
    pub magnitude: usize,
    /// Strengths that there are, at least 2: torchvision's default is 31.
    pub num_magnitude_bins: usize,
    /// How the image is read where it is moved.
    pub sampling: Sampling,
    /// Where the random numbers come from.
    pub draws: Draws,
}

/// The magnitudes of [`RandAugment`], without a sign.
struct Magnitudes {
    shear: f32,
    across: f32,
    down: f32,
    degrees: f32,
    change: f32,
    bits: f32,
    threshold: f32,
}

impl RandAugment {
    /// torchvision's number of strengths.
    pub const BINS: usize = 31;

    /// As torchvision finds them, in f32: `torch.linspace` counts from the nearer end.
    fn magnitudes(&self, [h, w]: [usize; 2]) -> Magnitudes {
        let (at, last) = (self.magnitude, self.num_magnitude_bins.saturating_sub(1));
        let along = |start: f32, end: f32| {
            let step = (end - start) / last as f32;
            if at < self.num_magnitude_bins / 2 { start + step * at as f32 } else { end - step * last.saturating_sub(at) as f32 }
        };
        let shift = |side: usize| along(0.0, (150.0 / 331.0 * side as f64) as f32).trunc();
        Magnitudes {
            shear: along(0.0, 0.3),
            across: shift(w),
            down: shift(h),
            degrees: along(0.0, 30.0),
            change: along(0.0, 0.9),
            bits: 8.0 - (at as f32 / (last as f64 / 4.0) as f32).round_ties_even(),
            threshold: along(1.0, 0.0),
        }
    }

    fn check(&self) -> Result<()> {
        if !(1..=16).contains(&self.num_ops) {
            return Err(Error::argument(self.name(), format!("num_ops must lie in 1..=16, found {}", self.num_ops)));
        }
        if !(2..=1 << 16).contains(&self.num_magnitude_bins) {
            let message = format!("num_magnitude_bins must lie in 2..=65536, found {}", self.num_magnitude_bins);
            return Err(Error::argument(self.name(), message));
        }
        if self.magnitude >= self.num_magnitude_bins {
            let message = format!("magnitude must be below num_magnitude_bins, {}, found {}", self.num_magnitude_bins, self.magnitude);
            return Err(Error::argument(self.name(), message));
        }
        Ok(())
    }

    /// Does to `images` `[N, H, W, C]` what `draws` `[N, 4 num_ops]` say: what was drawn before, or
    /// chosen by hand.
    ///
    /// # Errors
    /// Anything but f32 images with a record each; settings outside their limits.
    pub fn replay(&self, images: &Tensor, draws: &Tensor) -> Result<Tensor> {
        self.check()?;
        launch::apply(self, images, draws)
    }
}

impl Operator for RandAugment {
    fn name(&self) -> &str {
        "rand_augment"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [n, h, w, c] = check_drawn(self.name(), inputs, &self.draws)?;
        self.check()?;
        Ok(vec![Spec::f32([n, h, w, c]), Spec::f32([n, 4 * self.num_ops])])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [images, indices] = exactly(self.name(), inputs)?;
        let m = self.magnitudes([images.shape().dim(1), images.shape().dim(2)]);
        let params = params![m.shear, m.across, m.down, m.degrees, m.change, m.bits, m.threshold, self.num_ops];
        let draws = self.draws.launch(&launch::RAND_AUGMENT, indices, 4 * self.num_ops, params, rounds(self.num_ops, 0))?;
        Ok(vec![launch::apply(self, images, &draws)?, draws])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::Nan
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        spec::reference(self, inputs)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 12.0 * self.num_ops as f64)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(RandAugment {
        num_ops: attributes.size_or("num_ops", 2)?,
        magnitude: attributes.size_or("magnitude", 9)?,
        num_magnitude_bins: attributes.size_or("num_magnitude_bins", RandAugment::BINS)?,
        sampling: choice(attributes, "sampling", [("nearest", Sampling::Nearest), ("bilinear", Sampling::Bilinear)])?,
        draws: Draws::from_attributes(attributes)?,
    }))
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "rand_augment",
        module: module_path!(),
        inputs: &["images", "indices"],
        outputs: &["y", "draws"],
        kernels: &[launch::KERNELS],
        build: Box::new(build),
        samples: Box::new(spec::samples),
        bad: Box::new(spec::bad),
    }
}

impl Tensor {
    /// Images `[N, H, W, C]` after operations that are drawn for each: see [`RandAugment`].
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; settings outside their limits.
    pub fn rand_augment(&self, indices: &Tensor, augment: RandAugment) -> Result<Tensor> {
        images_of(augment, &[self, indices])
    }
}

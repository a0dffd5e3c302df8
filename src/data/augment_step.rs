//! One step of an augmentation pipeline, as recipes of steps write it.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ops::augment::{
    Color, Draws, Edge, ErasingValue, GaussianBlur, Interpolation, JitterStyle, RandAugment, RandomErasing, RandomResizedCrop, Sampling,
};
use crate::tensor::Tensor;

/// One step of a pipeline. Chances lie in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum AugmentStep {
    /// A random box, resized: [`RandomResizedCrop`].
    RandomResizedCrop {
        /// Height and width of the result; the image's own where it is not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<[usize; 2]>,
        /// Least and greatest share of the area.
        scale: [f32; 2],
        /// Least and greatest width / height.
        #[serde(default = "default_ratio")]
        ratio: [f32; 2],
        /// The chance of being mirrored.
        #[serde(default)]
        flip: f32,
        /// How boxes are resized.
        #[serde(default)]
        interpolation: Interpolation,
    },
    /// Padding by reflection, then a random crop of the old size:
    /// [`ReflectCrop`](crate::ops::augment::ReflectCrop).
    ReflectCrop {
        /// Pixels of padding on each side.
        pad: usize,
        /// The chance of being mirrored.
        #[serde(default)]
        flip: f32,
    },
    /// Left and right exchanged.
    HorizontalFlip {
        /// The chance of it.
        p: f32,
    },
    /// Jittered colours, then perhaps grey: [`Color`].
    ColorJitter {
        /// Whose jitter it is.
        #[serde(default)]
        style: JitterStyle,
        /// Strength of brightness.
        #[serde(default)]
        brightness: f32,
        /// Strength of contrast.
        #[serde(default)]
        contrast: f32,
        /// Strength of saturation.
        #[serde(default)]
        saturation: f32,
        /// Largest turn of the hue, at most 0.5.
        #[serde(default)]
        hue: f32,
        /// The chance of jitter.
        p: f32,
        /// The chance of becoming grey after it: as a step [`AugmentStep::Grayscale`] would, in the
        /// same pass.
        #[serde(default)]
        grayscale: f32,
    },
    /// No colour.
    Grayscale {
        /// The chance of it.
        p: f32,
    },
    /// Bright values inverted.
    Solarize {
        /// The least value that is inverted.
        threshold: f32,
        /// The chance of it.
        p: f32,
    },
    /// Blur of random width: [`GaussianBlur`].
    GaussianBlur {
        /// Pixels of the kernel along an axis, odd.
        kernel: usize,
        /// Least and greatest standard deviation in pixels.
        sigma: [f32; 2],
        /// The chance of it.
        p: f32,
        /// What lies outside.
        #[serde(default)]
        edge: Edge,
    },
    /// A square set to 0: [`Cutout`](crate::ops::augment::Cutout).
    Cutout {
        /// The square's side in pixels.
        size: usize,
        /// The chance of it.
        p: f32,
    },
    /// Operations that are drawn for each image: [`RandAugment`].
    RandAugment {
        /// Operations an image.
        num_ops: usize,
        /// Their strength.
        magnitude: usize,
        /// Strengths that there are.
        #[serde(default = "default_bins")]
        num_magnitude_bins: usize,
        /// How the image is read where it is moved.
        #[serde(default)]
        sampling: Sampling,
    },
    /// A random box erased: [`RandomErasing`]. [`normalized`](super::Augmentation::normalized) moves
    /// it behind the colours' normalisation, where published recipes have it.
    RandomErasing {
        /// The chance of it.
        p: f32,
        /// Least and greatest share of the area.
        #[serde(default = "default_erased")]
        scale: [f32; 2],
        /// Least and greatest height / width.
        #[serde(default = "default_erased_ratio")]
        ratio: [f32; 2],
        /// What is written: a number, or `"random"`.
        #[serde(default)]
        value: ErasingValue,
    },
    /// The centre, resized; nothing random: [`CenterResize`](crate::ops::augment::CenterResize).
    CenterResize {
        /// Height and width of the result.
        size: [usize; 2],
        /// The square's side as a part of the image's shorter side.
        fraction: f32,
    },
    /// A grey image as red, green and blue alike.
    ToRgb,
    /// `(x - mean) / std`; a grey image takes the first numbers.
    Normalize {
        /// The mean of each channel.
        mean: [f32; 3],
        /// The standard deviation of each channel.
        std: [f32; 3],
    },
}

fn default_ratio() -> [f32; 2] {
    RandomResizedCrop::RATIO
}

fn default_bins() -> usize {
    RandAugment::BINS
}

fn default_erased() -> [f32; 2] {
    RandomErasing::SCALE
}

fn default_erased_ratio() -> [f32; 2] {
    RandomErasing::RATIO
}

impl AugmentStep {
    pub(super) fn apply(&self, images: &Tensor, indices: &Tensor, draws: Draws) -> Result<Tensor> {
        match *self {
            AugmentStep::RandomResizedCrop { size, scale, ratio, flip, interpolation } => {
                let size = size.unwrap_or([images.shape().dim(1), images.shape().dim(2)]);
                images.random_resized_crop(indices, RandomResizedCrop { size, scale, ratio, flip, interpolation, draws })
            }
            AugmentStep::ReflectCrop { pad, flip } => images.reflect_crop(indices, pad, flip, draws),
            AugmentStep::HorizontalFlip { p } => images.horizontal_flip(indices, p, draws),
            AugmentStep::ColorJitter { style, brightness, contrast, saturation, hue, p, grayscale } => {
                let jitter = Color::jitter([brightness, contrast, saturation, hue], p, draws);
                images.color_jitter(indices, Color { style, grayscale, ..jitter })
            }
            AugmentStep::Grayscale { p } => images.grayscale(indices, p, draws),
            AugmentStep::Solarize { threshold, p } => images.solarize(indices, threshold, p, draws),
            AugmentStep::GaussianBlur { kernel, sigma, p, edge } => {
                images.gaussian_blur(indices, GaussianBlur { kernel, sigma, p, edge, draws })
            }
            AugmentStep::Cutout { size, p } => images.cutout(indices, size, p, draws),
            AugmentStep::RandAugment { num_ops, magnitude, num_magnitude_bins, sampling } => {
                images.rand_augment(indices, RandAugment { num_ops, magnitude, num_magnitude_bins, sampling, draws })
            }
            AugmentStep::RandomErasing { p, scale, ratio, value } => {
                images.random_erasing(indices, RandomErasing { p, scale, ratio, value, draws })
            }
            AugmentStep::CenterResize { size, fraction } => images.center_resize(size, fraction),
            AugmentStep::ToRgb => {
                images.shape().array().filter(|s| s[3] == 1).map_or(Ok(images.clone()), |[n, h, w, _]| images.expand(&[n, h, w, 3]))
            }
            AugmentStep::Normalize { mean, std } => images.normalize_images(mean, std),
        }
    }
}

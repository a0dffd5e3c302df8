//! Image augmentation: operators without a backward, replayable from a seed.
//!
//! An image's random numbers are a function of the seed, the epoch, its place in the data set, the
//! view and the step of the pipeline: never of the batch that it is in. Each random operator
//! returns two tensors: the images, and `draws`, what was drawn for each image (its crop box, its
//! colour factors), so that a choice can be looked at, tested and reused.
//!
//! Images are f32 `[N, H, W, C]` with values in 0..1 and 1, 3 or 4 channels; the fourth is padding
//! behind red, green and blue.

mod center_resize;
mod color;
mod crop;
mod crop_pictures;
mod cutout;
mod gaussian_blur;
mod mix_images;
mod mixup_target;
mod noise;
mod normalize;
mod rand_augment;
mod random_erasing;
mod reflect_crop;
mod unpack;

pub use center_resize::CenterResize;
pub use color::{Color, JitterStyle};
pub use crop::{Interpolation, RandomResizedCrop};
pub use crop_pictures::CropPictures;
pub use cutout::Cutout;
pub use gaussian_blur::{Edge, GaussianBlur};
pub use mix_images::MixImages;
pub use mixup_target::MixupTarget;
pub use noise::{Distribution, Noise};
pub use normalize::Normalize;
pub use rand_augment::{RandAugment, Sampling};
pub use random_erasing::{ErasingValue, Noisy, RandomErasing};
pub use reflect_crop::ReflectCrop;
pub use unpack::Unpack;

use super::entry::Entry;
use super::sample::{Bad, Input, Sample, indices as random_indices, uniform};
use super::{Array, Attributes, Operator, apply, exactly, require_f32};
use crate::error::{Error, Result};
use crate::gpu::{Kernel, Launch, Param, Scalar};
use crate::params;
use crate::tensor::random::{Purpose, threefry2x32, uniform_from_bits};
use crate::tensor::{DType, Spec, Tensor};

/// What an augmentation's random numbers are drawn for, apart from the image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Draws {
    /// The run's seed.
    pub seed: u32,
    /// The epoch, below 65536.
    pub epoch: Scalar<u32>,
    /// Which of the views of an image, below 256.
    pub view: u32,
    /// The step's place in its pipeline, below 2^24: the same step twice draws twice.
    pub step: u32,
}

impl Draws {
    fn check(&self, operator: &str) -> Result<()> {
        for (what, value, limit) in [("epoch", self.epoch.get(), 1 << 16), ("view", self.view, 1 << 8), ("step", self.step, 1 << 24)] {
            if value >= limit {
                return Err(Error::argument(operator, format!("{what} must be below {limit}, found {value}")));
            }
        }
        Ok(())
    }

    fn from_attributes(attributes: &Attributes) -> Result<Self> {
        let number = |name| Ok(u32::try_from(attributes.size_or(name, 0)?).unwrap_or(u32::MAX));
        Ok(Self { seed: number("seed")?, epoch: number("epoch")?.into(), view: number("view")?, step: number("step")? })
    }

    /// The second word of the key, and what the second word of the counter starts from.
    fn key_and_counter(&self) -> (u32, Scalar<u32>) {
        let view = self.view;
        (Purpose::Augment.numbered(self.step), self.epoch.map(move |epoch| epoch << 16 | view << 8))
    }

    /// 64 random bits for the image at place `index` of the data set; `block`, below 256, counts
    /// what one step draws.
    ///
    /// Threefry-2x32-20 with the key (seed, `Augment` + step) and the counter (index, epoch * 2^16 + view * 2^8 + block).
    pub fn bits(&self, index: u32, block: u32) -> [u32; 2] {
        let (key, counter) = self.key_and_counter();
        threefry2x32([self.seed, key], [index, counter.get().wrapping_add(block)])
    }

    /// Runs a kernel's stage `draw`: a record of `width` floats for each image, drawn in so many
    /// rounds.
    fn launch(&self, kernel: &Kernel, indices: &Tensor, width: usize, params: &[Param], walk: usize) -> Result<Tensor> {
        let n = indices.numel();
        let records = Tensor::empty(indices.gpu(), [n, width], DType::F32)?;
        let (key, counter) = self.key_and_counter();
        let all = [params![n, self.seed, key, counter], params].concat();
        Launch::new(indices.gpu(), kernel, "draw")
            .define("STAGE", "draw")
            .read(indices)
            .write(&records)
            .params(&all)
            .walk(walk)
            .invocations(n)?;
        Ok(records)
    }

    /// The float64 counterpart: `record` gives an image's record from a function of the block.
    fn reference(&self, indices: &Array, width: usize, record: impl Fn(&dyn Fn(u32) -> [u32; 2]) -> Vec<f64>) -> Array {
        // Through i32, as the device holds them.
        let data = indices.data.iter().flat_map(|index| record(&|block| self.bits(*index as i32 as u32, block))).collect();
        Array::new([indices.data.len(), width], data)
    }
}

/// The references' view of random bits; exact, like the kernels'.
fn unit(bits: u32) -> f64 {
    f64::from(uniform_from_bits(bits))
}

fn below(bits: u32, n: usize) -> usize {
    ((u64::from(bits >> 16) * n as u64) >> 16) as usize
}

fn between(bits: u32, [low, high]: [f32; 2]) -> f64 {
    f64::from(low) + unit(bits) * (f64::from(high) - f64::from(low))
}

/// Prepares a kernel's stage `apply` on pixels of `channels`.
fn stage<'a>(kernel: &'a Kernel, images: &'a Tensor, channels: usize) -> Launch<'a> {
    Launch::new(images.gpu(), kernel, "apply").define("STAGE", "apply").define("CHANNELS", channels as u32).read(images)
}

/// The sizes of images that the family takes.
fn check_images(operator: &str, images: &Spec) -> Result<[usize; 4]> {
    require_f32(operator, "images", images)?;
    let Some(sizes @ [_, h, w, c]) = images.shape.array() else {
        return Err(Error::shape(operator, format!("images must have shape [N, H, W, C], found {}", images.shape)));
    };
    if !matches!(c, 1 | 3 | 4) {
        return Err(Error::shape(operator, format!("images must have 1, 3 or 4 channels, found {}", images.shape)));
    }
    check_side(operator, "images", h)?;
    check_side(operator, "images", w)?;
    Ok(sizes)
}

/// Whole random numbers are drawn from 16 bits, so sides have as many.
fn check_side(operator: &str, what: &str, side: usize) -> Result<()> {
    if (1..1 << 15).contains(&side) {
        return Ok(());
    }
    Err(Error::shape(operator, format!("{what} must have sides of 1 to 32767 pixels, found {side}")))
}

/// The sizes of images with an index each, whose random numbers `draws` can number.
fn check_drawn(operator: &str, inputs: &[Spec], draws: &Draws) -> Result<[usize; 4]> {
    let [images, indices] = exactly(operator, inputs)?;
    let sizes @ [n, ..] = check_images(operator, images)?;
    if indices.dtype != DType::I32 {
        return Err(Error::dtype(operator, format!("indices must be i32, found {}", indices.dtype)));
    }
    if indices.shape.array() != Some([n]) {
        return Err(Error::shape(operator, format!("{n} images need indices of shape [{n}], found {}", indices.shape)));
    }
    draws.check(operator)?;
    Ok(sizes)
}

/// The sizes of images with a record of `width` numbers each.
fn check_records(operator: &str, images: &Tensor, draws: &Tensor, width: usize) -> Result<[usize; 4]> {
    let sizes @ [n, ..] = check_images(operator, images.spec())?;
    require_f32(operator, "draws", draws.spec())?;
    if draws.shape().array() != Some([n, width]) {
        return Err(Error::shape(operator, format!("{n} images need draws of shape [{n}, {width}], found {}", draws.shape())));
    }
    Ok(sizes)
}

/// The images, without what was drawn.
fn images_of(operator: impl Operator, inputs: &[&Tensor]) -> Result<Tensor> {
    let name = operator.name().to_string();
    apply(operator, inputs)?.into_iter().next().ok_or_else(|| Error::argument(name, "it has no output"))
}

/// The two numbers of a range attribute.
fn range(attributes: &Attributes, low: &str, high: &str, default: [f32; 2]) -> Result<[f32; 2]> {
    let [a, b] = default.map(f64::from);
    Ok([attributes.number_or(low, a)? as f32, attributes.number_or(high, b)? as f32])
}

/// One of several named values; the first is the default.
fn choice<T: Copy, const N: usize>(attributes: &Attributes, name: &str, choices: [(&str, T); N]) -> Result<T> {
    let names = choices.map(|(name, _)| name);
    let text = attributes.text_or(name, names.first().copied().unwrap_or_default())?;
    let found = choices.into_iter().find(|(name, _)| *name == text).map(|(_, value)| value);
    found.ok_or_else(|| Error::argument(name, format!("expected {}, found \"{text}\"", names.join(" or "))))
}

/// Draws to test with: every word differs from zero.
fn sample_draws() -> Draws {
    Draws { seed: 7, epoch: 3.into(), view: 1, step: 2 }
}

/// Random images with random places in a data set.
fn sample_inputs([n, h, w, c]: [usize; 4]) -> Vec<Input> {
    vec![uniform([n, h, w, c], 0.0, 1.0), random_indices([n], 60_000)]
}

/// Images of odd sizes and every number of channels.
const SAMPLE_SHAPES: [[usize; 4]; 6] = [[1, 7, 5, 1], [7, 5, 7, 3], [5, 9, 6, 4], [0, 5, 5, 3], [33, 7, 7, 1], [9, 33, 65, 4]];

/// A sample for each of [`SAMPLE_SHAPES`].
fn samples_of<O: Operator>(make: impl Fn() -> O) -> Vec<Sample> {
    SAMPLE_SHAPES.iter().map(|shape| Sample::new(make(), sample_inputs(*shape))).collect()
}

/// What every random operator refuses.
fn bad_drawn<O: Operator>(make: impl Fn(Draws) -> O) -> Vec<Bad> {
    let good = || make(sample_draws());
    let image = || uniform([2, 5, 5, 3], 0.0, 1.0);
    let index = || random_indices([2], 9);
    vec![
        Bad::new(good(), [image()], "it takes 2 inputs, 1 were given"),
        Bad::new(good(), [random_indices([2, 5, 5, 3], 9), index()], "images must be f32"),
        Bad::new(good(), [uniform([2, 5, 5], 0.0, 1.0), index()], "shape [N, H, W, C]"),
        Bad::new(good(), [uniform([2, 5, 5, 2], 0.0, 1.0), index()], "1, 3 or 4 channels"),
        Bad::new(good(), [uniform([2, 0, 5, 3], 0.0, 1.0), index()], "sides of 1 to 32767 pixels, found 0"),
        Bad::new(good(), [image(), uniform([2], 0.0, 1.0)], "indices must be i32"),
        Bad::new(good(), [image(), random_indices([3], 9)], "indices of shape [2]"),
        Bad::new(make(Draws { epoch: (1 << 16).into(), ..sample_draws() }), [image(), index()], "epoch must be below 65536"),
        Bad::new(make(Draws { view: 256, ..sample_draws() }), [image(), index()], "view must be below 256"),
    ]
}

/// The family's lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = vec![unpack::entry(), cutout::entry(), gaussian_blur::entry(), noise::entry(), normalize::entry()];
    entries.extend([mix_images::entry(), mixup_target::entry(), rand_augment::entry(), random_erasing::entry()]);
    entries.extend(color::entries());
    entries.extend([crop::entry(), center_resize::entry(), crop_pictures::entry()]);
    entries.extend(reflect_crop::entries());
    entries
}

#[cfg(test)]
mod tests;

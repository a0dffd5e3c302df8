//! Random crops of pictures of many sizes, taken from their bytes as they are stored.

use super::crop::{self, CROP, resize_reference, walk};
use super::{Draws, Interpolation, RandomResizedCrop, images_of, sample_draws};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Launch, rounds};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices as random_indices, uniform};
use crate::ops::{Array, Attributes, Cost, Edges, Operator, exactly};
use crate::params;
use crate::tensor::{DType, Shape, Spec, Tensor};

/// The longest side of a picture.
const SIDE: usize = 32_767;

/// As [`RandomResizedCrop`], of pictures that each have a size of their own: torchvision's order of
/// things, where a box is chosen in the whole photograph and not in a square that was cut from it.
///
/// `words` `[N, W]` hold a picture each, four bytes a word, lowest byte first: `channels` bytes a
/// pixel, row by row; what follows the last pixel is not read. `sizes` `[N, 2]` are heights and
/// widths. The result is f32 in 0..1, `[N, size, out_channels]`; a picture whose size is not one of
/// 1 to 32767 pixels a side, or does not fit into its words, becomes NaN.
///
/// `draws` `[N, 4]`: as of [`RandomResizedCrop`].
#[derive(Debug, Clone, PartialEq)]
pub struct CropPictures {
    /// What is drawn, and the size of the result.
    pub crop: RandomResizedCrop,
    /// Bytes a pixel, 1 or 3.
    pub channels: usize,
    /// Channels of the result: as many, or 4 for 3, where the fourth is 0.
    pub out_channels: usize,
}

impl CropPictures {
    fn launch<'a>(&self, gpu: &'a Gpu, stage: &'static str) -> Launch<'a> {
        Launch::new(gpu, &CROP, stage).define("STAGE", stage).define("PICTURES", true).define("BYTES", self.channels as u32)
    }

    /// Height and width of a picture in a row of so many words; `None` where it cannot be.
    fn side(&self, sizes: &Array, picture: usize, words: usize) -> Option<[usize; 2]> {
        let [h, w] = [0, 1].map(|axis| sizes.at(&[picture, axis]));
        let side = |side: f64| (1.0..=SIDE as f64).contains(&side).then_some(side as usize);
        let (h, w) = (side(h)?, side(w)?);
        (h * w <= words * 4 / self.channels.max(1)).then_some([h, w])
    }
}

impl Operator for CropPictures {
    fn name(&self) -> &str {
        "crop_pictures"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [words, sizes, indices] = exactly(self.name(), inputs)?;
        for (name, spec) in [("words", words), ("sizes", sizes), ("indices", indices)] {
            if spec.dtype != DType::I32 {
                return Err(Error::dtype(self.name(), format!("{name} must be i32, found {}", spec.dtype)));
            }
        }
        let Some([n, _]) = words.shape.array() else {
            return Err(Error::shape(self.name(), format!("words must have shape [N, W], found {}", words.shape)));
        };
        for (name, spec, expected) in [("sizes", sizes, Shape::from([n, 2])), ("indices", indices, Shape::from([n]))] {
            if spec.shape != expected {
                return Err(Error::shape(self.name(), format!("{n} pictures need {name} of shape {expected}, found {}", spec.shape)));
            }
        }
        if !matches!((self.channels, self.out_channels), (1, 1) | (3, 3 | 4)) {
            let message = format!("1 channel stays 1 and 3 become 3 or 4, found {} to {}", self.channels, self.out_channels);
            return Err(Error::shape(self.name(), message));
        }
        self.crop.check(self.name())?;
        self.crop.draws.check(self.name())?;
        let [h, w] = self.crop.size;
        Ok(vec![Spec::f32([n, h, w, self.out_channels]), Spec::f32([n, 4])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([words, sizes, indices], [spec, records]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let (gpu, slot, [out_h, out_w]) = (words.gpu(), words.shape().dim(1), self.crop.size);
        let (n, boxes) = (indices.numel(), Tensor::empty(words.gpu(), &records.shape, records.dtype)?);
        let (key, counter) = self.crop.draws.key_and_counter();
        self.launch(gpu, "draw")
            .read(*indices)
            .write(&boxes)
            .read(*sizes)
            .params(&[&params![n, self.crop.draws.seed, key, counter, slot][..], &self.crop.params()].concat())
            .walk(rounds(10, 0))
            .invocations(n)?;
        let y = Tensor::empty(gpu, &spec.shape, spec.dtype)?;
        let pixels = y.numel() / self.out_channels.max(1);
        // The longest picture that a row holds, lying or standing, and a square beside it.
        let most = slot * 4 / self.channels.max(1);
        let thin = [[most.min(SIDE), 1], [1, most.min(SIDE)]].map(|side| walk(side, self.crop.size, self.crop.interpolation));
        let square = walk([most.isqrt() + 1; 2], self.crop.size, self.crop.interpolation);
        self.launch(gpu, "apply")
            .define("CHANNELS", self.out_channels as u32)
            .define("CUBIC", self.crop.interpolation == Interpolation::Bicubic)
            .read(*words)
            .write(&y)
            .read(&boxes)
            .read(*sizes)
            .params(params![pixels, slot, out_h, out_w])
            .walk(thin.into_iter().sum::<usize>() + square)
            .invocations(pixels)?;
        Ok(vec![y, boxes])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::Nan
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [words, sizes, indices] = exactly(self.name(), inputs)?;
        let (slot, [h, w]) = (words.shape.dim(1), self.crop.size);
        let (mut y, mut boxes) = (Vec::new(), Vec::new());
        for (picture, words) in words.data.chunks(slot.max(1)).take(indices.data.len()).enumerate() {
            let index = Array::new([1], vec![indices.at(&[picture])]);
            let Some([height, width]) = self.side(sizes, picture, slot) else {
                y.extend(std::iter::repeat_n(f64::NAN, h * w * self.out_channels));
                boxes.extend([f64::NAN; 4]);
                continue;
            };
            let bytes: Vec<u8> = words.iter().flat_map(|word| (*word as i32).to_le_bytes()).collect();
            let image = Array::from_fn([1, height, width, self.out_channels], |at| {
                let [_, y, x, c] = at else { return f64::NAN };
                let byte = bytes.get((y * width + x) * self.channels + c).filter(|_| *c < self.channels);
                byte.map_or(0.0, |byte| f64::from(*byte) / 255.0)
            });
            let own = self.crop.draws.reference(&index, 4, |bits| self.crop.record([height, width], bits));
            y.extend(resize_reference(&image, &own, self.crop.size, self.crop.interpolation).data);
            boxes.extend(own.data);
        }
        let n = indices.data.len();
        Ok(vec![Array::new([n, h, w, self.out_channels], y), Array::new([n, 4], boxes)])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 8.0)
    }
}

/// Pictures of these sizes, each in a row of `slot` words of every byte that there is.
fn sample_inputs(sizes: &[[i32; 2]], slot: usize) -> Vec<Input> {
    let word = |i: usize| f64::from((i as u32).wrapping_mul(0x9E37_79B9).wrapping_add(0x7F4A_7C15) as i32);
    let n = sizes.len();
    let words = (0..n * slot).map(word).collect();
    let sizes = sizes.iter().flatten().map(|side| f64::from(*side)).collect();
    vec![Input::Values(Array::integers([n, slot], words)), Input::Values(Array::integers([n, 2], sizes)), random_indices([n], 60_000)]
}

fn sample_crop(size: [usize; 2], scale: [f32; 2], draws: Draws) -> RandomResizedCrop {
    let (ratio, interpolation) = (RandomResizedCrop::RATIO, Interpolation::Bilinear);
    RandomResizedCrop { size, scale, ratio, flip: 0.5, interpolation, draws }
}

fn samples() -> Vec<Sample> {
    let crop = |size, scale| sample_crop(size, scale, sample_draws());
    let of = |crop, [channels, out_channels]: [usize; 2], sizes: &[[i32; 2]], slot| {
        Sample::new(CropPictures { crop, channels, out_channels }, sample_inputs(sizes, slot))
    };
    let bicubic = |crop| RandomResizedCrop { interpolation: Interpolation::Bicubic, ..crop };
    let many: Vec<[i32; 2]> = (0..33).map(|i| [1 + i * 7 % 30, 1 + i * 11 % 31]).collect();
    vec![
        of(crop([7, 5], [0.08, 1.0]), [3, 4], &[[9, 13], [13, 9], [1, 1], [3, 39], [39, 3]], 88),
        of(crop([5, 7], [0.2, 1.0]), [3, 3], &many, 700),
        of(bicubic(crop([9, 9], [0.3, 1.0])), [1, 1], &many, 233),
        of(bicubic(crop([4, 4], [0.05, 0.4])), [3, 4], &many, 700),
        of(crop([5, 5], [0.5, 1.0]), [3, 4], &[], 12),
        // What its words do not hold, and what no picture is.
        of(crop([3, 3], [0.5, 1.0]), [3, 4], &[[4, 4], [4, 5], [0, 3], [-1, 4], [2, 40_000]], 12),
    ]
}

fn bad() -> Vec<Bad> {
    let make = |crop| CropPictures { crop, channels: 3, out_channels: 4 };
    let good = || make(sample_crop([5, 5], [0.08, 1.0], sample_draws()));
    let inputs = || sample_inputs(&[[4, 4], [2, 3]], 12);
    let with = |place: usize, input| {
        let mut inputs = inputs();
        inputs.splice(place..=place, [input]);
        inputs
    };
    let crop = good().crop;
    vec![
        Bad::new(good(), inputs().into_iter().take(2).collect::<Vec<_>>(), "it takes 3 inputs, 2 were given"),
        Bad::new(good(), with(0, random_indices([24], 9)), "words must have shape [N, W]"),
        Bad::new(good(), with(1, random_indices([3, 2], 9)), "sizes of shape [2, 2], found [3, 2]"),
        Bad::new(good(), with(2, random_indices([3], 9)), "indices of shape [2], found [3]"),
        Bad::new(good(), with(1, uniform([2, 2], 1.0, 2.0)), "sizes must be i32"),
        Bad::new(CropPictures { out_channels: 2, ..good() }, inputs(), "found 3 to 2"),
        Bad::new(make(RandomResizedCrop { size: [0, 5], ..crop.clone() }), inputs(), "the result must have sides"),
        Bad::new(make(RandomResizedCrop { scale: [0.5, 2.0], ..crop.clone() }), inputs(), "the greatest scale"),
        Bad::new(make(sample_crop([5, 5], [0.1, 1.0], Draws { view: 256, ..sample_draws() })), inputs(), "view must be below 256"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "crop_pictures",
        module: module_path!(),
        inputs: &["words", "sizes", "indices"],
        outputs: &["y", "draws"],
        kernels: &[crop::KERNELS],
        build: Box::new(|attributes: &Attributes| {
            let channels = attributes.size_or("channels", 3)?;
            let crop = RandomResizedCrop::from_attributes(attributes)?;
            Ok(Box::new(CropPictures { crop, channels, out_channels: attributes.size_or("out_channels", channels)? }))
        }),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// A random box of each of the pictures in `words` `[N, W]`, of the heights and widths `sizes`
    /// `[N, 2]`, resized to `[N, size, out_channels]`: see [`CropPictures`].
    ///
    /// # Errors
    /// Anything but i32 words, sizes and indices of as many pictures; ranges that are empty or
    /// outside their limits; channels other than 1, or 3 to 3 or 4.
    pub fn crop_pictures(&self, sizes: &Tensor, indices: &Tensor, crop: CropPictures) -> Result<Tensor> {
        images_of(crop, &[self, sizes, indices])
    }
}

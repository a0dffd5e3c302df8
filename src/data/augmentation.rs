//! Augmentation pipelines: what is done to the images of a batch, step by step, and the published
//! recipes by name.

use serde::{Deserialize, Serialize};

use super::augment_step::AugmentStep;
use super::device::DeviceBatch;
use super::statistics::ChannelStatistics;
use crate::error::{Error, Result};
use crate::gpu::Scalar;
use crate::ops::augment::{CropPictures, Draws, RandomResizedCrop};
use crate::tensor::Tensor;

/// A pipeline: its steps in order, and the seed that they draw from.
///
/// What an image becomes depends on the seed, the epoch, the view, its place in the data set and
/// the steps: not on its batch. Each step draws its own numbers by its place in the list, so the
/// same step twice does two things.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// The seed.
    #[serde(default)]
    pub seed: u32,
    /// What is done, in order.
    #[serde(default)]
    pub steps: Vec<AugmentStep>,
}

impl Augmentation {
    /// A pipeline of one's own.
    pub fn new(seed: u32, steps: impl Into<Vec<AugmentStep>>) -> Self {
        Self { seed, steps: steps.into() }
    }

    /// The same pipeline with a step behind its others that normalises by a data set's statistics.
    /// Random erasing moves behind it: 0 is the mean colour there, and noise is as strong as images.
    #[must_use]
    pub fn normalized(self, statistics: &ChannelStatistics) -> Self {
        let (mut mean, mut std) = ([0.0; 3], [1.0; 3]);
        mean.iter_mut().zip(&statistics.mean).for_each(|(to, from)| *to = *from);
        std.iter_mut().zip(&statistics.std).for_each(|(to, from)| *to = *from);
        let (erasing, mut steps): (Vec<_>, Vec<_>) =
            self.steps.into_iter().partition(|step| matches!(step, AugmentStep::RandomErasing { .. }));
        steps.push(AugmentStep::Normalize { mean, std });
        steps.extend(erasing);
        Self { steps, ..self }
    }

    /// One view of a batch: images `[N, h, w, C]`, or texts `[N, L]`, which only a pipeline without
    /// steps takes. Pictures of many sizes are cut to one by the first step, a random crop.
    ///
    /// # Errors
    /// Those of the steps' operators: numbers outside their limits, images that a step does not
    /// take, an epoch of 65536 or more, a view of 256 or more.
    pub fn apply(&self, batch: &DeviceBatch, epoch: impl Into<Scalar<u32>>, view: u32) -> Result<Tensor> {
        let epoch = epoch.into();
        let draws = |step| Draws { seed: self.seed, epoch: epoch.clone(), view, step };
        let mut steps = self.steps.iter().zip(0..);
        let mut images = match &batch.pictures {
            None => batch.inputs.detach(),
            Some(pictures) => match steps.next() {
                Some((AugmentStep::RandomResizedCrop { size: Some(size), scale, ratio, flip, interpolation }, number)) => {
                    let (size, scale, ratio, flip, interpolation) = (*size, *scale, *ratio, *flip, *interpolation);
                    let crop = RandomResizedCrop { size, scale, ratio, flip, interpolation, draws: draws(number) };
                    let (channels, out_channels) = (pictures.channels, pictures.out_channels);
                    batch.inputs.crop_pictures(&pictures.sizes, &batch.indices, CropPictures { crop, channels, out_channels })?
                }
                _ => {
                    let message = "pictures of many sizes take a random_resized_crop with a size as their first step";
                    return Err(Error::argument("augmentation", message));
                }
            },
        };
        for (step, number) in steps {
            images = step.apply(&images, &batch.indices, draws(number))?;
        }
        Ok(images)
    }

    /// The same pipeline, whose first step, where it is a random crop that keeps the size of images,
    /// gives that of `size` instead: pictures of many sizes have none to keep.
    #[must_use]
    pub fn sized(mut self, to: [usize; 2]) -> Self {
        if let Some(AugmentStep::RandomResizedCrop { size, .. }) = self.steps.first_mut() {
            *size = size.or(Some(to));
        }
        self
    }

    /// Whether its first step is a random crop, which may be taken from pictures of many sizes.
    pub fn begins_with_crop(&self) -> bool {
        matches!(self.steps.first(), Some(AugmentStep::RandomResizedCrop { .. }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::{HostBatch, PackedBatch, Samples};
    use super::*;
    use crate::gpu::{Gpu, GpuOptions};
    use crate::ops::augment::{ErasingValue, RandomErasing};
    use crate::tensor::random::{Purpose, Stream};

    fn gpu() -> Gpu {
        Gpu::with(GpuOptions { poison: true, ..GpuOptions::from_env().unwrap() }).unwrap()
    }

    /// The images at these places of an imagined data set.
    fn batch(gpu: &Gpu, size: [usize; 3], indices: &[u32], out_channels: usize) -> DeviceBatch {
        let image = |index: u32| {
            let mut stream = Stream::keyed(9, Purpose::Test.key(), index);
            (0..size.iter().product()).map(move |_| stream.below(256) as u8)
        };
        let host = HostBatch {
            samples: Samples::Images { size, pixels: indices.iter().flat_map(|index| image(*index)).collect() },
            classes: 10,
            hidden: false,
            labels: indices.iter().map(|index| (*index % 10) as i32).collect(),
            indices: indices.to_vec(),
        };
        let packed = PackedBatch::upload(gpu, &host).unwrap();
        if out_channels > size[2] { packed.padded() } else { packed }.unpack().unwrap()
    }

    fn bits(images: &Tensor) -> Vec<u32> {
        let values = images.to_vec::<f32>().unwrap();
        assert!(values.iter().all(|v| v.is_finite()));
        values.iter().map(|v| v.to_bits()).collect()
    }

    /// Every preset, on images it was made for.
    fn pipelines(seed: u32) -> Vec<([usize; 3], usize, Augmentation)> {
        let shapes = [([28, 28, 1], 1), ([32, 32, 3], 3), ([32, 32, 3], 4)];
        let of = |(size, channels): ([usize; 3], usize)| {
            Augmentation::PRESETS.map(|name| (size, channels, Augmentation::preset(name, seed, [size[0], size[1]]).unwrap()))
        };
        shapes.into_iter().flat_map(of).collect()
    }

    #[test]
    fn a_batch_is_what_the_loader_read() {
        let gpu = gpu();
        for channels in [3, 4] {
            let batch = batch(&gpu, [3, 5, 3], &[4, u32::MAX, 7], channels);
            assert_eq!(batch.inputs.shape().to_vec(), [3, 3, 5, channels]);
            assert_eq!(batch.labels.to_vec::<i32>().unwrap(), [4, 5, 7]);
            assert_eq!(batch.indices.to_vec::<i32>().unwrap(), [4, -1, 7]);
            let mut stream = Stream::keyed(9, Purpose::Test.key(), 4);
            let pixels = batch.inputs.to_vec::<f32>().unwrap();
            for pixel in pixels.chunks(channels).take(15) {
                pixel.iter().take(3).for_each(|v| assert!((v * 255.0 - stream.below(256) as f32).abs() < 1e-4));
                assert!(pixel.iter().skip(3).all(|v| *v == 0.0));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_and_others_do_not() {
        let gpu = gpu();
        for (size, channels, pipeline) in pipelines(1) {
            let batch = batch(&gpu, size, &[3, 1, 4, 15, 9, 26, 5], channels);
            let first = bits(&pipeline.apply(&batch, 2, 1).unwrap());
            assert_eq!(first, bits(&pipeline.apply(&batch, 2, 1).unwrap()));
            if pipeline.steps.is_empty() {
                assert_eq!(first, bits(&batch.inputs));
                continue;
            }
            for (other, epoch, view) in [(2, 2, 1), (1, 3, 1), (1, 2, 0)] {
                let other = Augmentation { seed: other, ..pipeline.clone() };
                assert_ne!(first, bits(&other.apply(&batch, epoch, view).unwrap()));
            }
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch_or_place_in_it() {
        let gpu = gpu();
        let places = [3, 1, 4, 15, 9, 26, 5];
        for (size, channels, pipeline) in pipelines(1) {
            let whole = bits(&pipeline.apply(&batch(&gpu, size, &places, channels), 2, 1).unwrap());
            let image = whole.len() / places.len();
            let alone = places.map(|place| bits(&pipeline.apply(&batch(&gpu, size, &[place], channels), 2, 1).unwrap()));
            assert_eq!(whole, alone.concat(), "{pipeline:?}");
            let mut reversed = places;
            reversed.reverse();
            let reversed = bits(&pipeline.apply(&batch(&gpu, size, &reversed, channels), 2, 1).unwrap());
            assert_eq!(whole, reversed.rchunks(image).flatten().copied().collect::<Vec<_>>(), "{pipeline:?}");
        }
    }

    #[test]
    fn padding_changes_nothing_else() {
        let gpu = gpu();
        for name in Augmentation::PRESETS {
            let statistics = ChannelStatistics { mean: vec![0.5, 0.4, 0.3], std: vec![0.2, 0.3, 0.4] };
            let pipeline = Augmentation::preset(name, 5, [32, 32]).unwrap().normalized(&statistics);
            let [plain, padded] = [3, 4].map(|c| {
                let images = pipeline.apply(&batch(&gpu, [32, 32, 3], &[8, 9], c), 0, 0).unwrap();
                assert_eq!(images.shape().last(), c);
                images.to_vec::<f32>().unwrap()
            });
            for (plain, padded) in plain.chunks(3).zip(padded.chunks(4)) {
                assert_eq!(padded[3], 0.0, "{name}");
                assert!(plain.iter().zip(padded).all(|(a, b)| (a - b).abs() < 1e-4), "{name}: {plain:?} {padded:?}");
            }
        }
    }

    #[test]
    fn every_preset_keeps_values_between_0_and_1() {
        let gpu = gpu();
        for (size, channels, pipeline) in pipelines(3) {
            let images = pipeline.apply(&batch(&gpu, size, &[0, 1, 2, 3, 4, 5, 6, 7], channels), 0, 0).unwrap();
            // Sums of weights are 1 up to rounding.
            assert!(images.to_vec::<f32>().unwrap().iter().all(|v| (0.0..=1.0 + 1e-6).contains(v)), "{pipeline:?}");
        }
    }

    #[test]
    fn the_same_step_twice_draws_twice() {
        let gpu = gpu();
        let batch = batch(&gpu, [4, 4, 1], &(0..64).collect::<Vec<_>>(), 1);
        let flip = AugmentStep::HorizontalFlip { p: 0.5 };
        let once = Augmentation::new(1, [flip]).apply(&batch, 0, 0).unwrap();
        let twice = Augmentation::new(1, [flip, flip]).apply(&batch, 0, 0).unwrap();
        assert_ne!(bits(&twice), bits(&batch.inputs));
        assert_ne!(bits(&twice), bits(&once));
    }

    #[test]
    fn pipelines_are_written_and_read_as_toml() {
        for (_, _, pipeline) in pipelines(3) {
            let text = toml::to_string(&pipeline).unwrap();
            assert_eq!(toml::from_str::<Augmentation>(&text).unwrap(), pipeline, "{text}");
        }
        let text = r#"
            steps = [{ step = "random_resized_crop", scale = [0.2, 1.0] }, { step = "color_jitter", brightness = 0.4, p = 0.8 }]
        "#;
        let pipeline: Augmentation = toml::from_str(text).unwrap();
        let [AugmentStep::RandomResizedCrop { size: None, flip, ratio, .. }, AugmentStep::ColorJitter { hue, .. }] = pipeline.steps[..]
        else {
            panic!("{pipeline:?}")
        };
        assert_eq!((flip, hue, ratio), (0.0, 0.0, RandomResizedCrop::RATIO));
        for (bad, word) in [(r#"step = "horizontal_flip", p = 0.5, q = 1"#, "q"), (r#"step = "rotate""#, "rotate")] {
            assert!(toml::from_str::<Augmentation>(&format!("steps = [{{ {bad} }}]")).unwrap_err().to_string().contains(word));
        }
    }

    #[test]
    fn erasing_comes_behind_normalising() {
        let [scale, ratio] = [RandomErasing::SCALE, RandomErasing::RATIO];
        let erasing = AugmentStep::RandomErasing { p: 0.25, scale, ratio, value: ErasingValue::default() };
        let statistics = ChannelStatistics { mean: vec![0.5], std: vec![0.25] };
        let pipeline = Augmentation::new(1, [erasing, AugmentStep::ToRgb]).normalized(&statistics);
        let [AugmentStep::ToRgb, AugmentStep::Normalize { .. }, last] = pipeline.steps[..] else { panic!("{pipeline:?}") };
        assert_eq!(last, erasing);
        let text = r#"steps = [{ step = "random_erasing", p = 0.25 }, { step = "random_erasing", p = 0.1, value = "random" }]"#;
        let read: Augmentation = toml::from_str(text).unwrap();
        assert_eq!(read.steps[0], erasing);
        assert_eq!(toml::from_str::<Augmentation>(&toml::to_string(&read).unwrap()).unwrap(), read);
        let error = toml::from_str::<Augmentation>(r#"steps = [{ step = "random_erasing", p = 0.1, value = "noise" }]"#).unwrap_err();
        assert!(error.to_string().contains("expected a number or"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let gpu = gpu();
        let batch = batch(&gpu, [4, 4, 1], &[1], 1);
        let refused = |step, epoch, words: &str| {
            let error = Augmentation::new(0, [step]).apply(&batch, epoch, 0).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(AugmentStep::ReflectCrop { pad: 4, flip: 0.5 }, 0, "reflect_crop: images of 4 x 4");
        refused(AugmentStep::HorizontalFlip { p: 2.0 }, 0, "0..=1, found 2");
        refused(AugmentStep::HorizontalFlip { p: 0.5 }, 65_536, "epoch must be below 65536");
        let error = Augmentation::preset("simclr2", 0, [32, 32]).unwrap_err().to_string();
        assert!(error.contains("simclr2") && error.contains("simclr_cifar"), "{error}");
    }
}

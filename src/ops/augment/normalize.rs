//! Images with a given mean and standard deviation a channel.

use super::{SAMPLE_SHAPES, check_images, stage};
use crate::error::{Result, require_within};

use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample, indices, uniform};
use crate::ops::{Array, Attributes, Cost, Operator, apply_one, axes_before, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(NORMALIZE = "augment/normalize");

/// `(x - mean) / std` channel by channel; a fourth channel stays as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    /// The mean of each channel; a grey image takes the first.
    pub mean: [f32; 3],
    /// The standard deviation of each channel, above 0.
    pub std: [f32; 3],
}

impl Operator for Normalize {
    fn name(&self) -> &str {
        "normalize"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [images] = exactly(self.name(), inputs)?;
        check_images(self.name(), images)?;
        for (mean, std) in self.mean.iter().zip(self.std) {
            require_within(self.name(), "mean", *mean, [-1e6, 1e6])?;
            require_within(self.name(), "std", std, [1e-6, 1e6])?;
        }
        Ok(vec![images.clone()])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([images], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let normal = Tensor::empty(images.gpu(), &spec.shape, spec.dtype)?;
        let ([m0, m1, m2], [s0, s1, s2]) = (self.mean, self.std);
        let pixels = images.numel() / spec.shape.last();
        stage(&NORMALIZE, images, spec.shape.last())
            .write(&normal)
            .params(params![pixels, 1.0 / s0, 1.0 / s1, 1.0 / s2, -m0 / s0, -m1 / s1, -m2 / s2])
            .invocations(pixels)?;
        Ok(vec![normal])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, -1)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [images] = exactly(self.name(), inputs)?;
        Ok(vec![Array::from_fn(&images.shape, |index| {
            let channel = index.last().copied().unwrap_or(0);
            match (self.mean.get(channel), self.std.get(channel)) {
                (Some(mean), Some(std)) => (images.at(index) - f64::from(*mean)) / f64::from(*std),
                _ => images.at(index),
            }
        })])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 2.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let number = |name, default| Ok(attributes.number_or(name, default)? as f32);
    let mean = [number("mean_0", 0.0)?, number("mean_1", 0.0)?, number("mean_2", 0.0)?];
    Ok(Box::new(Normalize { mean, std: [number("std_0", 1.0)?, number("std_1", 1.0)?, number("std_2", 1.0)?] }))
}

pub(super) fn entry() -> Entry {
    const CIFAR: Normalize = Normalize { mean: [0.4914, 0.4822, 0.4465], std: [0.247, 0.2435, 0.2616] };
    Entry {
        name: "normalize",
        module: module_path!(),
        inputs: &["images"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(|| SAMPLE_SHAPES.iter().map(|shape| Sample::new(CIFAR, [uniform(*shape, 0.0, 1.0)])).collect()),
        bad: Box::new(|| {
            let zero = Normalize { std: [0.2, 0.0, 0.2], ..CIFAR };
            vec![
                Bad::new(CIFAR, [indices([1, 2, 2, 3], 9)], "images must be f32"),
                Bad::new(CIFAR, [uniform([2, 2, 3], 0.0, 1.0)], "shape [N, H, W, C]"),
                Bad::new(zero, [uniform([1, 2, 2, 3], 0.0, 1.0)], "std must lie in"),
            ]
        }),
    }
}

impl Tensor {
    /// `(x - mean) / std` of images `[N, H, W, C]`, channel by channel: see [`Normalize`].
    ///
    /// # Errors
    /// Anything but f32 images of 1, 3 or 4 channels; a deviation that is not above 0.
    pub fn normalize_images(&self, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
        apply_one(Normalize { mean, std }, &[self])
    }
}

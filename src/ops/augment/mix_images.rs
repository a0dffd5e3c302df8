//! Images mixed with others of their batch: mixup (Zhang et al. 2018,
//! arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899).

use super::{SAMPLE_SHAPES, check_images, stage};
use crate::error::{Error, Result, require_share};
use crate::gpu::Scalar;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, uniform};
use crate::ops::{Array, Attributes, Cost, Edges, Operator, apply_one, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(MIX_IMAGES = "augment/mix_images");

/// Each image with the other of its place: within the box the other, elsewhere
/// `lam x + (1 - lam) other`.
///
/// mixup has an empty box, CutMix a `lam` of 1 (its labels' weight follows from the box). All four
/// channels are mixed, so padding stays 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MixImages {
    /// The image's own weight outside of the box, in 0..=1.
    pub lam: Scalar,
    /// First column and row of the box, one past the last column and row: pixels.
    pub area: [Scalar<u32>; 4],
}

impl Operator for MixImages {
    fn name(&self) -> &str {
        "mix_images"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [images, others] = exactly(self.name(), inputs)?;
        check_images(self.name(), images)?;
        check_images(self.name(), others)?;
        if images.shape != others.shape {
            let message = format!("images and others must have the same shape, found {} and {}", images.shape, others.shape);
            return Err(Error::shape(self.name(), message));
        }
        require_share(self.name(), "lam", self.lam.get())?;
        Ok(vec![images.clone()])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([images, others], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let (h, w, c) = (spec.shape.dim(1), spec.shape.dim(2), spec.shape.dim(3));
        let y = Tensor::empty(images.gpu(), &spec.shape, spec.dtype)?;
        let pixels = y.numel() / c;
        let ([left, top, right, bottom], lam) = (self.area.clone(), self.lam.clone());
        let launch = stage(&MIX_IMAGES, images, c).write(&y).read(*others);
        launch.params(params![pixels, h, w, lam, left, top, right, bottom]).invocations(pixels)?;
        Ok(vec![y])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [images, others] = exactly(self.name(), inputs)?;
        let ([left, top, right, bottom], lam) = (self.area.clone().map(|side| side.get() as usize), f64::from(self.lam.get()));
        Ok(vec![Array::from_fn(&images.shape, |index| {
            let [_, y, x, _] = index else { return f64::NAN };
            let inside = (left..right).contains(x) && (top..bottom).contains(y);
            if inside { others.at(index) } else { lam * images.at(index) + (1.0 - lam) * others.at(index) }
        })])
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::Nan
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 3.0)
    }
}

pub(super) fn entry() -> Entry {
    let mix = |lam: f32, area: [u32; 4]| MixImages { lam: lam.into(), area: area.map(Scalar::from) };
    let pair = |shape: [usize; 4]| [uniform(shape, 0.0, 1.0), uniform(shape, 0.0, 1.0)];
    Entry {
        name: "mix_images",
        module: module_path!(),
        inputs: &["images", "others"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(|attributes: &Attributes| {
            let side = |name| Ok(u32::try_from(attributes.size_or(name, 0)?).unwrap_or(u32::MAX).into());
            let area = [side("left")?, side("top")?, side("right")?, side("bottom")?];
            Ok(Box::new(MixImages { lam: (attributes.number_or("lam", 1.0)? as f32).into(), area }))
        }),
        samples: Box::new(move || {
            let mixup = SAMPLE_SHAPES.map(|shape| Sample::new(mix(0.3, [0; 4]), pair(shape)));
            let cutmix = SAMPLE_SHAPES.map(|shape| Sample::new(mix(1.0, [1, 2, 4, 7]), pair(shape)));
            let itself = Sample::new(mix(0.8, [2, 0, 3, 9]), [uniform([3, 5, 4, 3], 0.0, 1.0), Input::Same(0)]);
            mixup.into_iter().chain(cutmix).chain([itself]).collect()
        }),
        bad: Box::new(move || {
            let image = || uniform([2, 5, 5, 3], 0.0, 1.0);
            let bad = |lam, inputs: [Input; 2], words| Bad::new(mix(lam, [0; 4]), inputs, words);
            vec![
                Bad::new(mix(0.5, [0; 4]), [image()], "it takes 2 inputs"),
                bad(1.5, [image(), image()], "lam must lie in 0..=1, found 1.5"),
                bad(f32::NAN, [image(), image()], "lam must lie in 0..=1"),
                bad(0.5, [image(), uniform([3, 5, 5, 3], 0.0, 1.0)], "must have the same shape"),
                bad(0.5, [image(), indices([2, 5, 5, 3], 2)], "images must be f32"),
                bad(0.5, [uniform([2, 5, 5, 2], 0.0, 1.0), image()], "1, 3 or 4 channels"),
            ]
        }),
    }
}

impl Tensor {
    /// Images `[N, H, W, C]` mixed with `others` of the same shape: see [`MixImages`].
    ///
    /// # Errors
    /// Anything but f32 images of the same shape; a weight outside 0..=1.
    pub fn mix_images(&self, others: &Tensor, mix: MixImages) -> Result<Tensor> {
        apply_one(mix, &[self, others])
    }
}

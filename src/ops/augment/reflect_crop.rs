//! Crops of images padded by reflection, and horizontal flips: the image moved by whole pixels,
//! perhaps mirrored.

use super::{Draws, bad_drawn, below, check_drawn, images_of, sample_draws, sample_inputs, samples_of, stage, unit};
use crate::error::{Error, Result, require_share};

use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample};
use crate::ops::{Array, Attributes, Operator, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(REFLECT_CROP = "augment/reflect_crop");

/// Padding by reflection (the edge is not repeated), a crop of the old size at a random place, then
/// perhaps a flip.
///
/// With a padding of 0 it is torchvision's RandomHorizontalFlip.
/// `draws` `[N, 4]`: horizontal and vertical shift in `-pad..=pad`, 1 where mirrored, 0.
#[derive(Debug, Clone, PartialEq)]
pub struct ReflectCrop {
    /// Pixels of padding on each side, fewer than either side of the image.
    pub pad: usize,
    /// The chance of an image to be mirrored.
    pub flip: f32,
    /// Where the random numbers come from.
    pub draws: Draws,
}

impl Operator for ReflectCrop {
    fn name(&self) -> &str {
        if self.pad == 0 { "horizontal_flip" } else { "reflect_crop" }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [n, h, w, c] = check_drawn(self.name(), inputs, &self.draws)?;
        require_share(self.name(), "flip", self.flip)?;
        if self.pad >= h.min(w) {
            let message = format!("images of {h} x {w} can be reflected by at most {} pixels, found {}", h.min(w) - 1, self.pad);
            return Err(Error::shape(self.name(), message));
        }
        Ok(vec![Spec::f32([n, h, w, c]), Spec::f32([n, 4])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([images, indices], [spec, _]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let (h, w, c) = (spec.shape.dim(1), spec.shape.dim(2), spec.shape.dim(3));
        let draws = self.draws.launch(&REFLECT_CROP, indices, 4, params![self.pad, self.flip], 0)?;
        let y = Tensor::empty(images.gpu(), &spec.shape, spec.dtype)?;
        let pixels = y.numel() / c;
        stage(&REFLECT_CROP, images, c).write(&y).read(&draws).params(params![pixels, h as i32, w as i32]).invocations(pixels)?;
        Ok(vec![y, draws])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [images, indices] = exactly(self.name(), inputs)?;
        let [_, h, w] = [0, 1, 2].map(|axis| images.shape.dim(axis) as isize);
        let draws = self.draws.reference(indices, 4, |bits| {
            let ([flip, _], [x, y]) = (bits(0), bits(1));
            let shift = |bits| below(bits, 2 * self.pad + 1) as f64 - self.pad as f64;
            vec![shift(x), shift(y), f64::from(u8::from(unit(flip) < f64::from(self.flip))), 0.0]
        });
        let reflect = |i: isize, size: isize| if i < 0 { -i } else { i.min(2 * size - 2 - i) } as usize;
        let y = Array::from_fn(&images.shape, |index| {
            let [n, y, x, c] = index else { return f64::NAN };
            let draw = |i| draws.at(&[*n, i]) as isize;
            let x = if draw(2) == 1 { w - 1 - *x as isize } else { *x as isize };
            images.at(&[*n, reflect(*y as isize + draw(1), h), reflect(x + draw(0), w), *c])
        });
        Ok(vec![y, draws])
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let entry = |name: &'static str, pad: usize| Entry {
        name,
        module: module_path!(),
        inputs: &["images", "indices"],
        outputs: &["y", "draws"],
        kernels: &[KERNELS],
        build: Box::new(move |attributes: &Attributes| {
            let (pad, flip) = match name {
                "horizontal_flip" => (0, attributes.number_or("p", 0.5)?),
                _ => (attributes.size_or("pad", pad)?, attributes.number_or("flip", 0.0)?),
            };
            Ok(Box::new(ReflectCrop { pad, flip: flip as f32, draws: Draws::from_attributes(attributes)? }))
        }),
        samples: Box::new(move || {
            let make = |pad, flip| ReflectCrop { pad, flip, draws: sample_draws() };
            let mut samples = samples_of(|| make(pad, 0.5));
            if pad == 0 {
                samples.push(Sample::new(make(0, 1.0), sample_inputs([1, 1, 1, 3])));
                samples.push(Sample::new(make(0, 0.0), sample_inputs([3, 5, 5, 1])));
            }
            samples
        }),
        bad: Box::new(move || {
            let make = |draws| ReflectCrop { pad, flip: 0.5, draws };
            let mut bad = bad_drawn(make);
            bad.push(Bad::new(ReflectCrop { flip: -0.5, ..make(sample_draws()) }, sample_inputs([1, 5, 5, 3]), "flip must lie in 0..=1"));
            bad.push(Bad::new(ReflectCrop { pad: 4, ..make(sample_draws()) }, sample_inputs([1, 5, 4, 3]), "at most 3 pixels, found 4"));
            bad
        }),
    };
    vec![entry("reflect_crop", 4), entry("horizontal_flip", 0)]
}

impl Tensor {
    /// Images `[N, H, W, C]` mirrored left to right with chance `p`.
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; a chance outside 0..=1.
    pub fn horizontal_flip(&self, indices: &Tensor, p: f32, draws: Draws) -> Result<Tensor> {
        images_of(ReflectCrop { pad: 0, flip: p, draws }, &[self, indices])
    }

    /// Images `[N, H, W, C]` padded by reflection, cropped at a random place and mirrored with
    /// chance `flip`: see [`ReflectCrop`].
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; a padding as large as the image; a chance
    /// outside 0..=1.
    pub fn reflect_crop(&self, indices: &Tensor, pad: usize, flip: f32, draws: Draws) -> Result<Tensor> {
        images_of(ReflectCrop { pad, flip, draws }, &[self, indices])
    }
}

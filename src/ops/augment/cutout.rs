//! A square of the image becomes 0 (DeVries and Taylor, "Improved regularization of convolutional
//! neural networks with cutout", 2017).

use super::{Draws, bad_drawn, below, check_drawn, check_side, images_of, sample_draws, sample_inputs, samples_of, stage, unit};
use crate::error::{Result, require_share};

use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::Bad;
use crate::ops::{Array, Attributes, Operator, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(CUTOUT = "augment/cutout");

/// A square around a random pixel becomes 0; it may reach beyond the edges. After normalising, 0 is
/// the mean colour.
///
/// `draws` `[N, 4]`: first column and row, one past the last column and row; zeros for an image
/// that stays whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Cutout {
    /// The square's side in pixels.
    pub size: usize,
    /// The chance of an image to be cut.
    pub p: f32,
    /// Where the random numbers come from.
    pub draws: Draws,
}

impl Operator for Cutout {
    fn name(&self) -> &str {
        "cutout"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [n, h, w, c] = check_drawn(self.name(), inputs, &self.draws)?;
        require_share(self.name(), "p", self.p)?;
        check_side(self.name(), "the square", self.size)?;
        Ok(vec![Spec::f32([n, h, w, c]), Spec::f32([n, 4])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([images, indices], [spec, _]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let (h, w, c) = (spec.shape.dim(1), spec.shape.dim(2), spec.shape.dim(3));
        let draws = self.draws.launch(&CUTOUT, indices, 4, params![h, w, self.size, self.p], 0)?;
        let y = Tensor::empty(images.gpu(), &spec.shape, spec.dtype)?;
        let pixels = y.numel() / c;
        stage(&CUTOUT, images, c).write(&y).read(&draws).params(params![pixels, h, w]).invocations(pixels)?;
        Ok(vec![y, draws])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [images, indices] = exactly(self.name(), inputs)?;
        let (h, w) = (images.shape.dim(1), images.shape.dim(2));
        let draws = self.draws.reference(indices, 4, |bits| {
            let ([whether, _], [x, y]) = (bits(0), bits(1));
            if unit(whether) >= f64::from(self.p) {
                return vec![0.0; 4];
            }
            let first = |centre: usize| centre as f64 - (self.size / 2) as f64;
            let (x, y, size) = (first(below(x, w)), first(below(y, h)), self.size as f64);
            vec![x, y, x + size, y + size]
        });
        let y = Array::from_fn(&images.shape, |index| {
            let [n, y, x, _] = index else { return f64::NAN };
            let side = |at: usize, axis: usize| (draws.at(&[*n, axis])..draws.at(&[*n, axis + 2])).contains(&(at as f64));
            if side(*x, 0) && side(*y, 1) { 0.0 } else { images.at(index) }
        });
        Ok(vec![y, draws])
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let p = attributes.number_or("p", 1.0)? as f32;
    Ok(Box::new(Cutout { size: attributes.size("size")?, p, draws: Draws::from_attributes(attributes)? }))
}

pub(super) fn entry() -> Entry {
    let make = |draws| Cutout { size: 4, p: 0.7, draws };
    Entry {
        name: "cutout",
        module: module_path!(),
        inputs: &["images", "indices"],
        outputs: &["y", "draws"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(move || samples_of(|| make(sample_draws()))),
        bad: Box::new(move || {
            let mut bad = bad_drawn(make);
            let input = || sample_inputs([1, 5, 5, 3]);
            bad.push(Bad::new(Cutout { p: 1.5, ..make(sample_draws()) }, input(), "p must lie in 0..=1, found 1.5"));
            bad.push(Bad::new(Cutout { size: 0, ..make(sample_draws()) }, input(), "the square must have sides"));
            bad
        }),
    }
}

impl Tensor {
    /// Images `[N, H, W, C]` with a square of `size` pixels set to 0 at a random place with chance
    /// `p`: see [`Cutout`].
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; a chance outside 0..=1; a size of 0.
    pub fn cutout(&self, indices: &Tensor, size: usize, p: f32, draws: Draws) -> Result<Tensor> {
        images_of(Cutout { size, p, draws }, &[self, indices])
    }
}

//! Gaussian blur of random width: torchvision's GaussianBlur on a random part of the images.

use serde::{Deserialize, Serialize};

use super::{Draws, bad_drawn, between, check_drawn, choice, images_of, range, sample_draws, sample_inputs, stage, unit};
use crate::error::{Error, Result, require_share, require_within};
use crate::gpu::rounds;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample};
use crate::ops::{Array, Attributes, Cost, Edges, Operator, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(GAUSSIAN_BLUR = "augment/gaussian_blur");

/// What a blur sees outside of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// The image mirrored, its edge not repeated: torchvision's tensors. Half a kernel is then less
    /// than either side.
    #[default]
    Reflect,
    /// The nearest pixel: Pillow.
    Replicate,
    /// Nothing: what TensorFlow and JAX call padding SAME. Edges grow darker.
    Zeros,
}

/// Blur by a Gaussian whose standard deviation is uniform in `sigma`.
///
/// `draws` `[N, 4]`: sigma, `q = exp(-1 / (2 sigma^2))`, 1 / sum of the weights, 0; for an image
/// that stays sharp 0, 0, 1, 0.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianBlur {
    /// Pixels of the kernel along an axis, odd.
    pub kernel: usize,
    /// Least and greatest standard deviation in pixels.
    pub sigma: [f32; 2],
    /// The chance of an image to be blurred.
    pub p: f32,
    /// What lies outside.
    pub edge: Edge,
    /// Where the random numbers come from.
    pub draws: Draws,
}

impl GaussianBlur {
    /// SimCLR's kernel for images of this height: a tenth, made odd, at least 3.
    pub fn kernel_for(height: usize) -> usize {
        (height / 10 / 2 * 2 + 1).max(3)
    }

    fn weights(&self, sigma: f64) -> Vec<f64> {
        let radius = (self.kernel / 2) as f64;
        let density = |d: f64| (-d * d / (2.0 * sigma * sigma)).exp();
        (0..self.kernel).map(|i| density(i as f64 - radius)).collect()
    }
}

impl Operator for GaussianBlur {
    fn name(&self) -> &str {
        "gaussian_blur"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [n, h, w, c] = check_drawn(self.name(), inputs, &self.draws)?;
        let most = if self.edge == Edge::Reflect { 2 * h.min(w) - 1 } else { 255 };
        if self.kernel.is_multiple_of(2) || self.kernel > most {
            let message = format!("images of {h} x {w} take an odd kernel of at most {most}, found {}", self.kernel);
            return Err(Error::shape(self.name(), message));
        }
        let [low, high] = self.sigma;
        require_within(self.name(), "the least sigma", low, [0.05, 1e3])?;
        require_within(self.name(), "the greatest sigma", high, [low, 1e3])?;
        require_share(self.name(), "p", self.p)?;
        Ok(vec![Spec::f32([n, h, w, c]), Spec::f32([n, 4])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([images, indices], [spec, _]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let (h, w, c) = (spec.shape.dim(1), spec.shape.dim(2), spec.shape.dim(3));
        let (radius, [low, high]) = (self.kernel / 2, self.sigma);
        let draws = self.draws.launch(&GAUSSIAN_BLUR, indices, 4, params![radius, low, high, self.p], rounds(radius, 0))?;
        let pass = |from: &Tensor, vertical: bool| -> Result<Tensor> {
            let to = Tensor::empty(from.gpu(), &spec.shape, spec.dtype)?;
            let pixels = to.numel() / c;
            let params = params![pixels, h as i32, w as i32, radius as i32, vertical];
            let edge = match self.edge {
                Edge::Reflect => "reflect",
                Edge::Replicate => "replicate",
                Edge::Zeros => "zeros",
            };
            let launch = stage(&GAUSSIAN_BLUR, from, c).define("EDGE", edge).write(&to).read(&draws).params(params);
            launch.walk(rounds(radius, 0)).invocations(pixels)?;
            Ok(to)
        };
        let y = pass(&pass(images, false)?, true)?;
        Ok(vec![y, draws])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::Nan
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [images, indices] = exactly(self.name(), inputs)?;
        let [_, h, w] = [0, 1, 2].map(|axis| images.shape.dim(axis) as isize);
        let draws = self.draws.reference(indices, 4, |bits| {
            let ([whether, _], [width, _]) = (bits(0), bits(1));
            if unit(whether) >= f64::from(self.p) {
                return vec![0.0, 0.0, 1.0, 0.0];
            }
            let sigma = between(width, self.sigma);
            vec![sigma, (-0.5 / (sigma * sigma)).exp(), 1.0 / self.weights(sigma).iter().sum::<f64>(), 0.0]
        });
        let inside = |i: isize, size: isize| match self.edge {
            Edge::Reflect => Some(if i < 0 { -i } else { i.min(2 * size - 2 - i) } as usize),
            Edge::Replicate => Some(i.clamp(0, size - 1) as usize),
            Edge::Zeros => (0..size).contains(&i).then_some(i as usize),
        };
        let radius = (self.kernel / 2) as isize;
        let y = Array::from_fn(&images.shape, |index| {
            let [n, y, x, c] = index else { return f64::NAN };
            let sigma = draws.at(&[*n, 0]);
            if sigma == 0.0 {
                return images.at(index);
            }
            let weights = self.weights(sigma);
            let total: f64 = weights.iter().sum();
            let mut sum = 0.0;
            for (dy, down) in (-radius..).zip(&weights) {
                for (dx, across) in (-radius..).zip(&weights) {
                    if let (Some(y), Some(x)) = (inside(*y as isize + dy, h), inside(*x as isize + dx, w)) {
                        sum += down * across * images.at(&[*n, y, x, *c]);
                    }
                }
            }
            sum / (total * total)
        });
        Ok(vec![y, draws])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 4.0 * self.kernel as f64)
    }
}

pub(super) fn entry() -> Entry {
    let make = |kernel, p, draws| GaussianBlur { kernel, sigma: [0.1, 2.0], p, edge: Edge::Reflect, draws };
    Entry {
        name: "gaussian_blur",
        module: module_path!(),
        inputs: &["images", "indices"],
        outputs: &["y", "draws"],
        kernels: &[KERNELS],
        build: Box::new(|attributes: &Attributes| {
            Ok(Box::new(GaussianBlur {
                kernel: attributes.size("kernel")?,
                sigma: range(attributes, "sigma_low", "sigma_high", [0.1, 2.0])?,
                p: attributes.number_or("p", 1.0)? as f32,
                edge: choice(attributes, "edge", [("reflect", Edge::Reflect), ("replicate", Edge::Replicate), ("zeros", Edge::Zeros)])?,
                draws: Draws::from_attributes(attributes)?,
            }))
        }),
        samples: Box::new(move || {
            let sample = |shape, kernel, p| Sample::new(make(kernel, p, sample_draws()), sample_inputs(shape));
            let edged = |shape, kernel, edge| Sample::new(GaussianBlur { edge, ..make(kernel, 0.8, sample_draws()) }, sample_inputs(shape));
            vec![
                edged([5, 5, 7, 3], 13, Edge::Replicate),
                edged([5, 9, 3, 1], 5, Edge::Zeros),
                sample([1, 7, 5, 1], 3, 1.0),
                sample([7, 5, 7, 3], 9, 0.5),
                sample([5, 33, 9, 4], 5, 1.0),
                sample([0, 5, 5, 3], 3, 1.0),
                sample([3, 1, 1, 3], 1, 1.0),
                sample([3, 33, 12, 1], 23, 1.0),
            ]
        }),
        bad: Box::new(move || {
            let mut bad = bad_drawn(move |draws| make(3, 0.5, draws));
            let good = make(3, 0.5, sample_draws());
            let cases = [
                (GaussianBlur { kernel: 4, ..good.clone() }, "odd kernel of at most 9, found 4"),
                (GaussianBlur { kernel: 11, ..good.clone() }, "odd kernel of at most 9, found 11"),
                (GaussianBlur { kernel: 257, edge: Edge::Zeros, ..good.clone() }, "at most 255, found 257"),
                (GaussianBlur { sigma: [0.0, 2.0], ..good.clone() }, "the least sigma must lie in"),
                (GaussianBlur { sigma: [1.0, 0.5], ..good.clone() }, "the greatest sigma must lie in"),
                (GaussianBlur { p: 2.0, ..good.clone() }, "p must lie in 0..=1"),
            ];
            bad.extend(cases.map(|(blur, words)| Bad::new(blur, sample_inputs([2, 5, 5, 3]), words)));
            bad
        }),
    }
}

impl Tensor {
    /// Images `[N, H, W, C]`, some of them blurred by a Gaussian of random width: see
    /// [`GaussianBlur`].
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; an even kernel or one too large to reflect;
    /// a bad range.
    pub fn gaussian_blur(&self, indices: &Tensor, blur: GaussianBlur) -> Result<Tensor> {
        images_of(blur, &[self, indices])
    }
}

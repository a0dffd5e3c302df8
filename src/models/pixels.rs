//! No network at all: an image's own values as its features. With a classifier this is logistic
//! regression, the baseline that every encoder must beat.

use super::registry::Family;
use super::{Architecture, Backbone, Model, ModelOptions};
use crate::error::{Error, Result};
use crate::nn::{Mode, Module, Parameters, Summary};
use crate::tensor::{DType, Shape, Tensor};

/// No network.
pub(super) const FAMILY: Family = Family { names: &["pixels"], patterns: &[], parse, published: &[] };

fn parse(name: &str, options: &ModelOptions) -> Option<Result<Model>> {
    let features = options.size.unwrap_or([32; 2]).iter().fold(options.channels, |n, side| n.saturating_mul(*side));
    (name == "pixels").then(|| Ok(Model::new(32, PixelsConfig { features })))
}

/// How many values an image has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelsConfig {
    /// H W C.
    pub features: usize,
}

impl Architecture for PixelsConfig {
    fn build(&self, _: &Parameters) -> Result<Box<dyn Backbone>> {
        Ok(Box::new(Pixels::new(self.features)))
    }
}

/// Images `[N, H, W, C]` to `[N, H W C]`.
pub struct Pixels {
    features: usize,
}

impl Pixels {
    /// For images of `features` values.
    pub fn new(features: usize) -> Self {
        Self { features }
    }

    fn output(&self, input: &Shape) -> Result<Shape> {
        let features: usize = input.iter().skip(1).product();
        if features != self.features || input.rank() == 0 {
            return Err(Error::shape("pixels", format!("an image of {input} has {features} values, {} were expected", self.features)));
        }
        Ok(Shape::from([input.dim(0), features]))
    }
}

impl Module for Pixels {
    fn forward(&self, x: &Tensor, _: Mode) -> Result<Tensor> {
        let [rows, features] = self.output(x.shape())?.array().unwrap_or_default();
        // Of texts the token numbers.
        let x = if x.dtype().is_float() { x.clone() } else { x.cast(DType::F32)? };
        x.reshape(&[rows as isize, features as isize])
    }

    fn summarize(&self, input: &Shape, _: &mut Summary) -> Result<Shape> {
        self.output(input)
    }
}

impl Backbone for Pixels {
    fn features(&self) -> usize {
        self.features
    }
}

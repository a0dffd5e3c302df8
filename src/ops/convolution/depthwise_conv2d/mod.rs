//! Depthwise convolution: each channel has its own kernels and sees no other channel.

mod launch;
mod spec;

use super::geometry::{Geometry, Padding, Window, check, listed, split};
use super::slabs;
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::reduction::{column_sum, reduce};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Edges, Operator, Saves, apply_one, images};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "depthwise_conv2d";

/// Options of [`Tensor::depthwise_conv2d`]; the first number of a pair is vertical. The multiplier,
/// output channels per input channel, follows from the weight's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthwiseConv2dFuncOptions {
    /// Pixels between two positions of the kernel.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Pixels between two taps of the kernel.
    pub dilation: [usize; 2],
}

impl Default for DepthwiseConv2dFuncOptions {
    fn default() -> Self {
        Self { stride: [1, 1], padding: Padding::default(), dilation: [1, 1] }
    }
}

/// `y[n, i, j, c * multiplier + m] = bias + sum over r, s of x[n, i * stride + r * dilation -
/// padding, .., c] * weight[r, s, c * multiplier + m]`
#[derive(Debug, Clone)]
pub struct DepthwiseConv2d {
    options: DepthwiseConv2dFuncOptions,
    /// Where it was stated, it must agree with the weight.
    multiplier: Option<usize>,
}

impl DepthwiseConv2d {
    /// A depthwise convolution with `options`.
    pub fn new(options: DepthwiseConv2dFuncOptions) -> Self {
        Self { options, multiplier: None }
    }

    /// The same, refusing weights with another multiplier.
    #[must_use]
    pub fn with_multiplier(self, multiplier: usize) -> Self {
        Self { multiplier: Some(multiplier), ..self }
    }

    fn geometry(&self, x: &Spec, weight: &Spec) -> Result<Geometry> {
        let [images, h, w, channels] = images(NAME, x)?;
        let DepthwiseConv2dFuncOptions { stride, padding, dilation } = self.options;
        let wrong = |rule: String| Err(Error::shape(NAME, format!("x {} and weight {}: {rule}", x.shape, weight.shape)));
        let Some([kh, kw, filters]) = weight.shape.array() else {
            return wrong("a weight has the shape [kh, kw, C * multiplier]".into());
        };
        if channels == 0 || filters == 0 || filters % channels != 0 {
            return wrong("the weight's last size must be a multiple of C".into());
        }
        if let Some(multiplier) = self.multiplier.filter(|m| m.checked_mul(channels) != Some(filters)) {
            return wrong(format!("with multiplier {multiplier} the weight's last size must be {multiplier} times {channels}"));
        }
        let (before, output) = Window { stride, padding, dilation }.slide(NAME, [h, w], [kh, kw])?;
        Ok(Geometry { images, input: [h, w], channels, output, filters, kernel: [kh, kw], stride, before, dilation, groups: channels })
    }
}

impl Operator for DepthwiseConv2d {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(x, weight)?;
        check(NAME, x, weight, bias, g.filters)?;
        let [h, w] = g.output;
        Ok(vec![Spec::new([g.images, h, w, g.filters], x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(x.spec(), weight.spec())?;
        Ok(vec![launch::forward(&g, x, weight, bias.copied())?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, weight, dy) = (step.input(0)?, step.input(1)?, step.cotangent(0)?);
        let g = self.geometry(x.spec(), weight.spec())?;
        let dx = step.needs(0).then(|| launch::input_gradient(&g, &dy, weight)).transpose()?;
        let dweight = step.needs(1).then(|| launch::weight_gradient(&g, x, &dy)).transpose()?;
        let dbias = step.needs(2).then(|| column_sum(&dy)).transpose()?;
        Ok([dx, dweight, dbias].into_iter().take(step.input_count()).collect())
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, input: usize) -> Edges {
        if input == 1 { Edges::Spread } else { Edges::All }
    }

    fn autocast(&self) -> Autocast {
        Autocast::Half(1)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        spec::reference(self, inputs)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        spec::cost(self, inputs, outputs)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let Window { stride, padding, dilation } = Window::from_attributes(attributes)?;
    let operator = DepthwiseConv2d::new(DepthwiseConv2dFuncOptions { stride, padding, dilation });
    Ok(Box::new(if attributes.has("multiplier") { operator.with_multiplier(attributes.size("multiplier")?) } else { operator }))
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        kernels: &[launch::KERNELS, slabs::KERNELS, reduce::KERNELS],
        build: Box::new(build),
        samples: Box::new(spec::samples),
        bad: Box::new(spec::bad),
    }
}

impl Tensor {
    /// Depthwise convolution of images `[N, H, W, C]` with `weight` `[kh, kw, C * multiplier]` and
    /// `bias` `[C * multiplier]`: `[N, OH, OW, C * multiplier]`, output channel
    /// `c * multiplier + m`; sizes as in [`Tensor::conv2d`].
    ///
    /// # Errors
    /// Shapes that do not fit, a kernel larger than the padded image, a stride or dilation of 0; a
    /// weight or bias that is not f32; out of memory.
    pub fn depthwise_conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &DepthwiseConv2dFuncOptions) -> Result<Tensor> {
        apply_one(DepthwiseConv2d::new(*options), &listed(self, weight, bias))
    }
}

//! Two-dimensional convolution (cross-correlation, as in PyTorch), dense or grouped.

mod knobs;
pub(super) mod launch;
mod spec;

use super::geometry::{Geometry, Padding, Window, check, listed, split};
use super::slabs;
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::linear::gemm;
use crate::ops::normalization::batch_norm::{plan, statistics};
use crate::ops::reduction::{column_sum, reduce};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Edges, Operator, Saves, apply_one, images};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "conv2d";

/// Options of [`Tensor::conv2d`]; the first number of a pair is vertical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dFuncOptions {
    /// Pixels between two positions of the kernel.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Pixels between two taps of the kernel.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv2dFuncOptions {
    fn default() -> Self {
        Self { stride: [1, 1], padding: Padding::default(), dilation: [1, 1], groups: 1 }
    }
}

/// `y[n, i, j, k] = bias[k] + sum over r, s, c of x[n, i * stride + r * dilation - padding, .., c] * weight[k, r, s, c]`
#[derive(Debug, Clone)]
pub struct Conv2d {
    options: Conv2dFuncOptions,
    statistics: bool,
}

impl Conv2d {
    /// A convolution with `options`.
    pub fn new(options: Conv2dFuncOptions) -> Self {
        Self { options, statistics: false }
    }

    /// The same with a second output, of which nothing is differentiated: of every 64 pixels and
    /// each channel of y, the mean less the first of them and the sum of squared deviations,
    /// `[slabs, 2, K]`, for [`BatchNorm::with_statistics`]. GPUs write them with y.
    ///
    /// [`BatchNorm::with_statistics`]:
    /// crate::ops::normalization::batch_norm::BatchNorm::with_statistics
    #[must_use]
    pub fn with_statistics(self) -> Self {
        Self { statistics: true, ..self }
    }

    fn geometry(&self, x: &Spec, weight: &Spec) -> Result<Geometry> {
        let [images, h, w, channels] = images(NAME, x)?;
        let Conv2dFuncOptions { stride, padding, dilation, groups } = self.options;
        let wrong = |rule: String| Err(Error::shape(NAME, format!("x {} and weight {}: {rule}", x.shape, weight.shape)));
        let Some([filters, kh, kw, inner]) = weight.shape.array() else {
            return wrong("a weight has the shape [K, kh, kw, C / groups]".into());
        };
        if groups == 0 || filters == 0 || inner == 0 || filters % groups != 0 || inner.checked_mul(groups) != Some(channels) {
            return wrong(format!("with {groups} groups, K must be a multiple of the groups and C groups times the weight's last size"));
        }
        let (before, output) = Window { stride, padding, dilation }.slide(NAME, [h, w], [kh, kw])?;
        Ok(Geometry { images, input: [h, w], channels, output, filters, kernel: [kh, kw], stride, before, dilation, groups })
    }
}

impl Operator for Conv2d {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(x, weight)?;
        check(NAME, x, weight, bias, g.filters)?;
        let [h, w] = g.output;
        let y = Spec::new([g.images, h, w, g.filters], x.dtype);
        let partials = self.statistics.then(|| Spec::f32(statistics::shape(&y.shape)));
        Ok([y].into_iter().chain(partials).collect())
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(x.spec(), weight.spec())?;
        if let [_, partials] = outputs {
            return launch::forward_statistics(&g, x, weight, bias.copied(), &partials.shape);
        }
        Ok(vec![launch::forward(&g, x, weight, bias.copied())?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, weight, dy) = (step.input(0)?, step.input(1)?, step.cotangent(0)?);
        let g = self.geometry(x.spec(), weight.spec())?;
        let dx = step.needs(0).then(|| launch::input_gradient(&g, &dy, weight, None)).transpose()?;
        let dweight = step.needs(1).then(|| launch::weight_gradient(&g, x, &dy)).transpose()?;
        let dbias = step.needs(2).then(|| column_sum(&dy)).transpose()?;
        Ok([dx, dweight, dbias].into_iter().take(step.input_count()).collect())
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        if self.statistics { Vec::new() } else { vec![0] }
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
    Ok(Box::new(Conv2d::new(Conv2dFuncOptions { stride, padding, dilation, groups: attributes.size_or("groups", 1)? })))
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        kernels: &[launch::KERNELS, slabs::KERNELS, gemm::KERNELS, reduce::KERNELS, plan::KERNELS],
        build: Box::new(build),
        samples: Box::new(spec::samples),
        bad: Box::new(spec::bad),
    }
}

impl Tensor {
    /// Convolution (cross-correlation) of images `[N, H, W, C]` with `weight`
    /// `[K, kh, kw, C / groups]` and `bias` `[K]`: `[N, OH, OW, K]` with `OH = (H + top + bottom -
    /// dilation * (kh - 1) - 1) / stride + 1`, rounded down.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::ops::convolution::conv2d::Conv2dFuncOptions;
    /// use wgrad::ops::convolution::geometry::Padding;
    /// use wgrad::tensor::{DType, Tensor};
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let images = Tensor::full(&gpu, [1, 4, 4, 3], 1.0, DType::F32)?; // [N, H, W, C]
    /// let weight = Tensor::full(&gpu, [8, 3, 3, 3], 1.0, DType::F32)?; // [K, kh, kw, C]
    /// let options = Conv2dFuncOptions { padding: Padding::Explicit([1; 4]), ..Default::default() };
    /// let y = images.conv2d(&weight, None, &options)?;
    /// assert_eq!(y.shape()[..], [1, 4, 4, 8]);
    /// assert_eq!(y.to_vec::<f32>()?.first(), Some(&12.0)); // 2 x 2 of the corner's taps meet pixels, of 3 channels each
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Shapes that do not fit, a kernel larger than the padded image, a stride, dilation or number
    /// of groups of 0; a weight or bias that is not f32; out of memory.
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &Conv2dFuncOptions) -> Result<Tensor> {
        apply_one(Conv2d::new(*options), &listed(self, weight, bias))
    }
}

//! Two-dimensional convolution (cross-correlation, as in PyTorch), dense or grouped.

use super::dense;
use super::geometry::{Geometry, Padding, Window, check, listed, split};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::normalization::statistics;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Backward, Cost, Edges, Operator, Saves, apply_one, images};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "conv2d";

/// Options of [`Tensor::conv2d`]; the first number of a pair is vertical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Pixels between two positions of the kernel.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Pixels between two taps of the kernel.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: [1, 1], padding: Padding::default(), dilation: [1, 1], groups: 1 }
    }
}

/// `y[n, i, j, k] = bias[k] + sum over r, s, c of x[n, i * stride + r * dilation - padding, .., c] * weight[k, r, s, c]`
#[derive(Debug, Clone)]
pub struct Conv2d {
    options: Conv2dOptions,
    statistics: bool,
}

impl Conv2d {
    /// A convolution with `options`.
    pub fn new(options: Conv2dOptions) -> Self {
        Self { options, statistics: false }
    }

    /// The same with a second output, of which nothing is differentiated: of every 64 pixels and each channel of y, the mean less the
    /// first of them and the sum of squared deviations, `[slabs, 2, K]`, for [`BatchNorm::with_statistics`]. GPUs write them with y.
    ///
    /// [`BatchNorm::with_statistics`]: crate::ops::normalization::batch_norm::BatchNorm::with_statistics
    #[must_use]
    pub fn with_statistics(self) -> Self {
        Self { statistics: true, ..self }
    }

    fn geometry(&self, x: &Spec, weight: &Spec) -> Result<Geometry> {
        let [images, h, w, channels] = images(NAME, x)?;
        let Conv2dOptions { stride, padding, dilation, groups } = self.options;
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
            return dense::forward_statistics(&g, x, weight, bias.copied(), &partials.shape);
        }
        Ok(vec![dense::forward(&g, x, weight, bias.copied())?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, weight) = (step.input(0)?, step.input(1)?);
        let g = self.geometry(x.spec(), weight.spec())?;
        dense::gradients(step, |dy| dense::input_gradient(&g, dy, weight, None), |dy| dense::weight_gradient(&g, x, dy))
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

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let specs: Vec<Spec> = inputs.iter().map(|a| Spec::new(a.shape.clone(), a.dtype)).collect();
        let shape = self.infer(&specs)?.into_iter().next().map(|s| s.shape).unwrap_or_default();
        let g = self.geometry(&Spec::f32(x.shape.clone()), &Spec::f32(weight.shape.clone()))?;
        let ([h, w], [kh, kw], [sy, sx], [dy, dx], [top, left]) = (g.input, g.kernel, g.stride, g.dilation, g.before);
        let inner = g.channels / g.groups;
        let y = Array::from_fn(shape, |at| {
            let [n, i, j, k] = *at else { return f64::NAN };
            let group = k / (g.filters / g.groups);
            let mut sum = bias.map_or(0.0, |b| b.flat(k));
            for r in 0..kh {
                for s in 0..kw {
                    let (row, column) = (i * sy + r * dy, j * sx + s * dx);
                    if row < top || column < left || row - top >= h || column - left >= w {
                        continue;
                    }
                    for c in 0..inner {
                        sum += x.at(&[n, row - top, column - left, group * inner + c]) * weight.at(&[k, r, s, c]);
                    }
                }
            }
            sum
        });
        let partials = self.statistics.then(|| statistics::reference(&y));
        Ok([y].into_iter().chain(partials).collect())
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let flops = match inputs {
            [x, weight, ..] => self.geometry(x, weight).map_or(0.0, |g| g.flops()),
            _ => 0.0,
        };
        Cost { flops, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let Window { stride, padding, dilation } = Window::from_attributes(attributes)?;
    Ok(Box::new(Conv2d::new(Conv2dOptions { stride, padding, dilation, groups: attributes.size_or("groups", 1)? })))
}

fn samples() -> Vec<Sample> {
    let sample = |x: [usize; 4], weight: [usize; 4], bias: bool, options: Conv2dOptions| {
        let mut inputs: Vec<Input> = vec![normal(x), normal_with(weight, 0.3, 0.0)];
        if bias {
            inputs.push(normal([weight[0]]));
        }
        Sample::new(Conv2d::new(options), inputs)
    };
    let with =
        |stride: [usize; 2], padding: Padding, dilation: [usize; 2], groups: usize| Conv2dOptions { stride, padding, dilation, groups };
    let plain = Conv2dOptions::default();
    let same = with([1, 1], 1.into(), [1, 1], 1);
    let measured = |x: [usize; 4], weight: [usize; 4], options: Conv2dOptions| {
        Sample::new(Conv2d::new(options).with_statistics(), [normal(x), normal_with(weight, 0.3, 0.0)])
    };
    vec![
        measured([0, 5, 5, 3], [4, 3, 3, 3], same),
        measured([2, 7, 9, 4], [68, 3, 3, 4], same),
        measured([1, 9, 15, 3], [5, 3, 3, 3], same),
        measured([1, 17, 9, 4], [40, 3, 3, 2], with([2, 1], 1.into(), [1, 1], 2)),
        measured([2, 8, 8, 12], [20, 1, 1, 12], plain),
        measured([1, 13, 5, 6], [67, 1, 1, 6], plain),
        Sample::new(
            Conv2d::new(plain).with_statistics(),
            [normal([1, 8, 9, 5]), normal_with([7, 1, 1, 5], 0.3, 0.0), normal_with([7], 1.0, 50.0)],
        ),
        Sample::new(
            Conv2d::new(same).with_statistics(),
            [normal([1, 8, 9, 4]), normal_with([8, 3, 3, 4], 0.3, 0.0), normal_with([8], 1.0, 50.0)],
        ),
        sample([0, 5, 5, 3], [4, 3, 3, 3], true, same),
        sample([1, 1, 1, 1], [1, 1, 1, 1], false, plain),
        sample([2, 5, 7, 3], [5, 3, 3, 3], true, same),
        sample([1, 7, 5, 1], [33, 3, 1, 1], true, same),
        sample([1, 5, 3, 4], [12, 3, 3, 4], false, same),
        sample([1, 3, 5, 12], [36, 3, 3, 12], true, same),
        sample([1, 5, 13, 33], [65, 1, 1, 33], true, plain),
        sample([1, 1, 9, 65], [3, 1, 1, 65], false, plain),
        sample([1, 9, 8, 8], [20, 3, 3, 8], true, with([2, 2], Padding::Same, [1, 1], 1)),
        sample([1, 9, 8, 8], [4, 3, 5, 8], true, with([3, 2], [1, 0, 2, 1].into(), [1, 1], 1)),
        sample([1, 11, 9, 4], [8, 3, 3, 4], false, with([2, 3], 3.into(), [2, 3], 1)),
        sample([1, 12, 7, 3], [8, 4, 2, 3], true, with([2, 4], 2.into(), [2, 1], 1)),
        sample([2, 6, 5, 12], [8, 3, 3, 3], true, with([1, 2], 1.into(), [1, 1], 4)),
        sample([2, 5, 4, 8], [40, 3, 3, 4], true, with([1, 1], 1.into(), [1, 1], 2)),
        sample([1, 4, 4, 6], [6, 2, 2, 1], false, with([2, 2], 0.into(), [1, 1], 6)),
    ]
}

fn bad() -> Vec<Bad> {
    let plain = || Conv2d::new(Conv2dOptions::default());
    vec![
        Bad::new(plain(), [normal([1, 4, 4, 3])], "it takes x, weight and perhaps bias, 1 inputs were given"),
        Bad::new(plain(), [normal([4, 4, 3]), normal([2, 3, 3, 3])], "x must be images [N, H, W, C]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([2, 3, 3])], "a weight has the shape [K, kh, kw, C / groups]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([2, 3, 3, 4])], "C groups times the weight's last size"),
        Bad::new(
            Conv2d::new(Conv2dOptions { groups: 2, ..Default::default() }),
            [normal([1, 4, 4, 4]), normal([3, 3, 3, 2])],
            "K must be a multiple of the groups",
        ),
        Bad::new(plain(), [normal([1, 2, 4, 3]), normal([2, 3, 3, 3])], "a kernel that spans 3 pixels does not fit into 2 pixels"),
        Bad::new(
            Conv2d::new(Conv2dOptions { stride: [1, 0], ..Default::default() }),
            [normal([1, 4, 4, 3]), normal([2, 3, 3, 3])],
            "must be at least 1",
        ),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([2, 3, 3, 3]), normal([3])], "expected [2]: one element an output channel"),
        Bad::new(plain(), [indices([1, 4, 4, 3], 2), normal([2, 3, 3, 3])], "x must hold floats"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), indices([2, 3, 3, 3], 2)], "weight must be f32"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        family: "convolution",
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        shaders: dense::SHADERS,
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Convolution (cross-correlation) of images `[N, H, W, C]` with `weight` `[K, kh, kw, C / groups]` and `bias` `[K]`:
    /// `[N, OH, OW, K]` with `OH = (H + top + bottom - dilation * (kh - 1) - 1) / stride + 1`, rounded down.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::ops::convolution::conv2d::Conv2dOptions;
    /// use wgrad::ops::convolution::geometry::Padding;
    /// use wgrad::tensor::Tensor;
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let images = Tensor::full(&gpu, [1, 4, 4, 3], 1.0)?; // [N, H, W, C]
    /// let weight = Tensor::full(&gpu, [8, 3, 3, 3], 1.0)?; // [K, kh, kw, C]
    /// let options = Conv2dOptions { padding: Padding::Explicit([1; 4]), ..Default::default() };
    /// let y = images.conv2d(&weight, None, &options)?;
    /// assert_eq!(y.shape()[..], [1, 4, 4, 8]);
    /// assert_eq!(y.to_vec::<f32>()?.first(), Some(&12.0)); // 2 x 2 of the corner's taps meet pixels, of 3 channels each
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Shapes that do not fit, a kernel larger than the padded image, a stride, dilation or number of groups of 0; a weight or
    /// bias that is not f32; out of memory.
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &Conv2dOptions) -> Result<Tensor> {
        apply_one(Conv2d::new(*options), &listed(self, weight, bias))
    }
}

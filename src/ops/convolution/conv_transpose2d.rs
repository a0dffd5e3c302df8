//! Transposed convolution: the gradient of a convolution to its input, as an operator.

use super::dense;
use super::geometry::{Geometry, check, listed, sides, split};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, apply_one, images};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "conv_transpose2d";

/// Options of [`Tensor::conv_transpose2d`]; the first number of a pair is vertical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose2dOptions {
    /// Output pixels between two input pixels.
    pub stride: [usize; 2],
    /// Top, bottom, left, right: pixels cut off the output.
    pub padding: [usize; 4],
    /// Rows and columns added at the bottom and right of the output; less than the stride.
    pub output_padding: [usize; 2],
}

impl Default for ConvTranspose2dOptions {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0; 4], output_padding: [0; 2] }
    }
}

/// `y[n, i * stride + r - padding, .., k] += x[n, i, j, c] * weight[c, r, s, k]`, plus `bias[k]`
#[derive(Debug, Clone)]
pub struct ConvTranspose2d {
    options: ConvTranspose2dOptions,
}

impl ConvTranspose2d {
    /// A transposed convolution with `options`.
    pub fn new(options: ConvTranspose2dOptions) -> Self {
        Self { options }
    }

    /// The convolution whose gradient this is: from y to x.
    fn geometry(&self, x: &Spec, weight: &Spec) -> Result<Geometry> {
        let [images, h, w, filters] = images(NAME, x)?;
        let wrong = |rule: String| Err(Error::shape(NAME, format!("x {} and weight {}: {rule}", x.shape, weight.shape)));
        let Some([inputs, kh, kw, channels]) = weight.shape.array() else {
            return wrong("a weight has the shape [C_in, kh, kw, C_out]".into());
        };
        if inputs != filters || filters == 0 || channels == 0 {
            return wrong("the weight's first size must be the channels of x".into());
        }
        let ([sy, sx], [top, bottom, left, right], [more_y, more_x]) =
            (self.options.stride, self.options.padding, self.options.output_padding);
        if sy == 0 || sx == 0 || kh == 0 || kw == 0 || more_y >= sy || more_x >= sx {
            return Err(Error::argument(
                NAME,
                format!(
                    "stride [{sy}, {sx}] and kernel [{kh}, {kw}] must be at least 1, output_padding [{more_y}, {more_x}] less than the stride"
                ),
            ));
        }
        let axis = |size: usize, stride: usize, kernel: usize, more: usize, cut: usize| match ((size.max(1) - 1) * stride + kernel + more)
            .checked_sub(cut)
        {
            Some(out) if out > 0 && size > 0 => Ok(out),
            _ => Err(Error::shape(
                NAME,
                format!("nothing is left of {size} pixels at stride {stride} and kernel {kernel} when {cut} are cut off"),
            )),
        };
        let input = [axis(h, sy, kh, more_y, top + bottom)?, axis(w, sx, kw, more_x, left + right)?];
        Ok(Geometry {
            images,
            input,
            channels,
            output: [h, w],
            filters,
            kernel: [kh, kw],
            stride: [sy, sx],
            before: [top, left],
            dilation: [1, 1],
            groups: 1,
        })
    }
}

impl Operator for ConvTranspose2d {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(x, weight)?;
        check(NAME, x, weight, bias, g.channels)?;
        let [h, w] = g.input;
        Ok(vec![Spec::new([g.images, h, w, g.channels], x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(x.spec(), weight.spec())?;
        Ok(vec![dense::input_gradient(&g, x, weight, bias.copied())?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, weight) = (step.input(0)?, step.input(1)?);
        let g = self.geometry(x.spec(), weight.spec())?;
        dense::gradients(step, |dy| dense::forward(&g, dy, weight, None), |dy| dense::weight_gradient(&g, dy, x))
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

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(&Spec::f32(x.shape.clone()), &Spec::f32(weight.shape.clone()))?;
        let ([h, w], [oh, ow], [kh, kw], [sy, sx], [top, left]) = (g.output, g.input, g.kernel, g.stride, g.before);
        let mut y = Array::from_fn([g.images, oh, ow, g.channels], |at| bias.map_or(0.0, |b| b.flat(at.last().copied().unwrap_or(0))));
        for n in 0..g.images {
            for (i, j) in (0..h).flat_map(|i| (0..w).map(move |j| (i, j))) {
                for (r, s) in (0..kh).flat_map(|r| (0..kw).map(move |s| (r, s))) {
                    let (row, column) = (i * sy + r, j * sx + s);
                    if row < top || column < left || row - top >= oh || column - left >= ow {
                        continue;
                    }
                    for (c, k) in (0..g.filters).flat_map(|c| (0..g.channels).map(move |k| (c, k))) {
                        y.add_at(&[n, row - top, column - left, k], x.at(&[n, i, j, c]) * weight.at(&[c, r, s, k]));
                    }
                }
            }
        }
        Ok(vec![y])
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
    Ok(Box::new(ConvTranspose2d::new(ConvTranspose2dOptions {
        stride: attributes.pair_or("stride", [1; 2])?,
        padding: sides(attributes)?,
        output_padding: attributes.pair_or("output_padding", [0; 2])?,
    })))
}

fn samples() -> Vec<Sample> {
    let sample = |x: [usize; 4], weight: [usize; 4], bias: bool, options: ConvTranspose2dOptions| {
        let mut inputs: Vec<Input> = vec![normal(x), normal_with(weight, 0.3, 0.0)];
        if bias {
            inputs.push(normal([weight[3]]));
        }
        Sample::new(ConvTranspose2d::new(options), inputs)
    };
    let with =
        |stride: [usize; 2], padding: [usize; 4], output_padding: [usize; 2]| ConvTranspose2dOptions { stride, padding, output_padding };
    vec![
        sample([0, 3, 3, 4], [4, 2, 2, 3], true, with([2, 2], [0; 4], [0, 0])),
        sample([1, 1, 1, 1], [1, 1, 1, 1], false, ConvTranspose2dOptions::default()),
        sample([2, 3, 5, 3], [3, 3, 3, 7], true, with([2, 2], [1; 4], [1, 1])),
        sample([1, 3, 4, 8], [8, 4, 4, 12], true, with([2, 2], [1; 4], [0, 0])),
        sample([1, 3, 3, 5], [5, 2, 2, 33], false, with([3, 2], [0, 1, 0, 1], [2, 0])),
    ]
}

fn bad() -> Vec<Bad> {
    let plain = || ConvTranspose2d::new(ConvTranspose2dOptions::default());
    vec![
        Bad::new(plain(), [normal([1, 4, 4, 3])], "it takes x, weight and perhaps bias, 1 inputs were given"),
        Bad::new(plain(), [normal([4, 4, 3]), normal([3, 3, 3, 2])], "x must be images [N, H, W, C]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([3, 3, 3])], "a weight has the shape [C_in, kh, kw, C_out]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([2, 3, 3, 3])], "the weight's first size must be the channels of x"),
        Bad::new(
            ConvTranspose2d::new(ConvTranspose2dOptions { output_padding: [1, 0], ..Default::default() }),
            [normal([1, 4, 4, 3]), normal([3, 3, 3, 2])],
            "less than the stride",
        ),
        Bad::new(
            ConvTranspose2d::new(ConvTranspose2dOptions { padding: [3, 3, 0, 0], ..Default::default() }),
            [normal([1, 4, 4, 3]), normal([3, 3, 3, 2])],
            "nothing is left of 4 pixels",
        ),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([3, 3, 3, 2]), normal([3])], "expected [2]: one element an output channel"),
        Bad::new(plain(), [indices([1, 4, 4, 3], 2), normal([3, 3, 3, 2])], "x must hold floats"),
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
    /// Transposed convolution of images `[N, H, W, C_in]` with `weight` `[C_in, kh, kw, C_out]` and `bias` `[C_out]`:
    /// `[N, OH, OW, C_out]` with `OH = (H - 1) * stride + kh + output_padding - top - bottom`.
    ///
    /// # Errors
    /// Shapes that do not fit, a stride of 0, an output padding that is not less than the stride, padding that leaves nothing; a
    /// weight or bias that is not f32; out of memory.
    pub fn conv_transpose2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvTranspose2dOptions) -> Result<Tensor> {
        apply_one(ConvTranspose2d::new(*options), &listed(self, weight, bias))
    }
}

//! Transposed convolution: the gradient of a convolution to its input, as an operator.

use super::conv2d::launch;
use super::geometry::{Geometry, check, listed, sides, split};
use super::slabs;
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::linear::gemm;
use crate::ops::normalization::batch_norm::plan;
use crate::ops::reduction::{column_sum, reduce};
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Edges, Operator, Saves, apply_one, images};
use crate::tensor::{Spec, Tensor, check_sizes};

const NAME: &str = "conv_transpose2d";

/// Options of [`Tensor::conv_transpose2d`]; the first number of a pair is vertical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose2dFuncOptions {
    /// Output pixels between two input pixels.
    pub stride: [usize; 2],
    /// Top, bottom, left, right: pixels cut off the output.
    pub padding: [usize; 4],
    /// Rows and columns added at the bottom and right of the output; less than the stride or the
    /// dilation.
    pub output_padding: [usize; 2],
    /// Output pixels between two taps of the kernel.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for ConvTranspose2dFuncOptions {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0; 4], output_padding: [0; 2], dilation: [1, 1], groups: 1 }
    }
}

/// `y[n, i * stride + r * dilation - padding, .., k] += x[n, i, j, c] * weight[c, r, s, k]`, plus
/// `bias[k]`
#[derive(Debug, Clone)]
pub struct ConvTranspose2d {
    options: ConvTranspose2dFuncOptions,
}

impl ConvTranspose2d {
    /// A transposed convolution with `options`.
    pub fn new(options: ConvTranspose2dFuncOptions) -> Self {
        Self { options }
    }

    /// The convolution whose gradient this is: from y to x.
    fn geometry(&self, x: &Spec, weight: &Spec) -> Result<Geometry> {
        let [images, h, w, filters] = images(NAME, x)?;
        let wrong = |rule: String| Err(Error::shape(NAME, format!("x {} and weight {}: {rule}", x.shape, weight.shape)));
        let Some([inputs, kh, kw, inner]) = weight.shape.array() else {
            return wrong("a weight has the shape [C_in, kh, kw, C_out / groups]".into());
        };
        let ConvTranspose2dFuncOptions { stride, padding, output_padding, dilation, groups } = self.options;
        if inputs != filters || filters == 0 || inner == 0 || groups == 0 || filters % groups != 0 {
            return wrong(format!("the weight's first size must be the channels of x, a multiple of the {groups} groups"));
        }
        let channels = inner.checked_mul(groups).ok_or_else(|| Error::argument(NAME, format!("{groups} groups are too many")))?;
        let ([sy, sx], [top, bottom, left, right], [more_y, more_x], [dy, dx]) = (stride, padding, output_padding, dilation);
        if [sy, sx, dy, dx, kh, kw].contains(&0) || more_y >= sy.max(dy) || more_x >= sx.max(dx) {
            return Err(Error::argument(
                NAME,
                format!(
                    "stride {stride:?}, dilation {dilation:?} and kernel [{kh}, {kw}] must be at least 1, output_padding {output_padding:?} less \
                     than the stride or the dilation"
                ),
            ));
        }
        check_sizes(NAME, "an image's side", [h, w])?;
        check_sizes(NAME, "a kernel's side", [kh, kw])?;
        check_sizes(NAME, "a stride", stride)?;
        check_sizes(NAME, "a dilation", dilation)?;
        check_sizes(NAME, "padding", padding)?;
        let axis = |size: usize, stride: usize, span: usize, more: usize, cut: usize| {
            let whole = (size.max(1) - 1) * stride + span + more;
            check_sizes(NAME, "a kernel's span, and an image before it is cut,", [span, whole])?;
            whole.checked_sub(cut).filter(|out| *out > 0 && size > 0).ok_or_else(|| {
                let message = format!("nothing is left of {size} pixels at stride {stride} and kernel {span} when {cut} are cut off");
                Error::shape(NAME, message)
            })
        };
        let [span_y, span_x] = [(kh - 1) * dy + 1, (kw - 1) * dx + 1];
        let input = [axis(h, sy, span_y, more_y, top + bottom)?, axis(w, sx, span_x, more_x, left + right)?];
        Ok(Geometry { images, input, channels, output: [h, w], filters, kernel: [kh, kw], stride, before: [top, left], dilation, groups })
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
        Ok(vec![launch::input_gradient(&g, x, weight, bias.copied())?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, weight, dy) = (step.input(0)?, step.input(1)?, step.cotangent(0)?);
        let g = self.geometry(x.spec(), weight.spec())?;
        let dx = step.needs(0).then(|| launch::forward(&g, &dy, weight, None)).transpose()?;
        let dweight = step.needs(1).then(|| launch::weight_gradient(&g, &dy, x)).transpose()?;
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
        let (x, weight, bias) = split(NAME, inputs)?;
        let g = self.geometry(&Spec::f32(x.shape.clone()), &Spec::f32(weight.shape.clone()))?;
        let ([h, w], [oh, ow], [kh, kw], [sy, sx], [dy, dx], [top, left]) = (g.output, g.input, g.kernel, g.stride, g.dilation, g.before);
        let (inputs, outputs) = (g.filters / g.groups, g.channels / g.groups);
        let mut y = Array::from_fn([g.images, oh, ow, g.channels], |at| bias.map_or(0.0, |b| b.flat(at.last().copied().unwrap_or(0))));
        for n in 0..g.images {
            for (i, j) in (0..h).flat_map(|i| (0..w).map(move |j| (i, j))) {
                for (r, s) in (0..kh).flat_map(|r| (0..kw).map(move |s| (r, s))) {
                    let (row, column) = (i * sy + r * dy, j * sx + s * dx);
                    if row < top || column < left || row - top >= oh || column - left >= ow {
                        continue;
                    }
                    for (c, k) in (0..g.filters).flat_map(|c| (0..outputs).map(move |k| (c, k))) {
                        let channel = c / inputs * outputs + k;
                        y.add_at(&[n, row - top, column - left, channel], x.at(&[n, i, j, c]) * weight.at(&[c, r, s, k]));
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
    Ok(Box::new(ConvTranspose2d::new(ConvTranspose2dFuncOptions {
        stride: attributes.pair_or("stride", [1; 2])?,
        padding: sides(attributes)?,
        output_padding: attributes.pair_or("output_padding", [0; 2])?,
        dilation: attributes.pair_or("dilation", [1; 2])?,
        groups: attributes.size_or("groups", 1)?,
    })))
}

fn samples() -> Vec<Sample> {
    let sample = |x: [usize; 4], weight: [usize; 4], bias: bool, options: ConvTranspose2dFuncOptions| {
        let mut inputs: Vec<Input> = vec![normal(x), normal_with(weight, 0.3, 0.0)];
        if bias {
            inputs.push(normal([weight[3] * options.groups]));
        }
        Sample::new(ConvTranspose2d::new(options), inputs)
    };
    let with = |stride: [usize; 2], padding: [usize; 4], output_padding: [usize; 2]| ConvTranspose2dFuncOptions {
        stride,
        padding,
        output_padding,
        ..Default::default()
    };
    let spread = |stride: [usize; 2], dilation: [usize; 2], groups: usize, padding: [usize; 4], output_padding: [usize; 2]| {
        ConvTranspose2dFuncOptions { stride, padding, output_padding, dilation, groups }
    };
    vec![
        sample([0, 3, 3, 4], [4, 2, 2, 3], true, with([2, 2], [0; 4], [0, 0])),
        sample([1, 1, 1, 1], [1, 1, 1, 1], false, ConvTranspose2dFuncOptions::default()),
        sample([2, 3, 5, 3], [3, 3, 3, 7], true, with([2, 2], [1; 4], [1, 1])),
        sample([1, 3, 4, 8], [8, 4, 4, 12], true, with([2, 2], [1; 4], [0, 0])),
        sample([1, 3, 3, 5], [5, 2, 2, 33], false, with([3, 2], [0, 1, 0, 1], [2, 0])),
        sample([2, 3, 4, 6], [6, 3, 2, 5], true, spread([1, 2], [2, 3], 1, [1, 0, 2, 1], [1, 2])),
        sample([1, 4, 3, 12], [12, 3, 3, 4], true, spread([2, 2], [1, 1], 3, [1; 4], [1, 0])),
        sample([1, 3, 3, 6], [6, 3, 3, 1], true, spread([3, 2], [2, 2], 6, [2, 1, 1, 0], [2, 1])),
        sample([1, 3, 5, 8], [8, 1, 1, 20], false, spread([1, 1], [1, 1], 2, [0; 4], [0, 0])),
        sample([1, 5, 4, 16], [16, 3, 3, 20], true, spread([1, 1], [2, 1], 2, [2, 2, 1, 1], [0, 0])),
    ]
}

fn bad() -> Vec<Bad> {
    let plain = || ConvTranspose2d::new(ConvTranspose2dFuncOptions::default());
    vec![
        Bad::new(plain(), [normal([1, 4, 4, 3])], "it takes x, weight and perhaps bias, 1 inputs were given"),
        Bad::new(plain(), [normal([4, 4, 3]), normal([3, 3, 3, 2])], "x must be images [N, H, W, C]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([3, 3, 3])], "a weight has the shape [C_in, kh, kw, C_out / groups]"),
        Bad::new(plain(), [normal([1, 4, 4, 3]), normal([2, 3, 3, 3])], "the weight's first size must be the channels of x"),
        Bad::new(
            ConvTranspose2d::new(ConvTranspose2dFuncOptions { output_padding: [1, 0], ..Default::default() }),
            [normal([1, 4, 4, 3]), normal([3, 3, 3, 2])],
            "less than the stride",
        ),
        Bad::new(
            ConvTranspose2d::new(ConvTranspose2dFuncOptions { dilation: [0, 1], ..Default::default() }),
            [normal([1, 4, 4, 3]), normal([3, 3, 3, 2])],
            "must be at least 1",
        ),
        Bad::new(
            ConvTranspose2d::new(ConvTranspose2dFuncOptions { groups: 2, ..Default::default() }),
            [normal([1, 4, 4, 3]), normal([3, 3, 3, 2])],
            "a multiple of the 2 groups",
        ),
        Bad::new(
            ConvTranspose2d::new(ConvTranspose2dFuncOptions { padding: [3, 3, 0, 0], ..Default::default() }),
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
        module: module_path!(),
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        kernels: &[launch::KERNELS, slabs::KERNELS, gemm::KERNELS, reduce::KERNELS, plan::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Transposed convolution of images `[N, H, W, C_in]` with `weight` `[C_in, kh, kw, C_out / groups]` and `bias` `[C_out]`:
    /// `[N, OH, OW, C_out]` with `OH = (H - 1) * stride + dilation * (kh - 1) + 1 + output_padding - top - bottom`.
    ///
    /// # Errors
    /// Shapes that do not fit, a stride, dilation or number of groups of 0, an output padding that
    /// is neither less than the stride nor than the dilation, padding that leaves nothing; a weight
    /// or bias that is not f32; out of memory.
    pub fn conv_transpose2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: &ConvTranspose2dFuncOptions) -> Result<Tensor> {
        apply_one(ConvTranspose2d::new(*options), &listed(self, weight, bias))
    }
}

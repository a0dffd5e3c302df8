//! Sizes of a convolution, and the rules for stride, padding and dilation that all convolutions
//! share.

use crate::error::{Error, Result};
use crate::ops::{Attributes, require_f32, require_float};
use crate::tensor::{Spec, Tensor, check_sizes};

/// Zeros around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Top, bottom, left, right.
    Explicit([usize; 4]),
    /// As TensorFlow's SAME: an output of `ceil(size / stride)`, with an odd row or column at the
    /// bottom or right.
    Same,
}

impl Default for Padding {
    fn default() -> Self {
        Padding::Explicit([0; 4])
    }
}

impl From<usize> for Padding {
    fn from(all: usize) -> Self {
        Padding::Explicit([all; 4])
    }
}

impl From<[usize; 2]> for Padding {
    /// Above and below, left and right.
    fn from([vertical, horizontal]: [usize; 2]) -> Self {
        Padding::Explicit([vertical, vertical, horizontal, horizontal])
    }
}

impl From<[usize; 4]> for Padding {
    fn from(sides: [usize; 4]) -> Self {
        Padding::Explicit(sides)
    }
}

/// How a kernel moves over an image: vertically, horizontally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Pixels between two positions.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Pixels between two taps.
    pub dilation: [usize; 2],
}

/// All sizes of a convolution [N, H, W, C] -> [N, OH, OW, K].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub images: usize,
    pub input: [usize; 2],
    pub channels: usize,
    pub output: [usize; 2],
    pub filters: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Padding above and to the left.
    pub before: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl Geometry {
    /// Weights, without bias.
    pub fn weights(&self) -> usize {
        let [kh, kw] = self.kernel;
        self.filters * kh * kw * (self.channels / self.groups)
    }

    /// Output pixels of all images.
    pub fn pixels(&self) -> usize {
        let [h, w] = self.output;
        self.images * h * w
    }

    /// Multiply-adds count as two operations.
    pub fn flops(&self) -> f64 {
        2.0 * self.pixels() as f64 * self.weights() as f64
    }

    /// What the convolution reads: from input to output.
    pub fn forward(&self) -> Taps {
        Taps {
            source: self.input,
            target: self.output,
            step: self.stride,
            up: [1, 1],
            start: signed(self.before, -1),
            dilation: signed(self.dilation, 1),
            every: [1, 1],
        }
    }

    /// What its gradient to the input reads: from output to input.
    pub fn backward(&self) -> Taps {
        let ([up_y, up_x], [dilation_y, dilation_x]) = (self.stride, self.dilation);
        Taps {
            source: self.output,
            target: self.input,
            step: [1, 1],
            up: self.stride,
            start: signed(self.before, 1),
            dilation: signed(self.dilation, -1),
            every: [up_y / greatest_common_divisor(up_y, dilation_y), up_x / greatest_common_divisor(up_x, dilation_x)],
        }
    }
}

/// Which source pixel a target pixel's tap meets, along both axes:
/// `(target * step + start + tap * dilation) / up`, where that is whole and inside the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taps {
    pub source: [usize; 2],
    pub target: [usize; 2],
    pub step: [usize; 2],
    pub up: [usize; 2],
    pub start: [i64; 2],
    pub dilation: [i64; 2],
    /// Every how many taps meet whole source pixels.
    pub every: [usize; 2],
}

fn signed(values: [usize; 2], sign: i64) -> [i64; 2] {
    values.map(|v| sign * v as i64)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl Window {
    /// Reads `stride`, `padding` and `dilation`.
    pub(super) fn from_attributes(attributes: &Attributes) -> Result<Self> {
        Ok(Self {
            stride: attributes.pair_or("stride", [1; 2])?,
            padding: Padding::Explicit(sides(attributes)?),
            dilation: attributes.pair_or("dilation", [1; 2])?,
        })
    }

    /// Padding above and to the left, and the output's size along both axes.
    pub(crate) fn slide(&self, operator: &str, input: [usize; 2], kernel: [usize; 2]) -> Result<([usize; 2], [usize; 2])> {
        if self.stride.contains(&0) || self.dilation.contains(&0) || kernel.contains(&0) {
            return Err(Error::argument(
                operator,
                format!("stride {:?}, dilation {:?} and kernel {kernel:?} must be at least 1", self.stride, self.dilation),
            ));
        }
        check_sizes(operator, "an image's side", input)?;
        check_sizes(operator, "a kernel's side", kernel)?;
        check_sizes(operator, "a stride", self.stride)?;
        check_sizes(operator, "a dilation", self.dilation)?;
        if let Padding::Explicit(sides) = self.padding {
            check_sizes(operator, "padding", sides)?;
        }
        let axis = |size: usize, kernel: usize, stride: usize, dilation: usize, given: Option<(usize, usize)>| {
            let span = (kernel - 1) * dilation + 1;
            let (before, after) = given.unwrap_or_else(|| {
                let total = ((size.div_ceil(stride).max(1) - 1) * stride + span).saturating_sub(size);
                (total / 2, total - total / 2)
            });
            let padded = size + before + after;
            check_sizes(operator, "a kernel's span, and an image with its padding,", [span, padded])?;
            if padded < span {
                return Err(Error::shape(
                    operator,
                    format!("a kernel that spans {span} pixels does not fit into {size} pixels with padding {before} and {after}"),
                ));
            }
            Ok((before, (padded - span) / stride + 1))
        };
        let ([h, w], [kh, kw], [sy, sx], [dy, dx]) = (input, kernel, self.stride, self.dilation);
        let (vertical, horizontal) = match self.padding {
            Padding::Explicit([top, bottom, left, right]) => (Some((top, bottom)), Some((left, right))),
            Padding::Same => (None, None),
        };
        let (top, oh) = axis(h, kh, sy, dy, vertical)?;
        let (left, ow) = axis(w, kw, sx, dx, horizontal)?;
        Ok(([top, left], [oh, ow]))
    }
}

/// Padding: one number, a pair, or top, bottom, left, right.
pub(super) fn sides(attributes: &Attributes) -> Result<[usize; 4]> {
    if !attributes.has("padding") {
        return Ok([0; 4]);
    }
    match *attributes.sizes("padding")? {
        [all] => Ok([all; 4]),
        [y, x] => Ok([y, y, x, x]),
        [top, bottom, left, right] => Ok([top, bottom, left, right]),
        ref other => {
            Err(Error::argument("attribute padding", format!("expected one number, two, or [top, bottom, left, right], found {other:?}")))
        }
    }
}

/// The inputs of a convolution: x, weight, and perhaps a bias with `channels` elements.
pub(super) fn split<'a, T>(operator: &str, inputs: &'a [T]) -> Result<(&'a T, &'a T, Option<&'a T>)> {
    match inputs {
        [x, weight] => Ok((x, weight, None)),
        [x, weight, bias] => Ok((x, weight, Some(bias))),
        _ => Err(Error::shape(operator, format!("it takes x, weight and perhaps bias, {} inputs were given", inputs.len()))),
    }
}

/// Checks types, and the bias's shape.
pub(super) fn check(operator: &str, x: &Spec, weight: &Spec, bias: Option<&Spec>, channels: usize) -> Result<()> {
    require_float(operator, "x", x)?;
    require_f32(operator, "weight", weight)?;
    let Some(bias) = bias else { return Ok(()) };
    require_f32(operator, "bias", bias)?;
    if bias.shape.array() != Some([channels]) {
        return Err(Error::shape(operator, format!("bias has shape {}, expected [{channels}]: one element an output channel", bias.shape)));
    }
    Ok(())
}

/// Inputs of a convolution with an optional bias, as a list.
pub(super) fn listed<'a>(x: &'a Tensor, weight: &'a Tensor, bias: Option<&'a Tensor>) -> Vec<&'a Tensor> {
    [Some(x), Some(weight), bias].into_iter().flatten().collect()
}

//! Sliding windows over images, and what the family's operators share.

use crate::error::{Error, Result};
use crate::gpu::{Capabilities, Param, rounds};
use crate::ops::{Array, Attributes, images, require_float};
use crate::params;
use crate::tensor::{Shape, Spec, check_sizes};

/// Windows of `kernel` elements every `stride`, over images with `padding` on each side; rows
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Rows above and below, columns left and right of the image; at most half a window.
    pub padding: [usize; 2],
    /// Elements between two of a window; average pooling takes 1 only.
    pub dilation: [usize; 2],
    /// Whether a last window that does not fit wholly counts, where it begins within the image or
    /// the padding before it.
    pub ceil_mode: bool,
}

impl Window {
    /// A square window.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], dilation: [1; 2], ceil_mode: false }
    }

    /// From the attributes `kernel`, `stride` (by default the kernel), `padding` (0) and `dilation`
    /// (1), a number or two each, and `ceil_mode`.
    pub(super) fn build(attributes: &Attributes) -> Result<Self> {
        let kernel = attributes.pair("kernel")?;
        Ok(Self {
            kernel,
            stride: attributes.pair_or("stride", kernel)?,
            padding: attributes.pair_or("padding", [0; 2])?,
            dilation: attributes.pair_or("dilation", [1; 2])?,
            ceil_mode: attributes.flag("ceil_mode")?,
        })
    }

    /// Elements from the first to the last of a window, both counted.
    pub(super) fn span(&self) -> [usize; 2] {
        let ([kh, kw], [dh, dw]) = (self.kernel, self.dilation);
        [(kh - 1) * dh + 1, (kw - 1) * dw + 1]
    }

    /// The shape of y for an x `[N, H, W, C]`: `(size + 2 padding - span) / stride + 1`, rounded
    /// down or, with `ceil_mode`, up.
    pub(super) fn output(&self, operator: &str, x: &Spec) -> Result<Shape> {
        let [n, h, w, c] = float_images(operator, x)?;
        let [oh, ow] = self.counts(operator, [h, w])?;
        Ok(Shape::from([n, oh, ow, c]))
    }

    fn counts(&self, operator: &str, size: [usize; 2]) -> Result<[usize; 2]> {
        let wrong = |rule: &str| Err(Error::shape(operator, format!("{self:?} does not fit an image of {size:?}: {rule}")));
        check_sizes(operator, "an image's side", size)?;
        check_sizes(operator, "a window's side", self.kernel)?;
        check_sizes(operator, "a stride", self.stride)?;
        check_sizes(operator, "padding", self.padding)?;
        check_sizes(operator, "a dilation", self.dilation)?;
        if [self.kernel, self.stride, self.dilation].iter().any(|sizes| sizes.contains(&0)) {
            return wrong("kernel, stride and dilation must be at least 1");
        }
        let spans = self.span();
        check_sizes(operator, "a window's span, and an image with its padding,", spans)?;
        let mut counts = [0; 2];
        let axes = spans.iter().zip(&self.kernel).zip(&self.stride).zip(&self.padding).zip(&size);
        for (((((span, kernel), stride), padding), size), count) in axes.zip(&mut counts) {
            if 2 * padding > *kernel {
                return wrong("padding must be at most half the kernel");
            }
            let Some(rest) = (size + 2 * padding).checked_sub(*span).filter(|_| *size > 0) else {
                return wrong("the window is larger than the padded image");
            };
            let whole = rest / stride + 1;
            let more = self.ceil_mode && rest % stride > 0 && whole * stride < size + padding;
            *count = whole + usize::from(more);
        }
        Ok(counts)
    }

    /// The most rows and columns that an output sums, or that an input is summed into.
    pub(super) fn reach(&self, backward: bool) -> [usize; 2] {
        let ([kh, kw], [sh, sw]) = (self.span(), self.stride);
        if backward { [kh.div_ceil(sh), kw.div_ceil(sw)] } else { self.kernel }
    }

    /// The rows of [`Self::reach`] that each launch walks, first and last, and the rounds of one:
    /// all at once where an adapter's loops may be as long.
    pub(super) fn bands(&self, backward: bool, capabilities: &Capabilities) -> (Vec<[usize; 2]>, usize) {
        let [rows, columns] = self.reach(backward);
        let most = capabilities.longest_walk() / (columns + 2);
        let each = if capabilities.may_walk_exactly(rounds(rows, rounds(columns, 0))) { rows } else { most.clamp(1, rows) };
        ((0..rows).step_by(each.max(1)).map(|first| [first, rows.min(first + each)]).collect(), rounds(each, rounds(columns, 0)))
    }

    /// What the kernels are told of `n` elements to write: x and y in channels or, where `vec` is
    /// 4, vec4s of them.
    pub(super) fn parameters(&self, n: usize, x: &Shape, y: &Shape, vec: usize) -> Vec<Param> {
        let ([kh, kw], [sh, sw], [ph, pw], [dh, dw]) = (self.kernel, self.stride, self.padding, self.dilation);
        params![n / vec, x.dim(1), x.dim(2), y.dim(1), y.dim(2), x.last() / vec, kh, kw, sh, sw, ph, pw, dh, dw].to_vec()
    }

    /// The elements of a window within the padded image, whether they are of the image or not.
    pub(super) fn covered(&self, x: &Shape, at: &[usize]) -> usize {
        let side = |axis: usize, stride: usize, padding: usize, kernel: usize| {
            let start = at.get(axis).copied().unwrap_or(0) * stride;
            kernel.min((x.dim(axis) + 2 * padding).saturating_sub(start))
        };
        let ([kh, kw], [sh, sw], [ph, pw]) = (self.kernel, self.stride, self.padding);
        side(1, sh, ph, kh) * side(2, sw, pw, kw)
    }

    /// The elements of x in a window, in the order of rows, none in the padding; for references.
    pub(super) fn values(&self, x: &Array, at: &[usize]) -> Vec<Option<f64>> {
        let [n, oh, ow, c] = <[usize; 4]>::try_from(at).unwrap_or_default();
        let [[kh, kw], [sh, sw], [ph, pw], [dh, dw]] = [self.kernel, self.stride, self.padding, self.dilation];
        let mut values = Vec::with_capacity(kh * kw);
        for r in 0..kh {
            for q in 0..kw {
                let (row, column) = ((oh * sh + r * dh).checked_sub(ph), (ow * sw + q * dw).checked_sub(pw));
                values.push(match (row, column) {
                    (Some(row), Some(column)) if row < x.shape.dim(1) && column < x.shape.dim(2) => Some(x.at(&[n, row, column, c])),
                    _ => None,
                });
            }
        }
        values
    }
}

/// The sizes of images `[N, H, W, C]` of floats.
pub(super) fn float_images(operator: &str, x: &Spec) -> Result<[usize; 4]> {
    require_float(operator, "x", x)?;
    images(operator, x)
}

/// Channels that a thread handles at once.
pub(super) fn vec(channels: usize) -> usize {
    if channels.is_multiple_of(4) { 4 } else { 1 }
}

//! Strided copies: the host side of `shaders/layout/copy.wgsl` and `shaders/include/strided.wgsl`.

use crate::error::{Error, Result};
use crate::gpu::{Launch, Param};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Shape, Tensor};

kernels!(COPY = "layout/copy");

/// The most axes that a kernel walks.
pub(super) const AXES: usize = 6;

/// One axis of what is written, and how a step along it moves in what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Axis {
    /// How many elements are written along it.
    pub size: usize,
    /// Elements of the source per step.
    pub stride: i64,
    /// The first coordinate that lies inside the source.
    pub low: i64,
    /// How many do.
    pub extent: usize,
}

impl Axis {
    /// An axis that lies inside the source wholly.
    pub fn whole(size: usize, stride: i64) -> Self {
        Self { size, stride, low: 0, extent: size }
    }

    fn is_whole(&self) -> bool {
        self.low == 0 && self.extent == self.size
    }
}

/// The axes of a contiguous tensor.
pub(super) fn axes(shape: &Shape) -> Vec<Axis> {
    shape.iter().zip(shape.strides()).map(|(size, stride)| Axis::whole(*size, stride as i64)).collect()
}

/// Drops axes of one element and merges neighbours that step as one axis.
pub(super) fn collapse(axes: &[Axis]) -> Vec<Axis> {
    let mut merged: Vec<Axis> = Vec::new();
    for axis in axes.iter().filter(|a| a.size != 1 || !a.is_whole()) {
        match merged.last_mut() {
            Some(last) if last.is_whole() && axis.is_whole() && last.stride == axis.stride * axis.size as i64 => {
                *last = Axis::whole(last.size * axis.size, axis.stride);
            }
            _ => merged.push(*axis),
        }
    }
    merged
}

/// What `strided.wgsl` is told: sizes, strides and, where `bounded`, bounds, padded to six axes.
/// Negative numbers wrap.
pub(super) fn parameters(axes: &[Axis], bounded: bool) -> Vec<Param> {
    let filler = std::iter::repeat_n(Axis::whole(1, 0), AXES.saturating_sub(axes.len()));
    let all: Vec<Axis> = filler.chain(axes.iter().copied()).collect();
    // Modulo 2^32 sums of such products are still the element's index.
    let word = |v: i64| Param::U32(v as u32);
    let mut words: Vec<Param> = all.iter().map(|a| word(a.size as i64)).collect();
    words.extend(all.iter().map(|a| word(a.stride)));
    if bounded {
        words.extend(all.iter().map(|a| word(a.low)));
        words.extend(all.iter().map(|a| word(a.extent as i64)));
    }
    words
}

/// A number in the type that kernels compute `dtype` in.
pub(super) fn number(dtype: DType, value: f32) -> Param {
    match dtype {
        DType::I32 => Param::I32(value as i32),
        _ => Param::F32(value),
    }
}

/// What an index that does not exist gives: NaN, or the least integer.
pub(super) fn missing(dtype: DType) -> Param {
    number(dtype, if dtype == DType::I32 { i32::MIN as f32 } else { f32::NAN })
}

/// 4 where runs of these lengths can be moved as vec4s, else 1.
pub(super) fn width(mut lengths: impl Iterator<Item = usize>) -> usize {
    if lengths.all(|n| n % 4 == 0) { 4 } else { 1 }
}

/// Checks that a shape has no more axes than the kernels walk.
pub(super) fn check_rank(operator: &str, shape: &Shape) -> Result<()> {
    if shape.rank() <= AXES {
        return Ok(());
    }
    Err(Error::shape(operator, format!("shape {shape} has {} axes, at most {AXES} are supported", shape.rank())))
}

/// A new tensor of the axes' sizes: the elements of `x` that they name, counted from element
/// `base`; `value` outside their bounds.
pub(crate) fn copy(x: &Tensor, axes: &[Axis], base: i64, value: f32) -> Result<Tensor> {
    let shape: Vec<usize> = axes.iter().map(|a| a.size).collect();
    let y = Tensor::empty(x.gpu(), shape, x.dtype())?;
    let base = axes.iter().fold(base, |at, a| at - a.low * a.stride);
    let bounded = axes.iter().any(|a| !a.is_whole());
    let mut axes = collapse(axes);
    let (mut load, mut store, mut step, mut base) = (1, 1, 0, base);
    if let Some((last, outer)) = axes.split_last_mut()
        && last.is_whole()
        && last.size % 4 == 0
    {
        (store, step) = (4, last.stride);
        if last.stride == 1 && base % 4 == 0 && outer.iter().all(|a| a.stride % 4 == 0) {
            load = 4;
            base /= 4;
            outer.iter_mut().for_each(|a| a.stride /= 4);
            *last = Axis::whole(last.size / 4, 1);
        } else {
            *last = Axis::whole(last.size / 4, 4 * step);
        }
    }
    let n = y.numel() / store;
    let mut words = params![n, base as u32, step as u32].to_vec();
    words.push(number(x.dtype(), value));
    words.extend(parameters(&axes, bounded));
    Launch::new(x.gpu(), &COPY, "copy")
        .define("T", x.dtype().to_string())
        .define("LOAD", load)
        .define("STORE", store)
        .define("BOUNDED", bounded)
        .read(x)
        .write(&y)
        .params(&words)
        .invocations(n)?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_step_as_one_merge() {
        let shape = Shape::from([2, 1, 3, 4]);
        assert_eq!(collapse(&axes(&shape)), [Axis::whole(24, 1)]);
        let repeated = [Axis::whole(5, 0), Axis::whole(7, 0), Axis::whole(3, 4), Axis::whole(4, 1)];
        assert_eq!(collapse(&repeated), [Axis::whole(35, 0), Axis::whole(12, 1)]);
        let backwards = [Axis::whole(3, 4), Axis::whole(4, -1)];
        assert_eq!(collapse(&backwards), backwards);
        let padded = Axis { size: 1, low: 1, ..Axis::whole(3, 1) };
        assert_eq!(collapse(&[Axis::whole(2, 3), padded]), [Axis::whole(2, 3), padded]);
    }
}

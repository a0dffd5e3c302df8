//! Shapes, and the rules that operators share.

use std::fmt;
use std::ops::Deref;

use super::DType;
use crate::error::{Error, Result};

/// The largest product of a shape's axes, those of size 0 left out: so products and sums of a few
/// of them cannot wrap. A browser counts in 32 bits, and its largest buffer holds far fewer.
const MOST_ELEMENTS: usize = 1 << if usize::BITS < 64 { 28 } else { 48 };

/// The largest size that an operator is told of (padding, stride, dilation, a window's side) and
/// that an image may have with its padding: kernels add such numbers in 32 bits, and the host
/// multiplies two of them in 64.
const MOST: usize = (1 << 30) - 1;

/// Refuses sizes from outside that nothing may be reckoned with.
///
/// # Errors
/// [`Error::Argument`] naming `operator`, what the number is, and the number.
pub(crate) fn check_sizes(operator: &str, what: &str, sizes: impl IntoIterator<Item = usize>) -> Result<()> {
    match sizes.into_iter().find(|size| *size > MOST) {
        Some(size) => Err(Error::argument(operator, format!("{what} may be at most {MOST}, found {size}"))),
        None => Ok(()),
    }
}

/// Sizes of a tensor along its axes, outermost first. `[]` is a scalar.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// How many elements a tensor of this shape has; 1 for a scalar. More than can be counted are
    /// [`usize::MAX`]: no tensor has so many.
    pub fn numel(&self) -> usize {
        self.0.iter().fold(1, |n: usize, size| n.saturating_mul(*size))
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The size along `axis`, 1 beyond the last: the broadcasting rule's view of missing axes.
    pub fn dim(&self, axis: usize) -> usize {
        self.0.get(axis).copied().unwrap_or(1)
    }

    /// The size along the last axis, 1 for a scalar.
    pub fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// All sizes, where there are exactly `N`.
    pub fn array<const N: usize>(&self) -> Option<[usize; N]> {
        self.0.as_slice().try_into().ok()
    }

    /// Elements per step along each axis, in row-major order.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides: Vec<usize> = Vec::with_capacity(self.rank());
        let mut step = 1;
        for size in self.0.iter().rev() {
            strides.push(step);
            step = size.saturating_mul(step);
        }
        strides.reverse();
        strides
    }

    /// A copy with `size` along `axis`; unchanged where there is no such axis.
    #[must_use]
    pub fn with(&self, axis: usize, size: usize) -> Shape {
        let mut sizes = self.0.clone();
        if let Some(s) = sizes.get_mut(axis) {
            *s = size;
        }
        Shape(sizes)
    }

    /// An axis as PyTorch counts: -1 is the last.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `operator` where there is no such axis.
    pub fn axis(&self, operator: &str, axis: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        let found = if axis < 0 { axis.saturating_add(rank) } else { axis };
        if (0..rank).contains(&found) {
            Ok(found as usize)
        } else {
            Err(Error::shape(operator, format!("axis {axis} is out of range for shape {self} of rank {rank}")))
        }
    }

    /// The shape that both broadcast to (NumPy's rule: align at the last axis, sizes equal or 1).
    ///
    /// # Errors
    /// [`Error::Shape`] naming `operator` and both shapes.
    pub fn broadcast(&self, other: &Shape, operator: &str) -> Result<Shape> {
        let rank = self.rank().max(other.rank());
        let size = |s: &Shape, axis: usize| (axis + s.rank()).checked_sub(rank).map_or(1, |a| s.dim(a));
        (0..rank)
            .map(|axis| match (size(self, axis), size(other, axis)) {
                (a, b) if a == b || b == 1 => Ok(a),
                (1, b) => Ok(b),
                (a, b) => {
                    Err(Error::shape(operator, format!("{self} and {other} do not broadcast: {a} against {b}; sizes must be equal or 1")))
                }
            })
            .collect::<Result<Vec<usize>>>()
            .map(Shape)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Self {
        Shape(sizes.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(sizes: Vec<usize>) -> Self {
        Shape(sizes)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Shape(sizes.to_vec())
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What an operator knows of an input before it runs, and states of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The shape.
    pub shape: Shape,
    /// The element type.
    pub dtype: DType,
    /// Smallest and largest value of an integer tensor that came from the host; unknown for
    /// computed ones.
    pub range: Option<(i32, i32)>,
}

impl Spec {
    /// An f32 tensor.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Self::new(shape, DType::F32)
    }

    /// An i32 tensor of unknown range.
    pub fn i32(shape: impl Into<Shape>) -> Self {
        Self::new(shape, DType::I32)
    }

    /// A tensor of any type.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        Self { shape: shape.into(), dtype, range: None }
    }

    /// Bytes of its contents.
    pub fn bytes(&self) -> u64 {
        (self.shape.numel() as u64).saturating_mul(self.dtype.bytes())
    }

    /// Refuses what no tensor can be: 2^32 elements or more, or axes whose product is beyond
    /// counting although one of them is 0.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `operator` and the shape.
    pub fn check_size(&self, operator: &str) -> Result<()> {
        let product = self.shape.iter().fold(1, |n: usize, size| n.saturating_mul((*size).max(1)));
        if u32::try_from(self.shape.numel()).is_ok() && product <= MOST_ELEMENTS {
            return Ok(());
        }
        Err(Error::shape(operator, format!("shape {} has 2^32 elements or more, and a tensor has fewer", self.shape)))
    }

    /// Checks that this is an index tensor whose known values lie in `0..below`; `also` is one more
    /// value that is allowed (an ignored label).
    ///
    /// # Errors
    /// [`Error::Dtype`] for floats, [`Error::Argument`] naming the value found and the range
    /// expected.
    pub fn check_indices(&self, operator: &str, what: &str, below: usize, also: Option<i32>) -> Result<()> {
        if self.dtype != DType::I32 {
            return Err(Error::dtype(operator, format!("{what} must be i32, found {}", self.dtype)));
        }
        let inside = |v: i32| (v >= 0 && (v as usize) < below) || Some(v) == also;
        match self.range {
            Some((low, high)) if !(inside(low) && inside(high)) => {
                let value = if inside(low) { high } else { low };
                Err(Error::argument(operator, format!("{what} holds {value}, outside 0..{below}")))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dtype, self.shape)
    }
}

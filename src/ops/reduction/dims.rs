//! Which axes a reduction removes: PyTorch's `dims` and `keepdim`.

use crate::error::{Error, Result};
use crate::ops::{Array, Attributes, require_float};
use crate::tensor::{Shape, Spec};

/// The axes to reduce; none named means all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dims {
    dims: Vec<isize>,
    keepdim: bool,
}

impl Dims {
    /// The axes `dims` (-1 is the last); an empty list means all. `keepdim` leaves them with size 1.
    pub fn new(dims: &[isize], keepdim: bool) -> Self {
        Self { dims: dims.to_vec(), keepdim }
    }

    pub(super) fn from_attributes(attributes: &Attributes) -> Result<Self> {
        let dims = if attributes.has("dims") { attributes.integers("dims")? } else { Vec::new() };
        Ok(Self { dims, keepdim: attributes.flag("keepdim")? })
    }

    /// For each axis of `shape`, whether it is reduced.
    pub(super) fn mask(&self, operator: &str, shape: &Shape) -> Result<Vec<bool>> {
        let mut mask = vec![self.dims.is_empty(); shape.rank()];
        for dim in &self.dims {
            match mask.get_mut(shape.axis(operator, *dim)?) {
                Some(marked) if !*marked => *marked = true,
                _ => return Err(Error::shape(operator, format!("axis {dim} is named twice in {:?}", self.dims))),
            }
        }
        Ok(mask)
    }

    /// The rows of a reduction: those of its input, unless axis 0 is reduced.
    pub(super) fn rows(&self, inputs: &[Spec]) -> Vec<usize> {
        let mask = inputs.first().and_then(|x| self.mask("reduce", &x.shape).ok()).unwrap_or_default();
        if mask.first() == Some(&false) { vec![0] } else { Vec::new() }
    }

    /// The axes before the first that is reduced.
    pub(super) fn leading(&self, inputs: &[Spec]) -> usize {
        let mask = inputs.first().and_then(|x| self.mask("reduce", &x.shape).ok()).unwrap_or_default();
        mask.iter().take_while(|reduced| !**reduced).count()
    }

    /// The result's shape.
    pub(super) fn result(&self, operator: &str, shape: &Shape) -> Result<Shape> {
        let mask = self.mask(operator, shape)?;
        Ok(if self.keepdim {
            kept(shape, &mask)
        } else {
            shape.iter().zip(mask).filter(|(_, m)| !m).map(|(s, _)| *s).collect::<Vec<_>>().into()
        })
    }

    /// The result's type and shape, for a float input; `empty` says whether the value of no term at
    /// all is defined.
    pub(super) fn infer(&self, operator: &str, x: &Spec, empty: bool) -> Result<Spec> {
        require_float(operator, "x", x)?;
        if !empty && terms(&x.shape, &self.mask(operator, &x.shape)?) == 0 {
            return Err(Error::shape(operator, format!("there is nothing to reduce in {} along {:?}", x.shape, self.dims)));
        }
        Ok(Spec::new(self.result(operator, &x.shape)?, x.dtype))
    }
}

/// The shape with the reduced axes left as 1, which broadcasts against the original.
pub(super) fn kept(shape: &Shape, mask: &[bool]) -> Shape {
    shape.iter().zip(mask).map(|(size, reduced)| if *reduced { 1 } else { *size }).collect::<Vec<_>>().into()
}

/// How many terms each result has.
pub(super) fn terms(shape: &Shape, mask: &[bool]) -> usize {
    shape.iter().zip(mask).filter(|(_, reduced)| **reduced).map(|(size, _)| size).product()
}

/// For references: the terms of each result, results and terms in row-major order.
pub(super) fn gather(x: &Array, mask: &[bool]) -> Vec<Vec<f64>> {
    let small = kept(&x.shape, mask);
    let strides = small.strides();
    let mut groups = vec![Vec::new(); small.numel()];
    Array::from_fn(&x.shape, |index| {
        let result: usize = index.iter().zip(mask).zip(&strides).map(|((i, reduced), s)| if *reduced { 0 } else { i * s }).sum();
        if let Some(group) = groups.get_mut(result) {
            group.push(x.at(index));
        }
        0.0
    });
    groups
}

/// Shapes and axes that reductions are tried on: short, long, odd and in every position.
pub(super) const CASES: &[(&[usize], &[isize])] = &[
    (&[], &[]),
    (&[1], &[0]),
    (&[5], &[0]),
    (&[3, 7], &[1]),
    (&[3, 7], &[0]),
    (&[3, 0], &[1, 0]),
    (&[0, 3], &[1]),
    (&[33, 65], &[-1]),
    (&[33, 64], &[0]),
    (&[33, 64], &[1]),
    (&[7, 515], &[]),
    (&[2, 3, 5, 7], &[1, 3]),
    (&[3, 4, 5, 8], &[0, 1, 2]),
    (&[2, 3, 2, 5, 2, 4], &[0, 2, 4]),
    (&[2, 3, 2, 5, 2, 4], &[1, 3, 5]),
    (&[3, 2052], &[1]),
    (&[2, 1025], &[1]),
    (&[1030, 5], &[0]),
    (&[1030, 8], &[0]),
    (&[130, 128], &[0]),
];

//! Axes read backwards.

use super::strided::{self, axes, check_rank, copy};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, exactly};
use crate::tensor::{Shape, Spec, Tensor};

/// x with the order along each axis of `dims` reversed.
#[derive(Debug, Clone)]
pub struct Flip {
    /// The axes; -1 is the last.
    pub dims: Vec<isize>,
}

impl Flip {
    fn flipped(&self, shape: &Shape) -> Result<Vec<bool>> {
        let mut mask = vec![false; shape.rank()];
        for dim in &self.dims {
            let axis = shape.axis("flip", *dim)?;
            match mask.get_mut(axis) {
                Some(flag) if !*flag => *flag = true,
                _ => return Err(Error::shape("flip", format!("dims {:?} name axis {axis} of shape {shape} twice", self.dims))),
            }
        }
        Ok(mask)
    }

    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let mut moved = axes(x.shape());
        let mut base = 0;
        for (axis, _) in moved.iter_mut().zip(self.flipped(x.shape())?).filter(|(a, flip)| *flip && a.size > 0) {
            base += (axis.size as i64 - 1) * axis.stride;
            axis.stride = -axis.stride;
        }
        copy(x, &moved, base, 0.0)
    }
}

impl Operator for Flip {
    fn name(&self) -> &str {
        "flip"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("flip", inputs)?;
        check_rank("flip", &x.shape)?;
        self.flipped(&x.shape)?;
        Ok(vec![x.clone()])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [x] = exactly("flip", inputs)?;
        Ok(vec![self.run(x)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.run(&step.cotangent(0)?)?)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        let kept = inputs.first().and_then(|x| self.flipped(&x.shape).ok()).is_some_and(|mask| mask.first() == Some(&false));
        if kept { vec![0] } else { Vec::new() }
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        let mask = inputs.first().and_then(|x| self.flipped(&x.shape).ok()).unwrap_or_default();
        mask.iter().take_while(|flipped| !**flipped).count()
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("flip", inputs)?;
        let mask = self.flipped(&x.shape)?;
        let y = Array::from_fn(&x.shape, |at| {
            let mirrored = at.iter().zip(x.shape.iter()).zip(&mask).map(|((i, size), flip)| if *flip { size - 1 - i } else { *i });
            x.at(&mirrored.collect::<Vec<_>>())
        });
        Ok(vec![Array { dtype: x.dtype, ..y }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 0.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(Flip { dims: attributes.integers("dims")? }))
}

fn flip(dims: &[isize]) -> Flip {
    Flip { dims: dims.to_vec() }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(flip(&[3]), [normal([2, 3, 4, 5])]),
        Sample::new(flip(&[2]), [normal([1, 3, 5, 4])]),
        Sample::new(flip(&[0, -1]), [normal([33, 8])]),
        Sample::new(flip(&[0, 1]), [normal([3, 7])]),
        Sample::new(flip(&[]), [normal([65])]),
        Sample::new(flip(&[0]), [normal([1])]),
        Sample::new(flip(&[0]), [normal([0, 3])]),
        Sample::new(flip(&[1]), [indices([3, 5], 70)]),
    ]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(flip(&[2]), [normal([2, 3])], "axis 2 is out of range"),
        Bad::new(flip(&[0, -2]), [normal([2, 3])], "name axis 0 of shape [2, 3] twice"),
        Bad::new(flip(&[0]), [], "it takes 1 inputs"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "flip",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[strided::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The order along each axis of `dims` reversed (-1 is the last axis), of at most six axes.
    ///
    /// # Errors
    /// An axis that does not exist or is named twice; out of memory.
    pub fn flip(&self, dims: &[isize]) -> Result<Tensor> {
        apply_one(flip(dims), &[self])
    }
}

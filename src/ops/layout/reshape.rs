//! The same elements under another shape: no kernel, the result shares memory with its source.

use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, exactly};
use crate::tensor::{Shape, Spec, Tensor};

/// The elements of x in the same order, under `shape`.
#[derive(Debug, Clone)]
pub struct Reshape {
    /// The new sizes; one may be -1: whatever makes the number of elements right.
    pub shape: Vec<isize>,
}

impl Reshape {
    fn resolve(&self, from: &Shape) -> Result<Shape> {
        let wrong = |rule: &str| Error::shape("reshape", format!("{from} cannot become {:?}: {rule}", self.shape));
        let sizes = || self.shape.iter().filter(|s| **s >= 0).map(|s| s.unsigned_abs());
        if self.shape.iter().any(|s| *s < -1) || self.shape.len() > sizes().count() + 1 {
            return Err(wrong("sizes are at least 0, and at most one is -1"));
        }
        let known = sizes().try_fold(1usize, usize::checked_mul).ok_or_else(|| wrong("too many elements"))?;
        let rest = match known {
            0 => 0,
            known => from.numel() / known,
        };
        let to = Shape::from(self.shape.iter().map(|s| usize::try_from(*s).unwrap_or(rest)).collect::<Vec<_>>());
        if to.numel() != from.numel() || (known == 0 && to.rank() != sizes().count()) {
            return Err(wrong("the number of elements must stay the same"));
        }
        Ok(to)
    }
}

impl Operator for Reshape {
    fn name(&self) -> &str {
        "reshape"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("reshape", inputs)?;
        Ok(vec![Spec { shape: self.resolve(&x.shape)?, ..x.clone() }])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [y]) = (exactly("reshape", inputs)?, exactly("reshape", outputs)?);
        Ok(vec![x.view(&y.shape)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(step.cotangent(0)?.view(&step.input_spec(0)?.shape)?)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("reshape", inputs)?;
        Ok(vec![Array { shape: self.resolve(&x.shape)?, ..x.clone() }])
    }

    fn cost(&self, _: &[Spec], _: &[Spec]) -> Cost {
        Cost::default()
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(Reshape { shape: attributes.integers("shape")? }))
}

fn reshape(shape: &[isize]) -> Reshape {
    Reshape { shape: shape.to_vec() }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(reshape(&[6, 10]), [normal([3, 4, 5])]),
        Sample::new(reshape(&[-1]), [normal([33, 65])]),
        Sample::new(reshape(&[7, -1, 1]), [normal([7, 3])]),
        Sample::new(reshape(&[]), [normal([1, 1])]),
        Sample::new(reshape(&[3, 0]), [normal([0, 5])]),
        Sample::new(reshape(&[2, -1]), [indices([4], 9)]),
    ]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(reshape(&[7]), [normal([2, 3])], "the number of elements must stay the same"),
        Bad::new(reshape(&[4, -1]), [normal([2, 3])], "the number of elements must stay the same"),
        Bad::new(reshape(&[0, -1]), [normal([0, 3])], "the number of elements must stay the same"),
        Bad::new(reshape(&[-1, -1]), [normal([2, 3])], "at most one is -1"),
        Bad::new(reshape(&[-2, 3]), [normal([2, 3])], "at most one is -1"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "reshape",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The same elements under another shape; one size may be -1. No copy: the result shares memory
    /// with this tensor.
    ///
    /// # Errors
    /// A shape of another number of elements; more than one -1.
    pub fn reshape<S: Copy + TryInto<isize>>(&self, shape: &[S]) -> Result<Tensor> {
        let sizes = shape.iter().map(|s| (*s).try_into().map_err(|_| Error::shape("reshape", "a size is too large")));
        apply_one(Reshape { shape: sizes.collect::<Result<_>>()? }, &[self])
    }

    /// The axes from `axis` on as one: `flatten(1)` makes `[N, H, W, C]` to `[N, H * W * C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where there is no such axis.
    pub fn flatten(&self, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis("flatten", axis)?;
        let (kept, merged) = self.shape().split_at(axis);
        let mut sizes = kept.to_vec();
        sizes.push(merged.iter().product());
        self.reshape(&sizes)
    }
}

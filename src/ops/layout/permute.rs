//! The axes of a tensor in another order.

use super::strided::{self, Axis, axes, check_rank, copy};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, exactly};
use crate::tensor::{Shape, Spec, Tensor};

/// `y[i_d0, i_d1, ..] = x[i_0, i_1, ..]`: axis `k` of y is axis `dims[k]` of x.
#[derive(Debug, Clone)]
pub struct Permute {
    /// The axis of x that each axis of y is; -1 is the last.
    pub dims: Vec<isize>,
}

impl Permute {
    fn order(&self, shape: &Shape) -> Result<Vec<usize>> {
        let order = self.dims.iter().map(|d| shape.axis("permute", *d)).collect::<Result<Vec<usize>>>()?;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted.iter().copied().eq(0..shape.rank()) {
            return Ok(order);
        }
        Err(Error::shape("permute", format!("dims {:?} must name each axis of shape {shape} once", self.dims)))
    }
}

impl Operator for Permute {
    fn name(&self) -> &str {
        "permute"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("permute", inputs)?;
        check_rank("permute", &x.shape)?;
        let sizes: Vec<usize> = self.order(&x.shape)?.into_iter().map(|d| x.shape.dim(d)).collect();
        Ok(vec![Spec::new(sizes, x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [x] = exactly("permute", inputs)?;
        let own = axes(x.shape());
        let moved: Vec<Axis> = self.order(x.shape())?.into_iter().filter_map(|d| own.get(d).copied()).collect();
        Ok(vec![copy(x, &moved, 0, 0.0)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let order = self.order(&step.input_spec(0)?.shape)?;
        let back = (0..order.len()).filter_map(|axis| order.iter().position(|d| *d == axis)).map(|d| d as isize).collect();
        let spec = step.input_spec(0)?.clone();
        Ok(Permute { dims: back }.forward(&[&step.cotangent(0)?], &[spec])?.into_iter().map(Some).collect())
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        let kept = inputs.first().and_then(|x| self.order(&x.shape).ok()).is_some_and(|order| order.first() == Some(&0));
        if kept { vec![0] } else { Vec::new() }
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        let order = inputs.first().and_then(|x| self.order(&x.shape).ok()).unwrap_or_default();
        order.iter().enumerate().take_while(|(k, axis)| k == *axis).count()
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("permute", inputs)?;
        let order = self.order(&x.shape)?;
        let sizes: Vec<usize> = order.iter().map(|d| x.shape.dim(*d)).collect();
        let y = Array::from_fn(sizes, |at| {
            let mut source = vec![0; at.len()];
            for (i, d) in at.iter().zip(&order) {
                if let Some(s) = source.get_mut(*d) {
                    *s = *i;
                }
            }
            x.at(&source)
        });
        Ok(vec![Array { dtype: x.dtype, ..y }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 0.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(Permute { dims: attributes.integers("dims")? }))
}

fn permute(dims: &[isize]) -> Permute {
    Permute { dims: dims.to_vec() }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(permute(&[]), [normal([])]),
        Sample::new(permute(&[0]), [normal([5])]),
        Sample::new(permute(&[1, 0]), [normal([33, 65])]),
        Sample::new(permute(&[1, 0]), [normal([8, 7])]),
        Sample::new(permute(&[1, 0, 2]), [normal([3, 5, 8])]),
        Sample::new(permute(&[0, 2, 3, 1]), [normal([2, 3, 4, 5])]),
        Sample::new(permute(&[-1, 0, 1]), [normal([7, 1, 9])]),
        Sample::new(permute(&[5, 3, 1, 4, 2, 0]), [normal([2, 3, 1, 3, 2, 3])]),
        Sample::new(permute(&[1, 0]), [normal([0, 3])]),
        Sample::new(permute(&[1, 0]), [indices([4, 3], 100)]),
    ]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(permute(&[0, 0]), [normal([2, 3])], "must name each axis"),
        Bad::new(permute(&[0]), [normal([2, 3])], "must name each axis"),
        Bad::new(permute(&[0, 2]), [normal([2, 3])], "axis 2 is out of range"),
        Bad::new(permute(&[0, 1, 2, 3, 4, 5, 6]), [normal([1, 1, 1, 1, 1, 1, 1])], "at most 6"),
        Bad::new(permute(&[0]), [], "it takes 1 inputs, 0 were given"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "permute",
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
    /// Axis `k` of the result is axis `dims[k]` of this tensor, of at most six axes. It copies:
    /// tensors are contiguous.
    ///
    /// # Errors
    /// `dims` that do not name each axis once; more than six axes; out of memory.
    pub fn permute(&self, dims: &[usize]) -> Result<Tensor> {
        apply_one(Permute { dims: dims.iter().map(|d| isize::try_from(*d).unwrap_or(isize::MAX)).collect() }, &[self])
    }

    /// The last two axes swapped: `[.., R, C]` to `[.., C, R]`.
    ///
    /// # Errors
    /// Fewer than two axes; more than six; out of memory.
    pub fn transpose(&self) -> Result<Tensor> {
        let rank = self.shape().rank();
        if rank < 2 {
            return Err(Error::shape("transpose", format!("shape {} has fewer than two axes", self.shape())));
        }
        let mut dims: Vec<usize> = (0..rank).collect();
        dims.swap(rank - 2, rank - 1);
        self.permute(&dims)
    }
}

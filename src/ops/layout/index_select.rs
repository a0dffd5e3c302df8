//! Rows of an axis by number.

use super::strided::{missing, width};
use crate::error::{Error, Result};
use crate::gpu::{Launch, Schedule, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::params;
use crate::tensor::{Shape, Spec, Tensor};

kernels!(SELECT = "layout/index_select");

/// Indices that one invocation of a gradient walks: software drivers cut longer loops short. A
/// multiple of 4.
pub(super) const INDICES_A_WALK: usize = 32_768;

/// `y[.., k, ..] = x[.., index[k], ..]` along axis `dim`; index is one-dimensional, i32.
#[derive(Debug, Clone)]
pub struct IndexSelect {
    /// The axis; -1 is the last.
    pub dim: isize,
}

/// Elements along an axis and within one step of it.
fn around(shape: &Shape, axis: usize) -> (usize, usize) {
    (shape.dim(axis), shape.iter().skip(axis + 1).product())
}

/// The rows of axis `axis` of `x` that `index` names, as a tensor of shape `shape`.
pub(super) fn select(x: &Tensor, index: &Tensor, axis: usize, shape: &Shape) -> Result<Tensor> {
    let y = Tensor::empty(x.gpu(), shape, x.dtype())?;
    let (size, inner) = around(x.shape(), axis);
    let w = width([inner].into_iter());
    let n = y.numel() / w;
    let mut words = params![n, size, index.numel(), inner / w].to_vec();
    words.push(missing(x.dtype()));
    words.extend_from_slice(params![0u32, 0u32]);
    Launch::new(x.gpu(), &SELECT, "forward")
        .define("T", x.dtype().to_string())
        .define("PASS", "forward")
        .define("W", w)
        .read(x)
        .read(index)
        .write(&y)
        .params(&words)
        .invocations(n)?;
    Ok(y)
}

/// The gradient of [`select`] for an x like `spec`.
pub(super) fn select_backward(dy: &Tensor, index: &Tensor, axis: usize, spec: &Spec) -> Result<Tensor> {
    let dx = Tensor::empty(dy.gpu(), &spec.shape, spec.dtype)?;
    let (size, inner) = around(&spec.shape, axis);
    let w = width([inner].into_iter());
    // Walking costs a software driver more than summing; elsewhere neighbours read neighbours.
    let most = if dy.gpu().capabilities().schedule == Schedule::Software { 16 } else { 1 };
    let each = [16, 8, 4, 2].into_iter().find(|each| *each <= most && (inner / w).is_multiple_of(*each)).unwrap_or(1);
    let (n, count) = (dx.numel() / w / each, index.numel());
    for first in (0..count.max(1)).step_by(INDICES_A_WALK) {
        let last = count.min(first + INDICES_A_WALK);
        Launch::new(dy.gpu(), &SELECT, "backward")
            .define("T", spec.dtype.to_string())
            .define("PASS", "backward")
            .define("W", w)
            .define("EACH", each)
            .read(dy)
            .read(index)
            .write(&dx)
            .params(params![n, size, count, inner / w, 0.0f32, first, last])
            .walk(rounds((last - first).div_ceil(4), rounds(4, 0)))
            .invocations(n)?;
    }
    Ok(dx)
}

impl Operator for IndexSelect {
    fn name(&self) -> &str {
        "index_select"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x, index] = exactly("index_select", inputs)?;
        let axis = x.shape.axis("index_select", self.dim)?;
        let Some([count]) = index.shape.array() else {
            return Err(Error::shape("index_select", format!("index must have one axis, found shape {}", index.shape)));
        };
        index.check_indices("index_select", "index", x.shape.dim(axis), None)?;
        Ok(vec![Spec::new(x.shape.with(axis, count), x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x, index], [y]) = (exactly("index_select", inputs)?, exactly("index_select", outputs)?);
        Ok(vec![select(x, index, x.shape().axis("index_select", self.dim)?, &y.shape)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let spec = step.input_spec(0)?;
        let axis = spec.shape.axis("index_select", self.dim)?;
        Ok(vec![Some(select_backward(&step.cotangent(0)?, step.input(1)?, axis, spec)?), None])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        // Along axis 0, a piece of the index selects from all of x.
        inputs.first().and_then(|x| x.shape.axis("index_select", self.dim).ok()).map(|axis| usize::from(axis == 0)).into_iter().collect()
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x, index] = exactly("index_select", inputs)?;
        let axis = x.shape.axis("index_select", self.dim)?;
        let y = Array::from_fn(x.shape.with(axis, index.data.len()), |at| {
            let named = |k: usize, i: usize| if k == axis { index.flat(i) as usize } else { i };
            x.at(&at.iter().enumerate().map(|(k, i)| named(k, *i)).collect::<Vec<_>>())
        });
        Ok(vec![Array { dtype: x.dtype, ..y }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        moved(inputs, outputs)
    }
}

/// The cost of reading an index and what it names, and writing that.
pub(super) fn moved(inputs: &[Spec], outputs: &[Spec]) -> Cost {
    let read: Vec<Spec> = inputs.iter().skip(1).chain(outputs).cloned().collect();
    Cost::streaming(&read, outputs, 0.0)
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(index_select(attributes.integer("dim")?)))
}

fn index_select(dim: isize) -> IndexSelect {
    IndexSelect { dim }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(index_select(0), [normal([6, 5]), indices([9], 6)]),
        Sample::new(index_select(1), [normal([3, 7, 4]), indices([5], 7)]),
        Sample::new(index_select(-1), [normal([5, 33]), indices([65], 33)]),
        Sample::new(index_select(0), [normal([1]), indices([1], 1)]),
        Sample::new(index_select(0), [normal([3, 5]), indices([0], 3)]),
        Sample::new(index_select(1), [indices([2, 4], 9), indices([3], 4)]),
    ]
}

fn bad() -> Vec<Bad> {
    let outside = |v: f64| Input::Values(Array::integers([1], vec![v]));
    vec![
        Bad::new(index_select(0), [normal([6, 5]), indices([3, 1], 6)], "index must have one axis"),
        Bad::new(index_select(0), [normal([6, 5]), normal([3])], "index must be i32"),
        Bad::new(index_select(0), [normal([6, 5]), outside(6.0)], "index holds 6, outside 0..6"),
        Bad::new(index_select(1), [normal([6, 5]), outside(-1.0)], "index holds -1, outside 0..5"),
        Bad::new(index_select(2), [normal([6, 5]), indices([3], 6)], "axis 2 is out of range"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "index_select",
        module: module_path!(),
        inputs: &["x", "index"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The elements `index` (i32, one axis) of axis `dim` (-1 is the last), in its order, repeated
    /// where it repeats. A number that only the device knows and that lies outside the axis gives
    /// NaN (the least integer in an integer tensor).
    ///
    /// # Errors
    /// An index that is not i32, has not one axis, or is known to lie outside the axis; out of
    /// memory.
    pub fn index_select(&self, dim: isize, index: &Tensor) -> Result<Tensor> {
        apply_one(index_select(dim), &[self, index])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gpu::Gpu;
    use crate::tensor::DType;

    // The range of what a kernel wrote is unknown on the host: the kernels must stay inside by
    // themselves.
    #[test]
    fn numbers_that_only_the_device_knows() {
        let gpu = Gpu::new().unwrap();
        let index = Tensor::from_slice(&gpu, &[2, 3, -1, i32::MAX, i32::MIN, 0], [6]).unwrap().flip(&[0]).unwrap();
        let ones = |shape: &[usize]| Tensor::full(&gpu, shape, 1.0, DType::F32).unwrap();
        let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0], [3, 1]).unwrap().watch();
        let expected = [Some(1.0), None, None, None, None, Some(3.0)];
        let found = |y: &Tensor| y.to_vec::<f32>().unwrap().into_iter().map(|v| (!v.is_nan()).then_some(v)).collect::<Vec<_>>();
        let gradient = |y: &Tensor| y.backward_from(&ones(y.shape())).unwrap().get(&x).unwrap().to_vec::<f32>().unwrap();
        for y in [x.index_select(0, &index), x.embedding(&index), x.gather(0, &index.reshape(&[6, 1]).unwrap())] {
            let y = y.unwrap();
            assert_eq!(found(&y), expected);
            assert_eq!(gradient(&y), [1.0, 0.0, 1.0]);
        }
        let whole = Tensor::from_slice(&gpu, &[7, 8, 9], [3]).unwrap().index_select(0, &index).unwrap();
        assert_eq!(whole.to_vec::<i32>().unwrap(), [7, i32::MIN, i32::MIN, i32::MIN, i32::MIN, 9]);
    }
}

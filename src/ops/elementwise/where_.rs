//! `where`: one of two values, element by element, as a condition says.

use super::binary::broadcast_at;
use super::pointwise::{self, Pointwise};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::reduction::reduce;
use crate::ops::reduction::sum_to;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, broadcast_rows, every_axis, exactly};
use crate::tensor::{DType, Spec, Tensor};

/// `a` where `cond` is not 0, else `b`; the three broadcast.
#[derive(Debug, Clone, Copy)]
pub struct Where;

impl Operator for Where {
    fn name(&self) -> &str {
        "where"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [cond, a, b] = exactly(self.name(), inputs)?;
        if cond.dtype != DType::I32 {
            return Err(Error::dtype(self.name(), format!("the condition must be i32, found {cond}")));
        }
        if !a.dtype.is_float() || a.dtype != b.dtype {
            return Err(Error::dtype(self.name(), format!("it chooses between two tensors of one float type, found {a} and {b}")));
        }
        let shape = a.shape.broadcast(&b.shape, self.name())?.broadcast(&cond.shape, self.name())?;
        Ok(vec![Spec::new(shape, a.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([cond, a, b], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let operands: &[(&str, &Tensor)] = &[("cond", cond), ("a", a), ("b", b)];
        let choice = Pointwise { expression: "select(b, a, cond != I(0))", operands, constants: [0.0; 2] };
        Ok(vec![choice.run(self.name(), &spec.shape, spec.dtype)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (cond, dy) = (step.input(0)?, step.cotangent(0)?);
        let operands: &[(&str, &Tensor)] = &[("cond", cond), ("dy", &dy)];
        let gradient = |index: usize, expression: &str| -> Result<Option<Tensor>> {
            if !step.needs(index) {
                return Ok(None);
            }
            let full = Pointwise { expression, operands, constants: [0.0; 2] }.run(self.name(), dy.shape(), dy.dtype())?;
            sum_to(&full, &step.input_spec(index)?.shape).map(Some)
        };
        Ok(vec![None, gradient(1, "select(V(0.0), dy, cond != I(0))")?, gradient(2, "select(dy, V(0.0), cond != I(0))")?])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![1, 2]
    }

    fn rows(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        broadcast_rows(inputs, outputs)
    }

    fn leading(&self, _: &[Spec], outputs: &[Spec]) -> usize {
        every_axis(outputs)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [cond, a, b] = exactly(self.name(), inputs)?;
        let shape = a.shape.broadcast(&b.shape, self.name())?.broadcast(&cond.shape, self.name())?;
        Ok(vec![Array::from_fn(shape, |i| if broadcast_at(cond, i) != 0.0 { broadcast_at(a, i) } else { broadcast_at(b, i) })])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 0.0)
    }
}

fn samples() -> Vec<Sample> {
    let cases: [[&[usize]; 3]; 8] = [
        [&[], &[], &[]],
        [&[0], &[0], &[0]],
        [&[7], &[7], &[7]],
        [&[33, 65], &[33, 65], &[33, 65]],
        [&[5, 1], &[5, 8], &[]],
        [&[3, 7], &[7], &[3, 1]],
        [&[12], &[2, 3, 12], &[3, 1]],
        [&[2, 1, 5], &[3, 1], &[2, 3, 5]],
    ];
    let mut samples: Vec<Sample> =
        cases.iter().map(|[cond, a, b]| Sample::new(Where, [indices(*cond, 2), normal(*a), normal(*b)])).collect();
    samples.push(Sample::new(Where, [indices([3, 5], 3), normal([3, 5]), Input::Same(1)]));
    samples
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(Where, [normal([3]), normal([3]), normal([3])], "the condition must be i32, found f32 [3]"),
        Bad::new(Where, [indices([3], 2), normal([3]), indices([3], 2)], "two tensors of one float type"),
        Bad::new(Where, [indices([4], 2), normal([3]), normal([3])], "do not broadcast: 3 against 4"),
        Bad::new(Where, [indices([3], 2), normal([3])], "it takes 3 inputs, 2 were given"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "where",
        module: module_path!(),
        inputs: &["cond", "a", "b"],
        outputs: &["y"],
        kernels: &[pointwise::KERNELS, reduce::KERNELS],
        build: Box::new(|_| Ok(Box::new(Where))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// `a` where this i32 tensor is not 0, else `b`; the three shapes broadcast by NumPy's rule.
    ///
    /// # Errors
    /// Shapes that do not broadcast; a condition of floats; two element types to choose between;
    /// out of memory.
    pub fn where_(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        apply_one(Where, &[self, a, b])
    }
}

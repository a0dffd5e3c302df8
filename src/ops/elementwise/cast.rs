//! `cast`: the same values as another element type, with a gradient between floats; integers are
//! the nearest ones.

use super::pointwise::{self, Pointwise};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, broadcast_rows, every_axis, exactly};
use crate::tensor::{DType, Spec, Tensor};

/// A conversion; into f16 and i32 it rounds to the nearest value, of two equally near ones to the
/// even one.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    dtype: DType,
}

impl Cast {
    /// To `dtype`.
    pub fn new(dtype: DType) -> Self {
        Self { dtype }
    }

    fn run(&self, gpu: &Gpu, x: &Tensor, dtype: DType) -> Result<Tensor> {
        if !gpu.capabilities().f16 && (x.dtype() == DType::F16 || dtype == DType::F16) {
            let message = "the adapter cannot store f16; keep the tensor in f32".to_string();
            return Err(Error::Limit { operator: self.name().into(), message, adapter: gpu.capabilities().name.clone() });
        }
        if x.dtype() == dtype {
            return Ok(x.detach());
        }
        let expression = if dtype == DType::I32 { "nearest(x)" } else { "V(x)" };
        Pointwise { expression, operands: &[("x", x)], constants: [0.0; 2] }.run(self.name(), x.shape(), dtype)
    }
}

impl Operator for Cast {
    fn name(&self) -> &str {
        "cast"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        Ok(vec![Spec::new(x.shape.clone(), self.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [x] = exactly(self.name(), inputs)?;
        Ok(vec![self.run(x.gpu(), x, self.dtype)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.run(step.gpu(), &step.cotangent(0)?, step.input_spec(0)?.dtype)?)])
    }

    fn differentiable(&self) -> Vec<usize> {
        if self.dtype == DType::I32 { Vec::new() } else { vec![0] }
    }

    fn rows(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        broadcast_rows(inputs, outputs)
    }

    fn leading(&self, _: &[Spec], outputs: &[Spec]) -> usize {
        every_axis(outputs)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly(self.name(), inputs)?;
        let rounded = |v: &f64| if self.dtype == DType::I32 { v.round_ties_even() } else { *v };
        Ok(vec![Array { dtype: self.dtype, data: x.data.iter().map(rounded).collect(), ..x.clone() }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 0.0)
    }
}

// f16 has no sample, because not every adapter stores it: see the test below.
fn samples() -> Vec<Sample> {
    let to = || Cast::new(DType::F32);
    vec![
        Sample::new(to(), [indices([], 9)]),
        Sample::new(to(), [indices([0], 9)]),
        Sample::new(to(), [indices([7], 9)]),
        Sample::new(to(), [indices([33, 65], 1000)]),
        Sample::new(to(), [normal([3, 5])]),
        Sample::new(Cast::new(DType::I32), [normal_with([33, 7], 20.0, 0.0)]),
        Sample::new(Cast::new(DType::I32), [Input::Values(Array::new([5], vec![-1.5, -0.5, 0.5, 1.5, 65_535.0]))]),
    ]
}

fn bad() -> Vec<Bad> {
    vec![Bad::new(Cast::new(DType::F32), [], "it takes 1 inputs, 0 were given")]
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    match attributes.text_or("dtype", "f32")? {
        "f32" => Ok(Box::new(Cast::new(DType::F32))),
        "f16" => Ok(Box::new(Cast::new(DType::F16))),
        "i32" => Ok(Box::new(Cast::new(DType::I32))),
        other => Err(Error::argument("cast", format!("dtype must be f32, f16 or i32, found \"{other}\""))),
    }
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "cast",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[pointwise::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The same values as f32, f16 or i32 (rounded to the nearest, ties to even); a tensor of that
    /// type already is not copied. Gradients of floats are cast back; integers have none.
    ///
    /// # Errors
    /// f16 on an adapter that cannot store it; out of memory.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        apply_one(Cast::new(dtype), &[self])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn f16_rounds_and_gradients_come_back_as_f32() {
        let gpu = Gpu::new().unwrap();
        let data: Vec<f32> = (0..7).map(|i| i as f32 * 0.3331 - 1.0).collect();
        let x = Tensor::from_slice(&gpu, &data, [7]).unwrap().watch();
        let half = x.cast(DType::F16);
        if !gpu.capabilities().f16 {
            assert!(half.unwrap_err().to_string().contains("cannot store f16"));
            return;
        }
        let half = half.unwrap();
        let expected: Vec<half::f16> = data.iter().map(|v| half::f16::from_f32(*v)).collect();
        assert_eq!(half.to_vec::<half::f16>().unwrap(), expected);
        let total: f32 = expected.iter().map(|v| v.to_f32()).sum();
        let close = |t: &Tensor, value: f32| (t.to_f64().unwrap().iter().sum::<f64>() - f64::from(value)).abs() < 3e-3;
        assert!(close(&half.sum(&[], false).unwrap(), total));
        assert!(close(&half.logsumexp(&[], false).unwrap(), expected.iter().map(|v| v.to_f32().exp()).sum::<f32>().ln()));
        assert!(close(&half.softmax(0).unwrap(), 1.0));
        assert!(close(&half.dropout(0.0, 1, 2, 3).unwrap(), total));
        assert!(close(&half.topk(1, 0).unwrap().0, expected.last().unwrap().to_f32()));
        // A sum over f16 storage accumulates in f32, and its gradient is f16 until it passes the
        // cast.
        let sum = half.mul(&half).unwrap().cast(DType::F32).unwrap().sum(&[], false).unwrap();
        let exact: f32 = expected.iter().map(|v| v.to_f32() * v.to_f32()).sum();
        approx::assert_abs_diff_eq!(sum.item().unwrap(), exact, epsilon = 3e-3);
        let gradients = sum.backward().unwrap();
        let gradient = gradients.get(&x).unwrap();
        assert_eq!(gradient.dtype(), DType::F32);
        for (found, value) in gradient.to_vec::<f32>().unwrap().iter().zip(&expected) {
            approx::assert_abs_diff_eq!(*found, 2.0 * value.to_f32(), epsilon = 2e-3);
        }
    }
}

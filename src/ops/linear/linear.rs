//! The linear layer, `y = x weight^T + bias`.

use super::gemm::{self, Gemm};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::reduction::{column_sum, reduce};
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, axes_before, require_f32, require_float};
use crate::tensor::{Spec, Tensor};

/// The linear layer. Inputs: x `[.., in]`, weight `[out, in]`, optionally bias `[out]`.
#[derive(Debug, Clone, Copy)]
pub struct Linear;

impl Operator for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (x, weight, bias) = match inputs {
            [x, weight] => (x, weight, None),
            [x, weight, bias] => (x, weight, Some(bias)),
            _ => return Err(Error::shape(self.name(), format!("it takes x, weight and maybe bias, {} inputs were given", inputs.len()))),
        };
        require_float(self.name(), "x", x)?;
        require_float(self.name(), "weight", weight)?;
        let (Some([out, features]), true) = (weight.shape.array(), x.shape.rank() > 0) else {
            return Err(Error::shape(
                self.name(),
                format!("expected x [.., in] and weight [out, in], found {} and {}", x.shape, weight.shape),
            ));
        };
        if x.shape.last() != features {
            return Err(Error::shape(
                self.name(),
                format!("x {} has {} features, weight {} takes {features}", x.shape, x.shape.last(), weight.shape),
            ));
        }
        if let Some(bias) = bias {
            require_f32(self.name(), "bias", bias)?;
            if *bias.shape != [out] {
                return Err(Error::shape(self.name(), format!("bias must be [{out}] for weight {}, found {}", weight.shape, bias.shape)));
            }
        }
        Ok(vec![Spec::new(x.shape.with(x.shape.rank() - 1, out), x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x, weight, bias @ ..], [spec]) = (inputs, outputs) else { return Ok(Vec::new()) };
        let y = Tensor::empty(x.gpu(), &spec.shape, spec.dtype)?;
        let (out, features) = (weight.shape().dim(0), weight.shape().dim(1));
        Gemm::nt(rows(x.spec()), out, features).run(x, weight, bias.first().copied(), &y)?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, weight, dy) = (step.input(0)?, step.input(1)?, step.cotangent(0)?);
        let (rows, out, features) = (rows(x.spec()), weight.shape().dim(0), weight.shape().dim(1));
        let mut gradients = vec![None; step.input_count()];
        for (index, gradient) in gradients.iter_mut().enumerate().filter(|(index, _)| step.needs(*index)) {
            *gradient = Some(match index {
                0 => {
                    let dx = Tensor::empty(x.gpu(), x.shape(), x.dtype())?;
                    Gemm::nn(rows, features, out).run(&dy, weight, None, &dx)?;
                    dx
                }
                1 => {
                    let dw = Tensor::empty(x.gpu(), weight.shape(), weight.dtype())?;
                    Gemm::tn(out, features, rows).run(&dy, x, None, &dw)?;
                    dw
                }
                _ => column_sum(&dy)?,
            });
        }
        Ok(gradients)
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn rows(&self, _: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        if outputs.first().is_some_and(|y| y.shape.rank() > 1) { vec![0] } else { Vec::new() }
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, -1)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Half(1)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let specs: Vec<Spec> = inputs.iter().map(|x| Spec::f32(&x.shape)).collect();
        let shape = self.infer(&specs)?.into_iter().next().map(|spec| spec.shape).unwrap_or_default();
        let [x, weight, bias @ ..] = inputs else { return Ok(Vec::new()) };
        let y = Array::from_fn(shape, |index| {
            let [lead @ .., o] = index else { return f64::NAN };
            let product: f64 = (0..weight.shape.dim(1)).map(|i| x.at(&[lead, &[i]].concat()) * weight.at(&[*o, i])).sum();
            product + bias.first().map_or(0.0, |b| b.at(&[*o]))
        });
        Ok(vec![y])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 2.0 * inputs.first().map_or(0, |x| x.shape.last()) as f64)
    }
}

/// All axes but the last as one.
fn rows(x: &Spec) -> usize {
    x.shape.iter().rev().skip(1).product()
}

fn samples() -> Vec<Sample> {
    let shapes: [(&[usize], usize); 9] = [
        (&[1, 1], 1),
        (&[3, 5], 7),
        (&[7], 3),
        (&[2, 3, 8], 12),
        (&[33, 65], 10),
        (&[65, 36], 33),
        (&[0, 5], 3),
        (&[3, 0], 4),
        (&[600, 12], 8),
    ];
    let with_bias = |(x, out): &(&[usize], usize)| {
        let features = x.last().copied().unwrap_or(1);
        Sample::new(Linear, [normal(*x), normal([*out, features]), normal([*out])])
    };
    let without = Sample::new(Linear, [normal([5, 9]), normal([4, 9])]);
    shapes.iter().map(with_bias).chain([without]).collect()
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(Linear, [normal([3, 4]), normal([5, 6])], "x [3, 4] has 4 features, weight [5, 6] takes 6"),
        Bad::new(Linear, [normal([3, 4]), normal([5, 4]), normal([4])], "bias must be [5]"),
        Bad::new(Linear, [normal([3, 4]), normal([4])], "weight [out, in]"),
        Bad::new(Linear, [normal([]), normal([4, 1])], "expected x [.., in]"),
        Bad::new(Linear, [indices([3, 4], 2), normal([5, 4])], "x must hold floats"),
        Bad::new(Linear, [normal([3, 4]), indices([5, 4], 2)], "weight must hold floats"),
        Bad::new(Linear, [normal([3, 4])], "1 inputs were given"),
    ]
}

/// The line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "linear",
        module: module_path!(),
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        kernels: &[gemm::KERNELS, reduce::KERNELS],
        build: Box::new(|_| Ok(Box::new(Linear))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The linear layer: x `[.., in]`, weight `[out, in]`, bias `[out]` (f32) ->
    /// `x weight^T + bias`, `[.., out]`.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::{DType, Tensor};
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0], [1, 2])?;
    /// let weight = Tensor::from_slice(&gpu, &[1.0f32, 0.0, 0.0, 1.0, 1.0, 1.0], [3, 2])?; // [out, in]
    /// let bias = Tensor::full(&gpu, [3], 10.0, DType::F32)?;
    /// assert_eq!(x.linear(&weight, Some(&bias))?.to_vec::<f32>()?, [11.0, 12.0, 13.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Shapes that do not fit; x and weight of different types; out of memory.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = [self, weight].into_iter().chain(bias).collect();
        apply_one(Linear, &inputs)
    }
}

//! Variance over any set of axes, in two passes: the mean, then the mean of squared differences
//! from it.

use super::dims::{CASES, Dims, gather, kept, terms};
use super::reduce::{self, Reduce};
use crate::error::Result;
use crate::ops::elementwise::pointwise::{self, Pointwise};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::tensor::{DType, Spec, Tensor};

/// Variance; its second output is the mean, f32, with the reduced axes left as 1.
#[derive(Debug, Clone)]
pub struct Var {
    dims: Dims,
    unbiased: bool,
}

impl Var {
    /// Over `dims`; `unbiased` divides by one less than the number of terms (Bessel).
    pub fn new(dims: Dims, unbiased: bool) -> Self {
        Self { dims, unbiased }
    }

    /// What the sum of squares is divided by; 0 or less has no variance.
    fn divisor(&self, terms: usize) -> f32 {
        terms.saturating_sub(usize::from(self.unbiased)) as f32
    }
}

impl Operator for Var {
    fn name(&self) -> &str {
        "var"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        let y = self.dims.infer(self.name(), x, true)?;
        Ok(vec![y, Spec::f32(kept(&x.shape, &self.dims.mask(self.name(), &x.shape)?))])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec, mean]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let mask = self.dims.mask(self.name(), x.shape())?;
        let terms = terms(x.shape(), &mask);
        let sum = Reduce { finish: "s * p.scale", scale: 1.0 / terms as f32, ..Reduce::sum(x) };
        let mean = sum.run(self.name(), &mask, &mean.shape, DType::F32)?;
        let squares = Reduce { map: "(x - side) * (x - side)", side: Some(&mean), scale: 1.0 / self.divisor(terms), ..sum };
        Ok(vec![squares.run(self.name(), &mask, &spec.shape, spec.dtype)?, mean])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, mean) = (step.input(0)?, step.output(1)?);
        let mask = self.dims.mask(self.name(), x.shape())?;
        let dy = step.cotangent(0)?.view(mean.shape())?;
        let scale = 2.0 / self.divisor(terms(x.shape(), &mask));
        let operands: &[(&str, &Tensor)] = &[("dy", &dy), ("x", x), ("mean", mean)];
        let dx = Pointwise { expression: "dy * p.a * (x - mean)", operands, constants: [scale, 0.0] };
        Ok(vec![Some(dx.run(self.name(), x.shape(), x.dtype())?)])
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0], outputs: vec![1] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        self.dims.rows(inputs)
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        self.dims.leading(inputs)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly(self.name(), inputs)?;
        let mask = self.dims.mask(self.name(), &x.shape)?;
        let groups = gather(x, &mask);
        let means: Vec<f64> = groups.iter().map(|t| t.iter().sum::<f64>() / t.len() as f64).collect();
        let variance = |(terms, mean): (&Vec<f64>, &f64)| {
            let squares: f64 = terms.iter().map(|x| (x - mean).powi(2)).sum();
            // Of no terms it is NaN, as in PyTorch, whichever divisor.
            squares / (terms.len() as f64 - f64::from(u8::from(self.unbiased))).max(0.0)
        };
        let variances = groups.iter().zip(&means).map(variance).collect();
        Ok(vec![Array::new(self.dims.result(self.name(), &x.shape)?, variances), Array::new(kept(&x.shape, &mask), means)])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let terms: usize = inputs.iter().map(|s| s.shape.numel()).sum();
        Cost { flops: 4.0 * terms as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples() -> Vec<Sample> {
    let cases = CASES.iter().enumerate().filter(|(_, (shape, _))| shape.iter().product::<usize>() > 1);
    cases
        .map(|(index, (shape, dims))| {
            Sample::new(Var::new(Dims::new(dims, index % 2 == 0), index % 3 != 0), [normal_with(*shape, 1.0, 3.0)])
        })
        .collect()
}

fn bad() -> Vec<Bad> {
    let operator = |dims: &[isize]| Var::new(Dims::new(dims, false), true);
    vec![
        Bad::new(operator(&[-3]), [normal([3, 4])], "axis -3 is out of range for shape [3, 4]"),
        Bad::new(operator(&[0, 0]), [normal([3, 4])], "axis 0 is named twice"),
        Bad::new(operator(&[0]), [indices([3], 2)], "x must hold floats, found i32 [3]"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "var",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[reduce::KERNELS, pointwise::KERNELS],
        build: Box::new(|attributes: &Attributes| {
            let unbiased = attributes.number_or("unbiased", 1.0)? != 0.0;
            Ok(Box::new(Var::new(Dims::from_attributes(attributes)?, unbiased)))
        }),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The variance over the axes `dims` (-1 is the last; an empty list means all), which `keepdim`
    /// leaves with size 1. `unbiased` divides by one less than the number of terms; of a single
    /// term it is NaN, as in PyTorch.
    ///
    /// # Errors
    /// An axis that does not exist or is named twice; integers; more than three separate groups of
    /// reduced or of kept axes; out of memory.
    pub fn var(&self, dims: &[isize], unbiased: bool, keepdim: bool) -> Result<Tensor> {
        apply_one(Var::new(Dims::new(dims, keepdim), unbiased), &[self])
    }
}

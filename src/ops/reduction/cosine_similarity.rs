//! The cosine of the angle between rows: `a . b / (max(|a|, eps) max(|b|, eps))` along the last
//! axis.

use super::dims::Dims;
use super::l2_normalize::length;
use super::reduce::{self, Reduce};
use crate::error::{Error, Result, require_positive};
use crate::ops::array::maximum;
use crate::ops::elementwise::pointwise::{self, Pointwise};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Operator, Saves, apply_one, axes_before, exactly, rows_beside};
use crate::tensor::{DType, Shape, Spec, Tensor};

/// Cosine similarity `[.., D], [.., D] -> [..]`; its other outputs are the lengths divided by, f32.
#[derive(Debug, Clone)]
pub struct CosineSimilarity {
    eps: f32,
}

impl CosineSimilarity {
    /// `eps` is the least length divided by.
    pub fn new(eps: f32) -> Self {
        Self { eps }
    }

    fn mask(&self, shape: &Shape) -> Result<Vec<bool>> {
        Dims::new(&[-1], false).mask(self.name(), shape)
    }
}

impl Operator for CosineSimilarity {
    fn name(&self) -> &str {
        "cosine_similarity"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [a, b] = exactly(self.name(), inputs)?;
        if a.shape != b.shape {
            return Err(Error::shape(self.name(), format!("both inputs must have one shape, found {} and {}", a.shape, b.shape)));
        }
        if a.dtype != b.dtype {
            return Err(Error::dtype(self.name(), format!("both inputs must have one type, found {a} and {b}; cast one first")));
        }
        require_positive(self.name(), "eps", self.eps)?;
        let y = Dims::new(&[-1], false).infer(self.name(), a, true)?;
        let length = Spec::f32(y.shape.clone());
        Ok(vec![y, length.clone(), length])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([a, b], [spec, _, _]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let mask = self.mask(a.shape())?;
        let run = |reduce: Reduce| reduce.run(self.name(), &mask, &spec.shape, DType::F32);
        let (na, nb) = (run(length(a, self.eps))?, run(length(b, self.eps))?);
        let dot = run(Reduce { map: "x * other", other: Some(b), ..Reduce::sum(a) })?;
        let operands: &[(&str, &Tensor)] = &[("ab", &dot), ("na", &na), ("nb", &nb)];
        let y = Pointwise { expression: "ab / na / nb", operands, constants: [0.0; 2] }.run(self.name(), &spec.shape, spec.dtype)?;
        Ok(vec![y, na, nb])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let shape = &step.input_spec(0)?.shape;
        let row = shape.with(shape.rank().saturating_sub(1), 1);
        let (dy, y) = (step.cotangent(0)?.view(&row)?, step.output(0)?.view(&row)?);
        let lengths = [step.output(1)?.view(&row)?, step.output(2)?.view(&row)?];
        let gradient = |x: usize, other: usize, lengths: [&Tensor; 2]| -> Result<Option<Tensor>> {
            if !step.needs(x) {
                return Ok(None);
            }
            let (x, z, [nx, nz]) = (step.input(x)?, step.input(other)?, lengths);
            // A length that was raised to eps is a constant.
            let expression = "dy * (z / nz - select(y * x / nx, V(0.0), nx <= V(p.a))) / nx";
            let operands: &[(&str, &Tensor)] = &[("dy", &dy), ("y", &y), ("x", x), ("z", z), ("nx", nx), ("nz", nz)];
            Pointwise { expression, operands, constants: [self.eps, 0.0] }.run(self.name(), shape, x.dtype()).map(Some)
        };
        let [na, nb] = &lengths;
        Ok(vec![gradient(0, 1, [na, nb])?, gradient(1, 0, [nb, na])?])
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![0, 1, 2] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        rows_beside(inputs, inputs.first().map(|x| x.shape.rank().saturating_sub(1)))
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, -1)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [a, b] = exactly(self.name(), inputs)?;
        let eps = f64::from(self.eps);
        let norm = |row: &[f64]| maximum(row.iter().map(|v| v * v).sum::<f64>().sqrt(), eps);
        let shape = Dims::new(&[-1], false).result(self.name(), &a.shape)?;
        let cosine = |(x, y): (&[f64], &[f64])| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>() / (norm(x) * norm(y));
        let y = a.rows().zip(b.rows()).map(cosine).collect();
        let (na, nb) = (a.rows().map(norm).collect(), b.rows().map(norm).collect());
        Ok(vec![Array::new(&shape, y), Array::new(&shape, na), Array::new(&shape, nb)])
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        // (b / |b| - cos a / |a|) / |a|.
        gradient_of.and_then(|input| inputs.get(input)).map_or(0.0, |x| 2.0 / x.shortest_row().max(f64::from(self.eps)))
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements: usize = inputs.iter().map(|s| s.shape.numel()).sum();
        Cost { flops: 3.0 * elements as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples() -> Vec<Sample> {
    let shapes: [&[usize]; 7] = [&[0, 3], &[1], &[5], &[3, 7], &[33, 65], &[2, 3, 8], &[2, 2052]];
    let mut samples: Vec<Sample> =
        shapes.iter().map(|shape| Sample::new(CosineSimilarity::new(1e-8), [normal(*shape), normal(*shape)])).collect();
    samples.push(Sample::new(CosineSimilarity::new(3.0), [normal([65, 7]), normal([65, 7])]));
    samples.push(Sample::new(CosineSimilarity::new(1e-8), [normal([3, 5]), Input::Same(0)]));
    samples
}

fn bad() -> Vec<Bad> {
    let operator = || CosineSimilarity::new(1e-8);
    vec![
        Bad::new(operator(), [normal([3, 4]), normal([4])], "both inputs must have one shape, found [3, 4] and [4]"),
        Bad::new(operator(), [normal([]), normal([])], "out of range for shape []"),
        Bad::new(operator(), [normal([3]), indices([3], 2)], "both inputs must have one type"),
        Bad::new(CosineSimilarity::new(-1.0), [normal([3]), normal([3])], "eps must be positive and finite, found -1"),
        Bad::new(CosineSimilarity::new(f32::INFINITY), [normal([3]), normal([3])], "eps must be positive and finite, found inf"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "cosine_similarity",
        module: module_path!(),
        inputs: &["a", "b"],
        outputs: &["y"],
        kernels: &[reduce::KERNELS, pointwise::KERNELS],
        build: Box::new(|attributes: &Attributes| Ok(Box::new(CosineSimilarity::new(attributes.number_or("eps", 1e-8)? as f32)))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The cosine of the angle to `other`, row by row along the last axis: `[.., D]` and `[.., D]`
    /// give `[..]`. Lengths below `eps` count as `eps` (PyTorch's default is 1e-8).
    ///
    /// # Errors
    /// Two shapes or types; scalars; integers; `eps` not above 0; out of memory.
    pub fn cosine_similarity(&self, other: &Tensor, eps: f32) -> Result<Tensor> {
        apply_one(CosineSimilarity::new(eps), &[self, other])
    }
}

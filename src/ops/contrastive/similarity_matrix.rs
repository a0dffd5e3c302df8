//! The matrix of cosines between the rows of two matrices, divided by a temperature: the unfused
//! path of the contrastive losses.

use super::pairs::{self, GAP, Kind, Pairs, Rows, check_rows, check_temperature, dot, rows_specs, saved_rows, specs, unit_rows, weighted};
use crate::error::Result;
use crate::gpu::Scalar;
use crate::ops::entry::Entry;
use crate::ops::layout::strided::{self, Axis, copy};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "similarity_matrix";

/// y_ij = <a_i / |a_i|, b_j / |b_j|> / temperature for `a` [N, D] and `b` [M, D].
#[derive(Debug, Clone)]
pub struct SimilarityMatrix {
    /// Divides the cosines.
    pub temperature: Scalar,
}

/// `dy` or its transpose, in the padded rows and columns of the two sides.
fn padded(dy: &Tensor, rows: &Rows, columns: &Rows, transposed: bool) -> Result<Tensor> {
    let [n, m]: [usize; 2] = dy.shape().array().unwrap_or([0, 0]);
    let [(n, down), (m, along)] = if transposed { [(m, 1), (n, m as i64)] } else { [(n, m as i64), (m, 1)] };
    let axis = |size: usize, stride: i64, extent: usize| Axis { size, stride, low: 0, extent };
    copy(dy, &[axis(rows.unit.shape().dim(0), down, n), axis(columns.unit.shape().dim(0) + GAP, along, m)], 0, 0.0)
}

/// The gradient of one side: `dy` times the other side's rows, through the normalisation.
fn side(dy: &Tensor, of: &Rows, other: &Rows, transposed: bool, spec: &Spec, temperature: &Scalar) -> Result<Tensor> {
    let width = other.unit.shape().dim(0);
    if width == 0 {
        return Tensor::zeros(dy.gpu(), spec.shape.clone(), spec.dtype);
    }
    let w = padded(dy, of, other, transposed)?;
    let du = Tensor::empty(dy.gpu(), of.unit.shape(), DType::F32)?;
    weighted(&w, width, &other.unit, 0, &du)?;
    of.gradient(&du, 0, spec, &temperature.map(|t| 1.0 / t), None)
}

impl Operator for SimilarityMatrix {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [a, b] = specs(NAME, inputs)?;
        check_temperature(NAME, &self.temperature)?;
        check_rows(NAME, ["a", "b"], [a, b])?;
        let (n, m, d) = (a.shape.dim(0), b.shape.dim(0), a.shape.last());
        let [rows, row_norms] = rows_specs(n, d);
        let [columns, column_norms] = rows_specs(m, d);
        Ok(vec![Spec::f32([n, m]), rows, row_norms, columns, column_norms])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [a, b] = *exactly(NAME, inputs)?;
        let (rows, columns) = (a.shape().dim(0), b.shape().dim(0));
        let a = Rows::new(a.gpu(), &[a])?;
        let b = Rows::new(b.gpu(), &[b])?;
        let pairs = Pairs { kind: Kind::All, a: &a, b: &b, labels: None, rows, columns, half: 0, temperature: &self.temperature };
        Ok(vec![pairs.matrix()?, a.unit, a.inverse, b.unit, b.inverse])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (a, b) = (saved_rows(step, 1)?, saved_rows(step, 3)?);
        let dy = step.cotangent(0)?;
        let da = step.needs(0).then(|| side(&dy, &a, &b, false, step.input_spec(0)?, &self.temperature)).transpose()?;
        let db = step.needs(1).then(|| side(&dy, &b, &a, true, step.input_spec(1)?, &self.temperature)).transpose()?;
        Ok(vec![da, db])
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![], outputs: vec![1, 2, 3, 4] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [a, b] = exactly(NAME, inputs)?;
        let t = f64::from(self.temperature.get());
        let (n, m) = (a.shape.dim(0), b.shape.dim(0));
        let b = unit_rows(b);
        let data = unit_rows(a).iter().flat_map(|row| b.iter().map(|other| dot(row, other) / t).collect::<Vec<f64>>()).collect();
        Ok(vec![Array::new([n, m], data)])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let d = inputs.first().map_or(1, |a| a.shape.last()) as f64;
        let matrix = outputs.get(..1).unwrap_or_default();
        Cost::streaming(inputs, matrix, 2.0 * d)
    }
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, m: usize, d: usize, temperature: f32| {
        Sample::new(SimilarityMatrix { temperature: temperature.into() }, [normal([n, d]), normal([m, d])])
    };
    vec![
        on(1, 1, 1, 1.0),
        on(3, 0, 5, 0.5),
        on(0, 3, 5, 0.5),
        on(5, 3, 7, 0.5),
        on(33, 65, 65, 0.07),
        on(65, 130, 33, 1.0),
        Sample::new(SimilarityMatrix { temperature: (0.5).into() }, [normal([7, 9]), Input::Same(0)]),
    ]
}

fn bad() -> Vec<Bad> {
    let matrix = |temperature: f32| SimilarityMatrix { temperature: temperature.into() };
    vec![
        Bad::new(matrix(1.0), [normal([3, 4])], "takes 2 inputs, 1 were given"),
        Bad::new(matrix(1.0), [normal([3, 4]), normal([3, 5])], "must have 4 features"),
        Bad::new(matrix(1.0), [normal([3, 4]), normal([3, 4, 1])], "must be a matrix"),
        Bad::new(matrix(1.0), [indices([3, 4], 2), normal([3, 4])], "must hold floats"),
        Bad::new(matrix(f32::INFINITY), [normal([3, 4]), normal([3, 4])], "temperature must be positive"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["a", "b"],
        outputs: &["y"],
        kernels: &[pairs::rows::KERNELS, pairs::launch::KERNELS, strided::KERNELS],
        build: Box::new(|a| Ok(Box::new(SimilarityMatrix { temperature: (a.number_or("temperature", 1.0)? as f32).into() }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The cosines between each row of `self` [N, D] and each of `b` [M, D], divided by
    /// `temperature`: [N, M], f32.
    ///
    /// # Errors
    /// Unequal numbers of features, integers, a temperature that is not positive; out of memory.
    pub fn similarity_matrix(&self, b: &Tensor, temperature: impl Into<Scalar>) -> Result<Tensor> {
        apply_one(SimilarityMatrix { temperature: temperature.into() }, &[self, b])
    }
}

//! Matrix products of the last two axes, leading axes broadcast: `a b`, `a b^T`, `a^T b`.

mod launch;
mod spec;

use super::gemm;
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::reduction::reduce;
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, broadcast_rows, exactly};
use crate::tensor::{Shape, Spec, Tensor};

/// Which operand is stored transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `a [.., M, K]` times `b [.., K, N]`.
    Nn,
    /// `a [.., M, K]` times the transpose of `b [.., N, K]`.
    Nt,
    /// The transpose of `a [.., K, M]` times `b [.., K, N]`.
    Tn,
}

/// The matrix product.
#[derive(Debug, Clone, Copy)]
pub struct Matmul {
    /// The form.
    pub form: Form,
}

/// One axis of the batch after neighbours that broadcast alike have been merged, and which operand
/// varies along it.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    a: bool,
    b: bool,
}

const SINGLE: Axis = Axis { size: 1, a: true, b: true };

/// Sizes of one product, and its batch.
struct Problem {
    m: usize,
    n: usize,
    k: usize,
    axes: [Axis; 3],
}

impl Matmul {
    /// The sizes of the product, and the shape of its result.
    fn problem(&self, a: &Spec, b: &Spec) -> Result<(Problem, Shape)> {
        let name = self.name();
        if !a.dtype.is_float() || a.dtype != b.dtype {
            return Err(Error::dtype(name, format!("a and b must be floats of one type, found {a} and {b}; cast one")));
        }
        let ([a_batch @ .., a0, a1], [b_batch @ .., b0, b1]) = (&*a.shape, &*b.shape) else {
            return Err(Error::shape(name, format!("a and b must have two axes or more, found {} and {}", a.shape, b.shape)));
        };
        let (m, ka, kb, n) = match self.form {
            Form::Nn => (*a0, *a1, *b0, *b1),
            Form::Nt => (*a0, *a1, *b1, *b0),
            Form::Tn => (*a1, *a0, *b0, *b1),
        };
        if ka != kb {
            let rule = match self.form {
                Form::Nn => "the last axis of a must be as long as the last but one of b",
                Form::Nt => "the last axes must be equally long",
                Form::Tn => "the last axes but one must be equally long",
            };
            return Err(Error::shape(name, format!("{} and {} do not multiply: {ka} against {kb}; {rule}", a.shape, b.shape)));
        }
        let batch = Shape::from(a_batch).broadcast(&Shape::from(b_batch), name)?;
        let result: Shape = batch.iter().copied().chain([m, n]).collect::<Vec<usize>>().into();
        // A shared b: the rows of all matrices of a are the rows of one.
        if self.form != Form::Tn && b_batch.iter().product::<usize>() == 1 {
            return Ok((Problem { m: m * batch.numel(), n, k: ka, axes: [SINGLE; 3] }, result));
        }
        let mut axes: Vec<Axis> = Vec::new();
        for (i, &size) in batch.iter().enumerate().filter(|(_, size)| **size != 1) {
            let varies = |own: &[usize]| (i + own.len()).checked_sub(batch.rank()).and_then(|j| own.get(j)).is_some_and(|s| *s == size);
            let axis = Axis { size, a: varies(a_batch), b: varies(b_batch) };
            match axes.last_mut() {
                Some(last) if (last.a, last.b) == (axis.a, axis.b) => last.size *= size,
                _ => axes.push(axis),
            }
        }
        while axes.len() < 3 {
            axes.insert(0, SINGLE);
        }
        let axes = axes.try_into().map_err(|_| {
            let rule = "their leading axes broadcast in turns more than three times; expand one of them first";
            Error::shape(name, format!("{} and {}: {rule}", a.shape, b.shape))
        })?;
        Ok((Problem { m, n, k: ka, axes }, result))
    }
}

impl Operator for Matmul {
    fn name(&self) -> &str {
        match self.form {
            Form::Nn => "matmul",
            Form::Nt => "matmul_nt",
            Form::Tn => "matmul_tn",
        }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [a, b] = exactly(self.name(), inputs)?;
        let (_, shape) = self.problem(a, b)?;
        Ok(vec![Spec::new(shape, a.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([a, b], [y]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let (problem, _) = self.problem(a.spec(), b.spec())?;
        Ok(vec![launch::forward(self.form, &problem, a, b, y)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (a, b, dy) = (step.input(0)?, step.input(1)?, step.cotangent(0)?);
        let (problem, _) = self.problem(a.spec(), b.spec())?;
        let da = step.needs(0).then(|| launch::left_gradient(self.form, &problem, a, b, &dy)).transpose()?;
        let db = step.needs(1).then(|| launch::right_gradient(self.form, &problem, a, b, &dy)).transpose()?;
        Ok(vec![da, db])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1]
    }

    fn rows(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        match (outputs.first().map_or(0, |y| y.shape.rank()), self.form) {
            (2, Form::Tn) => Vec::new(),
            (2, _) => vec![0],
            _ => broadcast_rows(inputs, outputs),
        }
    }

    fn autocast(&self) -> Autocast {
        Autocast::Half(2)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        spec::reference(self, inputs)
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        spec::summed(self, inputs, gradient_of)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        spec::cost(self, inputs, outputs)
    }
}

/// The lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |name, form| Entry {
        name,
        module: module_path!(),
        inputs: &["a", "b"],
        outputs: &["y"],
        kernels: &[gemm::KERNELS, reduce::KERNELS],
        build: Box::new(move |_| Ok(Box::new(Matmul { form }))),
        samples: Box::new(move || spec::samples(form)),
        bad: Box::new(move || spec::bad(form)),
    };
    vec![entry("matmul", Form::Nn), entry("matmul_nt", Form::Nt), entry("matmul_tn", Form::Tn)]
}

impl Tensor {
    /// The matrix product `[.., M, K] x [.., K, N] -> [.., M, N]`; leading axes broadcast. Sums are
    /// f32 whatever the storage type.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::{DType, Tensor};
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let a = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0, 4.0], [2, 2])?;
    /// let b = Tensor::from_slice(&gpu, &[0.0f32, 1.0, 1.0, 0.0], [2, 2])?;
    /// assert_eq!(a.matmul(&b)?.to_vec::<f32>()?, [2.0, 1.0, 4.0, 3.0]);
    /// let error = a.matmul(&Tensor::full(&gpu, [3, 2], 1.0, DType::F32)?).unwrap_err();
    /// println!("{error}"); // names the operator, both shapes and the rule
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Fewer than two axes, other sizes, types that differ; out of memory.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        apply_one(Matmul { form: Form::Nn }, &[self, other])
    }

    /// The product with a transposed right side, `[.., M, K] x [.., N, K] -> [.., M, N]`.
    ///
    /// # Errors
    /// As [`Self::matmul`].
    pub fn matmul_nt(&self, other: &Tensor) -> Result<Tensor> {
        apply_one(Matmul { form: Form::Nt }, &[self, other])
    }

    /// The product with a transposed left side, `[.., K, M] x [.., K, N] -> [.., M, N]`.
    ///
    /// # Errors
    /// As [`Self::matmul`].
    pub fn matmul_tn(&self, other: &Tensor) -> Result<Tensor> {
        apply_one(Matmul { form: Form::Tn }, &[self, other])
    }
}

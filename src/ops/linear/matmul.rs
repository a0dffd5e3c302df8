//! Matrix products of the last two axes, leading axes broadcast: `a b`, `a b^T`, `a^T b`.

use super::gemm::{self, Gemm};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::reduction::reduce;
use crate::ops::reduction::sum_to;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Backward, Cost, Operator, Saves, apply_one, broadcast_rows, exactly};
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

/// One axis of the batch after neighbours that broadcast alike have been merged, and which operand varies along it.
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

/// Elements between the matrices of one operand along each batch axis.
fn steps(axes: &[Axis; 3], varies: impl Fn(&Axis) -> bool, matrix: usize) -> [usize; 3] {
    let mut step = matrix;
    let mut steps = [0; 3];
    for (s, axis) in steps.iter_mut().zip(axes).rev() {
        if varies(axis) {
            *s = step;
            step *= axis.size;
        }
    }
    steps
}

/// From the gradient of a broadcast operand to its own: the sum over the batch axes along which it does not vary.
fn reduce(full: &Tensor, axes: &[Axis; 3], varies: impl Fn(&Axis) -> bool, matrix: usize, shape: &Shape) -> Result<Tensor> {
    let [a, b, c] = axes.map(|axis| axis.size);
    let [x, y, z] = axes.map(|axis| if varies(&axis) { axis.size } else { 1 });
    sum_to(&full.view([a, b, c, matrix])?, &Shape::from([x, y, z, matrix]))?.view(shape)
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
        let ([a, b], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let (Problem { m, n, k, axes }, _) = self.problem(a.spec(), b.spec())?;
        let y = Tensor::empty(a.gpu(), spec.shape.clone(), spec.dtype)?;
        let gemm = match self.form {
            Form::Nn => Gemm::nn(m, n, k),
            Form::Nt => Gemm::nt(m, n, k),
            Form::Tn => Gemm::tn(m, n, k),
        };
        let sizes = axes.map(|axis| axis.size);
        gemm.batched3(sizes, steps(&axes, |x| x.a, m * k), steps(&axes, |x| x.b, k * n)).run(a, b, None, &y)?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (a, b, dy) = (step.input(0)?, step.input(1)?, step.cotangent(0)?);
        let (Problem { m, n, k, axes }, _) = self.problem(a.spec(), b.spec())?;
        let sizes = axes.map(|axis| axis.size);
        let batches: usize = sizes.iter().product();
        let a_steps = steps(&axes, |x| x.a, m * k);
        let b_steps = steps(&axes, |x| x.b, k * n);
        let y_steps = steps(&axes, |_| true, m * n);
        let mut gradients = vec![None, None];
        if let [da, db] = gradients.as_mut_slice() {
            if step.needs(0) {
                let full = Tensor::empty(a.gpu(), [batches, m * k], a.dtype())?;
                match self.form {
                    Form::Nn => Gemm::nt(m, k, n).batched3(sizes, y_steps, b_steps).run(&dy, b, None, &full)?,
                    Form::Nt => Gemm::nn(m, k, n).batched3(sizes, y_steps, b_steps).run(&dy, b, None, &full)?,
                    Form::Tn => Gemm::nt(k, m, n).batched3(sizes, b_steps, y_steps).run(b, &dy, None, &full)?,
                }
                *da = Some(reduce(&full, &axes, |x| x.a, m * k, a.shape())?);
            }
            if step.needs(1) {
                let full = Tensor::empty(b.gpu(), [batches, k * n], b.dtype())?;
                match self.form {
                    Form::Nn => Gemm::tn(k, n, m).batched3(sizes, a_steps, y_steps).run(a, &dy, None, &full)?,
                    Form::Nt => Gemm::tn(n, k, m).batched3(sizes, y_steps, a_steps).run(&dy, a, None, &full)?,
                    Form::Tn => Gemm::nn(k, n, m).batched3(sizes, a_steps, y_steps).run(a, &dy, None, &full)?,
                }
                *db = Some(reduce(&full, &axes, |x| x.b, k * n, b.shape())?);
            }
        }
        Ok(gradients)
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

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [a, b] = exactly(self.name(), inputs)?;
        let spec = |x: &Array| Spec::f32(&x.shape);
        let (problem, shape) = self.problem(&spec(a), &spec(b))?;
        // The element of `x` at the batch index of `index` (1 where x has 1, none where it has none) and the given row and column.
        let element = |x: &Array, index: &[usize], row: usize, column: usize| {
            let own = x.shape.rank() - 2;
            let skipped = index.len() - 2 - own;
            let batch = index.iter().skip(skipped).zip(x.shape.iter()).take(own).map(|(i, size)| if *size == 1 { 0 } else { *i });
            x.at(&batch.chain([row, column]).collect::<Vec<_>>())
        };
        let y = Array::from_fn(&shape, |index| {
            let [.., i, j] = index else { return f64::NAN };
            let term = |k: usize| match self.form {
                Form::Nn => element(a, index, *i, k) * element(b, index, k, *j),
                Form::Nt => element(a, index, *i, k) * element(b, index, *j, k),
                Form::Tn => element(a, index, k, *i) * element(b, index, k, *j),
            };
            (0..problem.k).map(term).sum()
        });
        Ok(vec![y])
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        let sizes: Vec<Array> = inputs.iter().map(|x| x.map(f64::abs)).collect();
        let largest = || self.reference(&sizes).ok()?.first().map(Array::max_abs);
        if gradient_of.is_none() { largest().unwrap_or(0.0) } else { 0.0 }
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let k = inputs.first().map_or(0, |a| match self.form {
            Form::Tn => a.shape.dim(a.shape.rank().saturating_sub(2)),
            _ => a.shape.last(),
        });
        Cost::streaming(inputs, outputs, 2.0 * k as f64)
    }
}

fn samples(form: Form) -> Vec<Sample> {
    let sizes = [
        (1, 1, 1),
        (5, 3, 7),
        (33, 65, 7),
        (65, 9, 33),
        (7, 300, 1),
        (1, 8, 10),
        (36, 40, 68),
        (3, 1, 5),
        (0, 3, 4),
        (4, 3, 0),
        (3, 0, 5),
        (8, 700, 12),
    ];
    let matrices = |m: usize, k: usize, n: usize| match form {
        Form::Nn => ([m, k], [k, n]),
        Form::Nt => ([m, k], [n, k]),
        Form::Tn => ([k, m], [k, n]),
    };
    let sample = |inputs: [Input; 2]| Sample::new(Matmul { form }, inputs);
    let plain = sizes.iter().map(|&(m, k, n)| {
        let (a, b) = matrices(m, k, n);
        sample([normal(a), normal(b)])
    });
    let batches: [(&[usize], &[usize]); 7] =
        [(&[3], &[3]), (&[3], &[]), (&[], &[3]), (&[2, 1], &[3]), (&[2, 1, 2], &[1, 3, 1]), (&[1, 5], &[2, 5]), (&[0], &[1])];
    let batched = batches.iter().enumerate().map(|(i, (a_batch, b_batch))| {
        let (a, b) = if i % 2 == 0 { matrices(3, 5, 2) } else { matrices(4, 8, 4) };
        sample([normal([a_batch, a.as_slice()].concat()), normal([b_batch, b.as_slice()].concat())])
    });
    plain.chain(batched).chain([sample([normal([9, 9]), Input::Same(0)])]).collect()
}

fn bad(form: Form) -> Vec<Bad> {
    let bad = |a: Input, b: Input, expect| Bad::new(Matmul { form }, [a, b], expect);
    vec![
        bad(normal([3]), normal([3, 3]), "must have two axes or more, found [3] and [3, 3]"),
        bad(normal([3, 4]), normal([5, 6]), "do not multiply"),
        bad(normal([2, 4, 4]), normal([3, 4, 4]), "do not broadcast: 2 against 3"),
        bad(normal([4, 4]), indices([4, 4], 3), "floats of one type"),
        bad(normal([2, 1, 2, 1, 4, 4]), normal([1, 2, 1, 2, 4, 4]), "more than three times"),
        Bad::new(Matmul { form }, [normal([3, 3])], "it takes 2 inputs, 1 were given"),
    ]
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
        samples: Box::new(move || samples(form)),
        bad: Box::new(move || bad(form)),
    };
    vec![entry("matmul", Form::Nn), entry("matmul_nt", Form::Nt), entry("matmul_tn", Form::Tn)]
}

impl Tensor {
    /// The matrix product `[.., M, K] x [.., K, N] -> [.., M, N]`; leading axes broadcast. Sums are f32 whatever the storage type.
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

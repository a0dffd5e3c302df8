//! What matrix products must give: the float64 reference, samples, bad inputs, and what they cost.

use super::{Form, Matmul};
use crate::error::Result;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Cost, Operator, exactly};
use crate::tensor::Spec;

/// Each element by its own sum, in float64.
pub(super) fn reference(matmul: &Matmul, inputs: &[Array]) -> Result<Vec<Array>> {
    let [a, b] = exactly(matmul.name(), inputs)?;
    let spec = |x: &Array| Spec::f32(&x.shape);
    let (problem, shape) = matmul.problem(&spec(a), &spec(b))?;
    // The element of `x` at the batch index of `index` (1 where x has 1, none where it has none)
    // and the given row and column.
    let element = |x: &Array, index: &[usize], row: usize, column: usize| {
        let own = x.shape.rank() - 2;
        let skipped = index.len() - 2 - own;
        let batch = index.iter().skip(skipped).zip(x.shape.iter()).take(own).map(|(i, size)| if *size == 1 { 0 } else { *i });
        x.at(&batch.chain([row, column]).collect::<Vec<_>>())
    };
    let y = Array::from_fn(&shape, |index| {
        let [.., i, j] = index else { return f64::NAN };
        let term = |k: usize| match matmul.form {
            Form::Nn => element(a, index, *i, k) * element(b, index, k, *j),
            Form::Nt => element(a, index, *i, k) * element(b, index, *j, k),
            Form::Tn => element(a, index, k, *i) * element(b, index, k, *j),
        };
        (0..problem.k).map(term).sum()
    });
    Ok(vec![y])
}

/// The largest sum of the magnitudes of its terms.
pub(super) fn summed(matmul: &Matmul, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
    let sizes: Vec<Array> = inputs.iter().map(|x| x.map(f64::abs)).collect();
    let largest = || matmul.reference(&sizes).ok()?.first().map(Array::max_abs);
    if gradient_of.is_none() { largest().unwrap_or(0.0) } else { 0.0 }
}

/// Two operations for each term of each element.
pub(super) fn cost(matmul: &Matmul, inputs: &[Spec], outputs: &[Spec]) -> Cost {
    let k = inputs.first().map_or(0, |a| match matmul.form {
        Form::Tn => a.shape.dim(a.shape.rank().saturating_sub(2)),
        _ => a.shape.last(),
    });
    Cost::streaming(inputs, outputs, 2.0 * k as f64)
}

/// What it is tested on.
pub(super) fn samples(form: Form) -> Vec<Sample> {
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

/// What it must refuse.
pub(super) fn bad(form: Form) -> Vec<Bad> {
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

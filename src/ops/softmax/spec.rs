//! What softmax must give: the float64 reference, samples and bad inputs.

use super::Softmax;
use crate::error::Result;
use crate::ops::sample::{Bad, Sample, indices, normal, normal_with};
use crate::ops::{Array, Operator, exactly};

/// Each element by a walk over its row, in float64.
pub(super) fn reference(softmax: &Softmax, inputs: &[Array]) -> Result<Vec<Array>> {
    let [x] = exactly(softmax.name(), inputs)?;
    let axis = x.shape.axis(softmax.name(), softmax.dim)?;
    let t = f64::from(softmax.temperature.get());
    Ok(vec![Array::from_fn(&x.shape, |index| {
        let mut other = index.to_vec();
        let mut row = (0..x.shape.dim(axis)).map(|i| {
            if let Some(o) = other.get_mut(axis) {
                *o = i;
            }
            x.at(&other) / t
        });
        let row: Vec<f64> = row.by_ref().collect();
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - largest).exp()).sum();
        let z = x.at(index) / t - largest;
        if softmax.log { z - sum.ln() } else { z.exp() / sum }
    })])
}

/// By the Jacobian of softmax, whose closed form is as plain as the loops above.
pub(super) fn reference_backward(softmax: &Softmax, inputs: &[Array], cotangents: &[Array], elements: &[usize]) -> Result<Vec<f64>> {
    let ([x], [dy]) = (exactly(softmax.name(), inputs)?, exactly(softmax.name(), cotangents)?);
    let p = Softmax { log: false, ..softmax.clone() }.reference(inputs)?;
    let [p] = exactly(softmax.name(), &p)?;
    let axis = x.shape.axis(softmax.name(), softmax.dim)?;
    let (n, inner) = (x.shape.dim(axis), x.shape.iter().skip(axis + 1).product::<usize>());
    let gradient = |&element: &usize| {
        let first = element / (n * inner) * n * inner + element % inner;
        let row = || (0..n).map(|i| first + i * inner);
        // The Jacobian: dp_j/dz_i = p_j ([i = j] - p_i), and d(log p_j)/dz_i = [i = j] - p_i.
        let terms = row().map(|j| {
            let same = f64::from(u8::from(j == element));
            dy.flat(j) * (same - p.flat(element)) * if softmax.log { 1.0 } else { p.flat(j) }
        });
        terms.sum::<f64>() / f64::from(softmax.temperature.get())
    };
    Ok(elements.iter().map(gradient).collect())
}

/// What it is tested on.
pub(super) fn samples(log: bool) -> Vec<Sample> {
    let cases: [(&[usize], isize, f32); 16] = [
        (&[1], 0, 1.0),
        (&[0, 5], 1, 1.0),
        (&[5], -1, 4.0),
        (&[3, 7], 1, 0.07),
        (&[3, 7], 0, 1.0),
        (&[7, 8], -1, 2.0),
        (&[33, 65], -1, 1.0),
        (&[65, 33], 0, 0.5),
        (&[3, 36], -1, 1.0),
        (&[2, 5, 3], 1, 1.0),
        (&[2, 5, 12], 1, 2.0),
        (&[3, 33, 8], -2, 1.0),
        (&[3, 516], -1, 0.1),
        (&[2, 1021], -1, 1.0),
        (&[2, 1025], -1, 1.0),
        (&[2, 2052], -1, 3.0),
    ];
    let operator = |dim, temperature: f32| Softmax { dim, temperature: temperature.into(), log };
    let mut samples: Vec<Sample> =
        cases.iter().map(|(shape, dim, t)| Sample::new(operator(*dim, *t), [normal_with(*shape, 3.0, 0.0)])).collect();
    for shape in [[4, 50], [3, 1300], [5, 7]] {
        samples.push(Sample::new(operator(-1, 1.0), [normal_with(shape, 200.0, 0.0)]));
        samples.push(Sample::new(operator(-1, 1.0), [normal_with(shape, 1.0, 1e4)]));
    }
    samples
}

/// What it must refuse.
pub(super) fn bad(log: bool) -> Vec<Bad> {
    let operator = |dim, temperature: f32| Softmax { dim, temperature: temperature.into(), log };
    vec![
        Bad::new(operator(2, 1.0), [normal([3, 4])], "axis 2 is out of range for shape [3, 4]"),
        Bad::new(operator(-1, 1.0), [normal([])], "axis -1 is out of range for shape []"),
        Bad::new(operator(-1, f32::INFINITY), [normal([3, 4])], "temperature must be positive and finite, found inf"),
        Bad::new(operator(-1, 0.0), [normal([3, 4])], "temperature must be positive and finite, found 0"),
        Bad::new(operator(-1, f32::NAN), [normal([3, 4])], "temperature must be positive and finite, found NaN"),
        Bad::new(operator(-1, 1.0), [indices([3, 4], 2)], "x must hold floats, found i32 [3, 4]"),
    ]
}

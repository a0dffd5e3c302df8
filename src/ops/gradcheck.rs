//! The public gradient check: does a kernel compute what its reference says, and is its gradient
//! the reference's derivative?

use super::{Array, Operator, Tolerance, apply_shared};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::sample::Sample;
use crate::tensor::DType;
use std::sync::Arc;

/// Gradient elements checked per input: all of a small one, a fixed random choice of a large one.
const CHECKED: usize = 48;

/// What a passed check saw.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Report {
    /// Elements compared.
    pub compared: usize,
    /// The largest error as a fraction of what was allowed.
    pub worst: f64,
}

impl Report {
    fn merge(&mut self, other: Report) {
        self.compared += other.compared;
        self.worst = self.worst.max(other.worst);
    }
}

/// What rounding may leave of terms that cancel, as a share of the largest of them
/// ([`Operator::summed`]): four roundings of f32.
pub const ROUNDING: f64 = 2.4e-7;
/// What rounding in float64 may leave of a difference of two values of a function, as a share of
/// the terms of these: a few roundings.
const ROUNDING_64: f64 = 2e-15;
/// What f16 storage may be off by.
const HALF: Tolerance = Tolerance { absolute: 2e-3, relative: 2e-3, reason: "one rounding to f16 each of input, output and gradient" };
/// The step of central differences, times the value or 1.
const STEP: f64 = 1e-5;

/// Compares an array with the one expected: errors may be as large as the tolerance says, relative
/// to the largest expected element and to the element itself, and `floor` beside, what rounding
/// leaves of terms that cancel.
///
/// # Errors
/// [`Error::Argument`] naming the element that is furthest off, by how much, against what;
/// [`Error::Shape`] for another shape.
pub fn compare(what: &str, found: &Array, expected: &Array, floor: f64, tolerance: Tolerance) -> Result<Report> {
    if found.shape != expected.shape {
        return Err(Error::shape(what, format!("has shape {}, expected {}", found.shape, expected.shape)));
    }
    compare_values(what, &found.data, &expected.data, floor, tolerance)
}

fn compare_values(what: &str, found: &[f64], expected: &[f64], floor: f64, tolerance: Tolerance) -> Result<Report> {
    let largest = expected.iter().fold(0.0f64, |m, v| if v.is_finite() { m.max(v.abs()) } else { m });
    // Below the smallest normal number f32 has no digits.
    let floor = tolerance.absolute * largest + floor + f64::from(f32::MIN_POSITIVE);
    let mut report = Report { compared: found.len(), worst: 0.0 };
    let mut off = None;
    for (index, (got, want)) in found.iter().zip(expected).enumerate() {
        let allowed = floor + tolerance.relative * want.abs();
        let same = got == want || (got.is_nan() && want.is_nan());
        let ratio = if same { 0.0 } else { (got - want).abs() / allowed };
        if ratio > report.worst || ratio.is_nan() {
            report.worst = if ratio.is_nan() { f64::INFINITY } else { ratio };
            off = Some((index, *got, *want, allowed));
        }
    }
    match off {
        Some((index, got, want, allowed)) if report.worst > 1.0 => {
            let wrong = found.iter().zip(expected).filter(|(g, w)| (*g - *w).abs() > allowed || g.is_nan() != w.is_nan()).count();
            Err(Error::argument(
                what,
                format!(
                    "element {index} is {got:.7e}, expected {want:.7e} (off by {:.2e}, allowed {allowed:.2e}); {wrong} of {} elements are off",
                    (got - want).abs(),
                    found.len()
                ),
            ))
        }
        _ => Ok(report),
    }
}

/// The derivative of `sum(cotangent * f(inputs))` with respect to chosen elements of one input, by
/// central differences.
///
/// # Errors
/// Those of `f`.
pub fn central_differences(
    f: &dyn Fn(&[Array]) -> Result<Vec<Array>>,
    inputs: &[Array],
    cotangents: &[Array],
    input: usize,
    elements: &[usize],
) -> Result<Vec<f64>> {
    let mut inputs = inputs.to_vec();
    let value = |inputs: &[Array]| -> Result<f64> {
        let outputs = f(inputs)?;
        Ok(outputs
            .iter()
            .zip(cotangents)
            .flat_map(|(y, c)| y.data.iter().zip(&c.data))
            .map(|(y, c)| if *c == 0.0 { 0.0 } else { y * c })
            .sum())
    };
    let mut gradient = Vec::with_capacity(elements.len());
    for &element in elements {
        let original = inputs.get(input).map_or(f64::NAN, |a| a.flat(element));
        let step = STEP * original.abs().max(1.0);
        let mut at = |x: f64| {
            if let Some(array) = inputs.get_mut(input) {
                array.set(element, x);
            }
            value(&inputs)
        };
        let slope = (at(original + step)? - at(original - step)?) / (2.0 * step);
        at(original)?;
        gradient.push(slope);
    }
    Ok(gradient)
}

/// Checks the forward result of `operator` and the gradient of each differentiable input against
/// its float64 reference.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use std::sync::Arc;
/// use wgrad::ops::elementwise::map::Map;
/// use wgrad::ops::gradcheck::gradcheck;
/// use wgrad::ops::{Array, Operator};
///
/// let gpu = wgrad::gpu::Gpu::new()?;
/// let operator: Arc<dyn Operator> = Arc::new(Map::named("tanh")?);
/// let report = gradcheck(&gpu, &operator, &[Array::new([3], vec![-1.0, 0.5, 2.0])])?;
/// assert!(report.worst <= 1.0); // the largest error as a fraction of what is allowed
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Argument`] naming operator, tensor and element where one is off; whatever the operator
/// itself reports.
pub fn gradcheck(gpu: &Gpu, operator: &Arc<dyn Operator>, inputs: &[Array]) -> Result<Report> {
    gradcheck_aliased(gpu, operator, inputs, &[])
}

/// As [`gradcheck`], on a sample's own operator and inputs.
///
/// # Errors
/// As [`gradcheck`].
pub fn gradcheck_sample(gpu: &Gpu, sample: Sample, seed: u32) -> Result<Report> {
    let arrays = sample.arrays(seed);
    let aliases: Vec<(usize, usize)> = sample
        .inputs
        .iter()
        .enumerate()
        .filter_map(|(i, input)| if let crate::ops::sample::Input::Same(of) = input { Some((i, *of)) } else { None })
        .collect();
    gradcheck_aliased(gpu, &Arc::from(sample.operator), &arrays, &aliases)
}

fn gradcheck_aliased(gpu: &Gpu, operator: &Arc<dyn Operator>, inputs: &[Array], aliases: &[(usize, usize)]) -> Result<Report> {
    let name = operator.name().to_string();
    let differentiable = operator.differentiable();
    let mut tensors = Vec::with_capacity(inputs.len());
    for (index, array) in inputs.iter().enumerate() {
        let alias = aliases.iter().find(|(i, _)| *i == index).and_then(|(_, of)| tensors.get(*of).cloned());
        let tensor = match alias {
            Some(same) => same,
            None => {
                let plain = array.upload(gpu)?;
                if differentiable.contains(&index) { plain.watch_as(&format!("input {index}")) } else { plain }
            }
        };
        tensors.push(tensor);
    }
    let refs: Vec<&crate::tensor::Tensor> = tensors.iter().collect();
    let outputs = apply_shared(operator.clone(), &refs)?;
    let expected = operator.reference(inputs)?;
    let mut report = Report::default();
    let mutated: Vec<&crate::tensor::Tensor> = operator.mutates().iter().filter_map(|i| tensors.get(*i)).collect();
    for (index, (found, want)) in outputs.iter().chain(mutated).zip(&expected).enumerate() {
        report.merge(compare(
            &format!("{name} output {index}"),
            &Array::download(found)?,
            want,
            ROUNDING * operator.summed(inputs, None),
            operator.tolerance(),
        )?);
    }
    if differentiable.is_empty() {
        return Ok(report);
    }
    // One output at a time carries a gradient: a scalar product with a random cotangent.
    for (index, output) in outputs.iter().enumerate().filter(|(_, t)| t.is_watched()) {
        let cotangents: Vec<Array> = expected
            .iter()
            .enumerate()
            .map(|(i, want)| if i == index { Sample::cotangent(&want.shape, i as u32) } else { Array::zeros(want.shape.clone()) })
            .collect();
        let Some(cotangent) = cotangents.get(index) else { continue };
        let gradients = output.backward_from_retain_graph(&cotangent.upload(gpu)?)?;
        for &input in &differentiable {
            if aliases.iter().any(|(i, _)| *i == input) {
                continue;
            }
            let (Some(tensor), Some(array)) = (tensors.get(input), inputs.get(input)) else { continue };
            let Some(gradient) = gradients.get(tensor) else {
                return Err(Error::argument(&name, format!("input {input} is differentiable but got no gradient")));
            };
            let found = gradient.to_f64()?;
            let elements = chosen(array.data.len());
            let mut want = operator.reference_backward(inputs, &cotangents, input, &elements)?;
            for (alias, _) in aliases.iter().filter(|(alias, of)| *of == input && differentiable.contains(alias)) {
                let more = operator.reference_backward(inputs, &cotangents, *alias, &elements)?;
                want.iter_mut().zip(more).for_each(|(w, m)| *w += m);
            }
            let got = picked(&found, &elements);
            let differences = ROUNDING_64 / STEP
                * expected.get(index).map_or(0.0, |y| y.data.iter().zip(&cotangent.data).map(|(y, c)| (y * c).abs()).sum());
            let floor = ROUNDING * operator.summed(inputs, Some(input)) * cotangent.max_abs() + differences;
            let what = format!("{name} gradient of input {input} by output {index}");
            report.merge(compare_values(&what, &got, &want, floor, operator.tolerance())?);
        }
    }
    Ok(report)
}

/// As [`gradcheck`], of an operator some of whose inputs, `halves`, are stored as f16: inputs and
/// the cotangent are rounded to it first, so that results and gradients differ by their own
/// rounding alone.
///
/// # Errors
/// As [`gradcheck`]; [`Error::Dtype`] where the operator refuses these types or a gradient is of
/// another type than its input; [`Error::Limit`] where the adapter has no f16.
pub fn gradcheck_half(gpu: &Gpu, operator: &Arc<dyn Operator>, inputs: &[Array], halves: &[usize]) -> Result<Report> {
    let (name, differentiable) = (operator.name().to_string(), operator.differentiable());
    let rounded = |array: &Array| Array { dtype: DType::F16, ..array.map(|v| half::f16::from_f64(v).to_f64()) };
    let store = |(at, array): (usize, &Array)| if halves.contains(&at) { rounded(array) } else { array.clone() };
    let inputs: Vec<Array> = inputs.iter().enumerate().map(store).collect();
    let upload = |(at, array): (usize, &Array)| array.upload(gpu).map(|t| if differentiable.contains(&at) { t.watch() } else { t });
    let tensors = inputs.iter().enumerate().map(upload).collect::<Result<Vec<_>>>()?;
    let outputs = apply_shared(operator.clone(), &tensors.iter().collect::<Vec<_>>())?;
    let expected = operator.reference(&inputs)?;
    let mut report = Report::default();
    for (at, (found, want)) in outputs.iter().zip(&expected).enumerate() {
        let floor = HALF.absolute * operator.summed(&inputs, None);
        report.merge(compare(&format!("{name} output {at}, f16 storage"), &Array::download(found)?, want, floor, HALF)?);
    }
    let (Some(output), Some(want)) = (outputs.first().filter(|output| output.is_watched()), expected.first()) else { return Ok(report) };
    let mut cotangents: Vec<Array> = expected.iter().map(|want| Array::zeros(want.shape.clone())).collect();
    let cotangent = Array { dtype: output.dtype(), ..rounded(&Sample::cotangent(&want.shape, 0)) };
    let gradients = output.backward_from(&cotangent.upload(gpu)?)?;
    let largest = cotangent.max_abs();
    if let Some(first) = cotangents.first_mut() {
        *first = cotangent;
    }
    for at in differentiable {
        let (Some(tensor), Some(array)) = (tensors.get(at), inputs.get(at)) else { continue };
        let Some(found) = gradients.get(tensor) else { continue };
        if found.dtype() != array.dtype {
            return Err(Error::dtype(&name, format!("the gradient of input {at} is {}, the input is {}", found.dtype(), array.dtype)));
        }
        let elements: Vec<usize> = (0..array.data.len().min(12)).collect();
        let want = operator.reference_backward(&inputs, &cotangents, at, &elements)?;
        // Central differences of a gradient that is 0 leave a little.
        let floor = HALF.absolute * operator.summed(&inputs, Some(at)) * largest + 1e-6;
        report.merge(compare_values(
            &format!("{name} gradient of input {at}, f16 storage"),
            &picked(&found.to_f64()?, &elements),
            &want,
            floor,
            HALF,
        )?);
    }
    Ok(report)
}

fn picked(values: &[f64], elements: &[usize]) -> Vec<f64> {
    elements.iter().map(|at| values.get(*at).copied().unwrap_or(f64::NAN)).collect()
}

/// A fixed choice of elements that covers the ends and, by a step that is no power of two, the
/// middle.
fn chosen(elements: usize) -> Vec<usize> {
    if elements <= CHECKED {
        return (0..elements).collect();
    }
    let step = elements as f64 / CHECKED as f64;
    (0..CHECKED).map(|i| if i + 1 == CHECKED { elements - 1 } else { (i as f64 * step) as usize }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Backward, exactly};
    use super::*;
    use crate::tensor::{Spec, Tensor};

    /// (2 x, 3 x), whose gradient is that of the first output alone.
    struct Forgetful {
        results: usize,
    }

    impl Operator for Forgetful {
        fn name(&self) -> &str {
            "forgetful"
        }

        fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
            let [x] = exactly(self.name(), inputs)?;
            Ok(vec![x.clone(); 2])
        }

        fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
            let [x] = exactly(self.name(), inputs)?;
            [2.0, 3.0].iter().map(|factor| x.detach().mul_scalar(*factor)).collect()
        }

        fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
            Ok(vec![Some(step.cotangent(0)?.mul_scalar(2.0)?)])
        }

        fn differentiable(&self) -> Vec<usize> {
            vec![0]
        }

        fn results(&self) -> usize {
            self.results
        }

        fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
            let [x] = exactly(self.name(), inputs)?;
            Ok([2.0, 3.0].iter().map(|factor| x.map(|v| v * factor)).collect())
        }
    }

    #[test]
    fn every_output_that_gradients_flow_through_is_checked() {
        let gpu = Gpu::new().unwrap();
        let check = |results| {
            let operator: Arc<dyn Operator> = Arc::new(Forgetful { results });
            gradcheck(&gpu, &operator, &[Array::new([3], vec![1.0, -2.0, 0.5])])
        };
        assert_eq!(check(1).unwrap().compared, 2 * 3 + 3);
        let message = check(2).unwrap_err().to_string();
        assert!(message.contains("gradient of input 0 by output 1"), "{message}");
    }
}

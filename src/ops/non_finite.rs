//! The check that no operator swallows NaN or loses an infinity: what its reference makes of one,
//! its kernels must make, too.

use super::entry::Entry;
use super::gradcheck::{ROUNDING, compare};
use super::sample::{Input, Sample};
use super::{Array, Operator, apply_shared};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Samples of an operator that are checked: from the first to the last, evenly.
const SAMPLES: usize = 4;
/// Elements that a checked sample has at most.
const ELEMENTS: usize = 4096;
/// Gradient elements looked at.
const SLOPES: usize = 6;

/// What an input is tried with, beside numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edges {
    /// NaN and both infinities.
    All,
    /// The same, where results may be NaN that are none in the reference: padding, which is 0, is
    /// multiplied by it or not, as in PyTorch.
    Spread,
    /// NaN: infinities have no meaning in a picture, a distance or a probability.
    Nan,
    /// Nothing: it is made by the host, or of another input.
    None,
}

/// NaN, NaN with its sign bit set (what x86 makes of 0 / 0), and both infinities.
const VALUES: [u32; 4] = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0000, 0xff80_0000];

/// The few of `samples` that are worth checking.
fn chosen(samples: Vec<Sample>) -> Vec<Sample> {
    let small = |sample: &Sample| {
        let elements: usize = sample.arrays(1).iter().map(|a| a.data.len()).sum();
        (1..=ELEMENTS).contains(&elements)
    };
    let small: Vec<Sample> = samples.into_iter().filter(small).collect();
    let n = small.len();
    let wanted: Vec<usize> = (0..SAMPLES).map(|k| k * n.saturating_sub(1) / (SAMPLES - 1)).collect();
    small.into_iter().enumerate().filter(|(index, _)| wanted.contains(index)).map(|(_, sample)| sample).collect()
}

/// Puts NaN and both infinities into each float input of some of an operator's samples in turn, and
/// NaN into the gradient of its first output.
///
/// Results that have a name must be NaN where the float64 reference is, infinite where it is or
/// where f32 ends, and else within the operator's tolerance. Of the gradients, those that depend on
/// the element that is NaN must be NaN.
///
/// # Errors
/// [`Error::Argument`] naming operator, value and element where one is off; whatever the operator
/// itself reports.
pub fn check(gpu: &Gpu, entry: &Entry, seed: u32) -> Result<()> {
    chosen((entry.samples)()).into_iter().try_for_each(|sample| check_sample(gpu, sample, entry.outputs.len(), seed))
}

fn check_sample(gpu: &Gpu, sample: Sample, named: usize, seed: u32) -> Result<()> {
    let arrays = sample.arrays(seed);
    let same = |of: usize| move |(i, input): (usize, &Input)| if matches!(input, Input::Same(o) if *o == of) { Some(i) } else { None };
    let operator: Arc<dyn Operator> = Arc::from(sample.operator);
    // Digits are gradcheck's affair.
    let floor = operator.tolerance().absolute + ROUNDING * operator.summed(&arrays, None);
    for (index, array) in arrays.iter().enumerate() {
        let alias = matches!(sample.inputs.get(index), Some(Input::Same(_)));
        if alias || !array.dtype.is_float() || array.data.is_empty() {
            continue;
        }
        let edges = operator.edges(index);
        let values = match edges {
            Edges::All | Edges::Spread => &VALUES[..],
            Edges::Nan => &VALUES[..2],
            Edges::None => &[],
        };
        let element = array.data.len() * 2 / 3;
        for bits in values {
            let value = f64::from(f32::from_bits(*bits));
            let mut inputs = arrays.clone();
            let aliases = sample.inputs.iter().enumerate().filter_map(same(index));
            for input in aliases.chain([index]) {
                if let Some(array) = inputs.get_mut(input) {
                    array.set(element, value);
                }
            }
            let what = format!("{} with {value} ({bits:#x}) in element {element} of input {index}", operator.name());
            forward(gpu, &operator, &inputs, (named, edges == Edges::Spread, floor), &what)?;
        }
    }
    if arrays.iter().all(|a| a.data.iter().all(|v| v.is_finite())) { backward(gpu, &operator, &arrays) } else { Ok(()) }
}

fn forward(
    gpu: &Gpu,
    operator: &Arc<dyn Operator>,
    inputs: &[Array],
    (named, spread, floor): (usize, bool, f64),
    what: &str,
) -> Result<()> {
    let tensors = inputs.iter().map(|a| a.upload(gpu)).collect::<Result<Vec<_>>>()?;
    let outputs = apply_shared(operator.clone(), &tensors.iter().collect::<Vec<_>>())?;
    let expected = operator.reference(inputs)?;
    let mutated: Vec<&Tensor> = operator.mutates().iter().filter_map(|i| tensors.get(*i)).collect();
    // Outputs that only backward reads are its own affair.
    let wanted = |(index, _): &(usize, _)| *index < named || *index >= outputs.len();
    for (index, (found, want)) in outputs.iter().chain(mutated).zip(&expected).enumerate().filter(wanted) {
        let found = Array::download(found)?;
        let whole = !found.dtype.is_float();
        // An integer of NaN is undefined, as in PyTorch.
        let expected = |(want, found): (&f64, &f64)| match whole && !want.is_finite() || spread && found.is_nan() {
            true => *found,
            false => f64::from(*want as f32),
        };
        let want = Array { data: want.data.iter().zip(&found.data).map(expected).collect(), ..want.clone() };
        compare(&format!("{what}: output {index}"), &found, &want, floor, operator.tolerance())?;
    }
    Ok(())
}

fn backward(gpu: &Gpu, operator: &Arc<dyn Operator>, inputs: &[Array]) -> Result<()> {
    let differentiable = operator.differentiable();
    let upload = |(index, array): (usize, &Array)| -> Result<Tensor> {
        let plain = array.upload(gpu)?;
        Ok(if differentiable.contains(&index) { plain.watch_as(&format!("input {index}")) } else { plain })
    };
    let tensors = inputs.iter().enumerate().map(upload).collect::<Result<Vec<_>>>()?;
    let outputs = apply_shared(operator.clone(), &tensors.iter().collect::<Vec<_>>())?;
    let Some(output) = outputs.first().filter(|y| y.is_watched() && y.numel() > 0) else { return Ok(()) };
    let element = output.numel() * 2 / 3;
    let mut cotangents: Vec<Array> = operator.reference(inputs)?.iter().map(|y| Array::zeros(y.shape.clone())).collect();
    let mut set = |value: f64| {
        if let Some(first) = cotangents.first_mut() {
            first.set(element, value);
        }
        cotangents.clone()
    };
    let Some(poisoned) = set(f64::NAN).into_iter().next() else { return Ok(()) };
    let unit = set(1.0);
    let gradients = output.backward_from(&poisoned.upload(gpu)?)?;
    for &input in &differentiable {
        let (Some(tensor), Some(array)) = (tensors.get(input), inputs.get(input)) else { continue };
        let Some(gradient) = gradients.get(tensor) else { continue };
        let found = gradient.to_f64()?;
        let n = array.data.len();
        let mut elements: Vec<usize> = (0..SLOPES.min(n)).map(|k| k * n / SLOPES.min(n)).collect();
        elements.push(if n == output.numel() { element } else { n - 1 });
        let slopes = operator.reference_backward(inputs, &unit, input, &elements)?;
        for (at, slope) in elements.iter().zip(slopes) {
            if slope.abs() > 1e-3 && found.get(*at).is_some_and(|v| !v.is_nan()) {
                let problem = format!("element {element} of its gradient is NaN, and element {at} of that of input {input} is not");
                return Err(Error::argument(operator.name(), problem));
            }
        }
    }
    Ok(())
}

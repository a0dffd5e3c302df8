//! How exact f16 storage is: every operator that takes f16, on its samples, in units in the last
//! place of f16 (ulps).
//!
//! Inputs are rounded to f16 first, and the float64 reference is that of the rounded ones, so what
//! is left is the operator's own error: its sums in f32, and the rounding of what it stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::common::{on_each_schedule, wanted};
use half::f16;
use wgrad::error::{Error, Result};
use wgrad::gpu::{Gpu, Schedule};
use wgrad::ops::registry::registry;
use wgrad::ops::{Array, Edges, Operator, apply_shared};
use wgrad::tensor::{DType, Spec, Tensor};

/// What an element may be off by.
const ULPS: f64 = 2.0;

/// Operators, and which of their outputs, with elements that may be further off: sums of terms that
/// nearly cancel, whose result is so small that f32 itself is further off than that. The second
/// output of `batch_norm_train`, f32, has what rounding leaves of each mean, which is 0 in float64.
const CANCEL: [(&str, usize); 6] =
    [("batch_norm_train", 0), ("batch_norm_train", 1), ("gelu_tanh", 0), ("group_norm", 0), ("layer_norm", 0), ("upsample2d", 0)];

/// What an element beyond that may be off by besides the rounding of its store, as a share of the
/// terms: eight roundings of f32 where terms cancel. The weights of attention are f32, and are
/// rounded once to f16 where matrices read them.
fn excuse(name: &str, output: usize, schedule: Schedule) -> Option<f64> {
    let by_matrices = schedule == Schedule::Matrix && (name, output) == ("scaled_dot_product_attention", 0);
    let cancels = CANCEL.contains(&(name, output)).then_some(8.0 / f64::from(1 << 24));
    if by_matrices { Some(1.0 / 2048.0) } else { cancels }
}

/// What one element is off by, and how many are.
#[derive(Default)]
struct Row {
    elements: usize,
    beyond: usize,
    ulps: f64,
    worst: String,
}

fn rounded(value: f64) -> f64 {
    f16::from_f64(value).to_f64()
}

fn ulp(value: f64) -> f64 {
    2f64.powi(value.abs().clamp(2f64.powi(-14), 65504.0).log2().floor() as i32 - 10)
}

/// The largest sets of float inputs, as bits, that the operator takes as f16, and each input alone
/// that it does.
fn sets(operator: &dyn Operator, arrays: &[Array]) -> Vec<usize> {
    let takes = |set: usize| {
        let dtype = |at: usize| if set >> at & 1 == 1 { DType::F16 } else { arrays[at].dtype };
        let specs: Vec<Spec> = (0..arrays.len()).map(|at| Spec::new(arrays[at].shape.clone(), dtype(at))).collect();
        operator.infer(&specs).is_ok()
    };
    let floats: usize = (0..arrays.len()).filter(|at| arrays[*at].dtype == DType::F32).map(|at| 1 << at).sum();
    let taken: Vec<usize> = (1..=floats).filter(|set| set & !floats == 0 && takes(*set)).collect();
    let largest = |set: usize| taken.iter().all(|other| *other == set || other & set != set);
    taken.iter().copied().filter(|set| set.is_power_of_two() || largest(*set)).collect()
}

/// The inputs of which those of `set` are f16. None where f16 does not hold a number, or where one
/// input follows from another, so that rounding one of them makes them another's.
fn inputs(operator: &dyn Operator, arrays: &[Array], set: usize, schedule: Schedule) -> Option<Vec<Array>> {
    let half = |(at, array): (usize, &Array)| match array.dtype {
        DType::F32 if set >> at & 1 == 1 => Array { dtype: DType::F16, ..array.map(rounded) },
        // Matrices round what they read.
        DType::F32 if schedule == Schedule::Matrix => array.map(rounded),
        _ => array.clone(),
    };
    let inputs: Vec<Array> = arrays.iter().enumerate().map(half).collect();
    let holds = |(rounded, array): (&Array, &Array)| rounded.data.iter().zip(&array.data).all(|(r, v)| r.is_finite() || !v.is_finite());
    let statistics = operator.name() == "batch_norm_train" && operator.edges(5) == Edges::None;
    (!statistics && inputs.iter().zip(arrays).all(holds)).then_some(inputs)
}

fn run(gpu: &Gpu, operator: &Arc<dyn Operator>, inputs: &[Array]) -> Result<Vec<Array>> {
    let tensors = inputs.iter().map(|array| array.upload(gpu)).collect::<Result<Vec<Tensor>>>()?;
    apply_shared(operator.clone(), &tensors.iter().collect::<Vec<_>>())?.iter().map(Array::download).collect()
}

#[test]
fn outputs_of_halves_are_exact_to_two_units_in_the_last_place() {
    let rows: Mutex<BTreeMap<&str, Row>> = Mutex::default();
    let failures = on_each_schedule(|schedule, gpu| {
        let mut failures = Vec::new();
        for entry in registry().into_iter().filter(|entry| gpu.capabilities().f16 && wanted(entry.name)) {
            for (number, sample) in (entry.samples)().into_iter().enumerate() {
                let arrays = sample.arrays(1);
                let operator: Arc<dyn Operator> = Arc::from(sample.operator);
                for set in sets(&*operator, &arrays) {
                    let Some(inputs) = inputs(&*operator, &arrays, set, schedule) else { continue };
                    let what = format!("{} sample {number}, {schedule}, f16 {set:b}", entry.name);
                    let found = match run(gpu, &operator, &inputs) {
                        Ok(found) => found,
                        Err(Error::Dtype { .. }) => continue,
                        Err(error) => {
                            failures.push(format!("{what}: {error}"));
                            continue;
                        }
                    };
                    let (expected, summed) = (operator.reference(&inputs).unwrap(), operator.summed(&inputs, None));
                    let mut rows = rows.lock().unwrap();
                    let row = rows.entry(entry.name).or_default();
                    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        // As large as the largest element at least.
                        let finite = expected.data.iter().filter(|v| v.is_finite());
                        let terms = finite.fold(summed, |most, v| most.max(v.abs()));
                        let excused = excuse(entry.name, at, schedule);
                        for (got, want) in found.data.iter().zip(&expected.data) {
                            row.elements += 1;
                            if got == want || *got == rounded(*want) || (got.is_nan() && want.is_nan()) {
                                continue;
                            }
                            let (off, ulp) = ((got - want).abs(), ulp(*want));
                            let seen = format!("{what}, output {at}: {got:e} for {want:e}, {:.2} ulps, of terms of {terms:.1e}", off / ulp);
                            let beyond = off.is_nan() || off > ULPS * ulp;
                            if beyond && !excused.is_some_and(|share| off <= 0.5 * ulp + share * terms) {
                                failures.push(seen.clone());
                            }
                            row.beyond += usize::from(beyond);
                            if off / ulp > row.ulps {
                                (row.ulps, row.worst) = (off / ulp, seen);
                            }
                        }
                    }
                }
            }
        }
        failures
    });
    let rows = rows.into_inner().unwrap();
    for row in rows.values().filter(|row| row.ulps > 0.5) {
        println!("{} of {} elements are beyond {ULPS} ulps; the furthest: {}", row.beyond, row.elements, row.worst);
    }
    println!("{} operators, {} elements", rows.len(), rows.values().map(|row| row.elements).sum::<usize>());
    let of: BTreeSet<&str> = failures.iter().filter_map(|failure| failure.split(' ').next()).collect();
    let first = failures.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} are further off, of {of:?}:\n{first}", failures.len());
}

//! The registry's own promises: samples against the float64 reference (forward and gradients), bad inputs, repeated bits.

mod common;

use std::sync::Arc;

use common::{gpu, gpus};
use wgrad::ops::{Operator, apply_shared, gradcheck::gradcheck_sample, registry::registry};

fn chosen(name: &str) -> bool {
    std::env::var("WGRAD_ONLY").map_or(true, |only| name.starts_with(&only))
}

#[test]
fn samples_match_the_reference_on_every_schedule() {
    let mut failures = Vec::new();
    for (schedule, gpu) in gpus() {
        let mut count = 0;
        for entry in registry().iter().filter(|e| chosen(e.name)) {
            let samples = (entry.samples)();
            assert!(!samples.is_empty(), "{} has no samples", entry.name);
            for (index, sample) in samples.into_iter().enumerate() {
                count += 1;
                if let Err(error) = gradcheck_sample(&gpu, sample, 1) {
                    failures.push(format!("{} sample {index} ({schedule}): {error}", entry.name));
                }
            }
        }
        println!("{count} samples on schedule {schedule}");
    }
    assert!(failures.is_empty(), "{} samples failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn bad_inputs_are_refused_with_the_right_words() {
    let gpu = gpu();
    let mut failures = Vec::new();
    for entry in registry().iter().filter(|e| chosen(e.name)) {
        for (index, bad) in (entry.bad)().into_iter().enumerate() {
            let sample = wgrad::ops::sample::Sample { operator: bad.operator, inputs: bad.inputs };
            let tensors: Vec<_> = sample.arrays(1).iter().map(|a| a.upload(&gpu).unwrap()).collect();
            let operator: Arc<dyn Operator> = Arc::from(sample.operator);
            match apply_shared(operator, &tensors.iter().collect::<Vec<_>>()) {
                Ok(_) => failures.push(format!("{} bad input {index}: was accepted", entry.name)),
                Err(error) if !error.to_string().contains(bad.expect) => {
                    failures.push(format!("{} bad input {index}: \"{error}\" lacks \"{}\"", entry.name, bad.expect))
                }
                Err(_) => {}
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

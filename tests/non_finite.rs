//! No operator swallows NaN or loses an infinity: samples of all of them, with such values in each input, on both schedules.

mod common;

use common::gpus;
use wgrad::ops::{non_finite, registry::registry};

#[test]
fn nan_and_infinities_come_through_every_operator() {
    let mut failures = Vec::new();
    for (schedule, gpu) in gpus() {
        for entry in registry().into_iter().filter(|e| std::env::var("WGRAD_ONLY").map_or(true, |only| e.name.starts_with(&only))) {
            if let Err(error) = non_finite::check(&gpu, &entry, 1) {
                failures.push(format!("{} ({schedule}): {error}", entry.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} operators failed:\n{}", failures.len(), failures.join("\n"));
}

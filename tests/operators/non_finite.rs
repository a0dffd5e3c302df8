//! No operator swallows NaN or loses an infinity: samples of all of them, with such values in each
//! input, on both schedules.

use crate::common::{gpus, on_each_schedule, wanted};
use wgrad::ops::entry::Entry;
use wgrad::ops::normalization::batch_norm::BatchNormFuncOptions;
use wgrad::ops::{non_finite, registry::registry};
use wgrad::tensor::{DType, Tensor};

#[test]
fn nan_and_infinities_come_through_every_operator() {
    let failures = on_each_schedule(|schedule, gpu| {
        let entries = registry().into_iter().filter(|entry| wanted(entry.name));
        let wrong = |entry: Entry| non_finite::check(gpu, &entry, 1).err().map(|error| format!("{} ({schedule}): {error}", entry.name));
        entries.filter_map(wrong).collect()
    });
    assert!(failures.is_empty(), "{} operators failed:\n{}", failures.len(), failures.join("\n"));
}

/// The closed form, which PyTorch's float64 misses here: it multiplies by the deviation's inverse
/// before it subtracts the mean.
#[test]
fn a_large_constant_is_normalised_to_the_bias() {
    for (schedule, gpu) in gpus() {
        let x = Tensor::full(&gpu, [3, 4], 2f32.powi(45), DType::F32).unwrap();
        let [weight, bias] = [[1.0f32, 2.0, 0.5, 1.0], [0.0, 1.0, 2.0, 3.0]].map(|v| Tensor::from_slice(&gpu, &v, [4]).unwrap());
        let (mean, var) = (Tensor::zeros(&gpu, [4], DType::F32).unwrap(), Tensor::full(&gpu, [4], 1.0, DType::F32).unwrap());
        let y = x.batch_norm(&weight, &bias, &mean, &var, &BatchNormFuncOptions::default(), None).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0].repeat(3), "{schedule}");
        assert!(var.to_vec::<f32>().unwrap().iter().all(|v| (v - 0.9).abs() < 1e-6), "{schedule}");
    }
}

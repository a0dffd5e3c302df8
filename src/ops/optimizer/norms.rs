//! What sums of squares share: their kernel, its lanes, and numbers beyond the range of f32.

use crate::gpu::{Gpu, Schedule};
use crate::ops::entry::kernels;
use crate::ops::sample::Input;

kernels!(NORMS = "optimizer/norms");

/// Lanes of a workgroup that sums.
pub(super) fn lanes(gpu: &Gpu) -> u32 {
    match gpu.capabilities().schedule {
        Schedule::Software => 8,
        Schedule::Gpu | Schedule::Matrix => 64,
    }
}

/// (m, e) with m 4^e = `sum`, as the kernels hold a sum of squares that f32 cannot.
pub(super) fn settled(sum: f64) -> [f64; 2] {
    let exponent = if !sum.is_finite() || sum > f64::from(f32::MAX) {
        80
    } else if sum < 2f64.powi(-70) {
        -96
    } else {
        0
    };
    [sum * 4f64.powi(-exponent), f64::from(exponent)]
}

/// Given values times `scale`.
pub(super) fn times(input: &mut Input, scale: f64) {
    if let Input::Values(array) = input {
        array.data.iter_mut().for_each(|v| *v = f64::from((*v * scale) as f32));
    }
}

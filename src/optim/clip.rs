//! Clipping of each gradient on its own. Clipping by the global norm is part of every step:
//! [`OptimizerOptions::clip_norm`](super::OptimizerOptions).

use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::DType;

/// Scales every gradient whose norm exceeds `max_norm` down to it, each tensor by itself: g min(1,
/// max_norm / (|g| + 1e-6)).
///
/// # Errors
/// [`Error::Argument`] where `max_norm` is not positive; out of memory or a lost device.
pub fn clip_each_norm(gradients: &mut Gradients, max_norm: f32) -> Result<()> {
    check("max_norm", max_norm)?;
    if max_norm.is_infinite() {
        return Ok(());
    }
    gradients.map(|gradient| {
        if gradient.numel() == 0 {
            return Ok(gradient.clone());
        }
        let flat = gradient.reshape(&[gradient.numel()])?.cast(DType::F32)?;
        // In units of the largest magnitude no square leaves f32's range.
        let unit = flat.abs()?.max(&[0], false)?;
        let unit = fuse([&unit], |[unit]| unit.maximum(1e-38))?;
        let squares = fuse([&flat, &unit], |[g, unit]| (g / unit).map("square"))?.sum(&[0], false)?;
        let clipped = fuse([&flat, &unit, &squares], |[g, unit, squares]| {
            let most = (&g / &unit * (max_norm / (squares.sqrt() + 1e-6 / unit))).map("abs");
            g.minimum(&most).maximum(-most)
        })?;
        clipped.cast(gradient.dtype())?.reshape(gradient.shape())
    })
}

/// Refuses a largest norm that is not positive; an infinite one clips nothing, as in PyTorch.
pub(super) fn check(setting: &str, norm: f32) -> Result<()> {
    if norm > 0.0 {
        return Ok(());
    }
    Err(Error::argument("optimizer", format!("{setting} must be positive, found {norm}; leave it out for no clipping")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Gpu;
    use crate::tensor::Tensor;

    #[test]
    fn long_gradients_are_shortened_and_short_ones_stay() {
        let gpu = Gpu::new().unwrap();
        let long = Tensor::from_slice(&gpu, &[3.0f32, 4.0], [2, 1]).unwrap().watch();
        let short = Tensor::scalar(&gpu, 0.25).unwrap().watch();
        // The gradient of sum(x^2) / 2 + y^2 / 2 is (x, y).
        let half = |t: &Tensor| t.reshape(&[t.numel()]).unwrap().square().unwrap().sum(&[0], false).unwrap().mul_scalar(0.5).unwrap();
        let loss = half(&long).add(&half(&short.reshape(&[1]).unwrap())).unwrap();
        let mut gradients = loss.backward().unwrap();
        clip_each_norm(&mut gradients, 1.0).unwrap();
        let clipped = gradients.get(&long).unwrap().to_vec::<f32>().unwrap();
        assert!((clipped[0] - 0.6).abs() < 1e-6 && (clipped[1] - 0.8).abs() < 1e-6, "{clipped:?}");
        assert_eq!(gradients.get(&short).unwrap().item().unwrap(), 0.25);
        clip_each_norm(&mut gradients, f32::INFINITY).unwrap();
        for norm in [0.0, -1.0, f32::NAN] {
            assert!(clip_each_norm(&mut gradients, norm).unwrap_err().to_string().contains("max_norm must be positive"));
        }
    }
}

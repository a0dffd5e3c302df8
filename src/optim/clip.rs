//! Clipping of each gradient on its own. Clipping by the global norm is part of every step: [`Common::clip_norm`](super::Common).

use crate::autograd::Gradients;
use crate::error::Result;
use crate::ops::elementwise::fuse::fuse;

/// Scales every gradient whose norm exceeds `max_norm` down to it, each tensor by itself: g min(1, max_norm / (|g| + 1e-6)).
///
/// # Errors
/// Out of memory or a lost device.
pub fn clip_each_norm(gradients: &mut Gradients, max_norm: f32) -> Result<()> {
    gradients.map(|gradient| {
        let flat = gradient.reshape(&[gradient.elements()])?;
        let squares = flat.square()?.sum(&[0], false)?;
        fuse([&flat, &squares], |[g, squares]| g * (max_norm / (squares.sqrt() + 1e-6)).minimum(1.0))?.reshape(gradient.shape())
    })
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
        let half = |t: &Tensor| t.reshape(&[t.elements()]).unwrap().square().unwrap().sum(&[0], false).unwrap().mul_scalar(0.5).unwrap();
        let loss = half(&long).add(&half(&short.reshape(&[1]).unwrap())).unwrap();
        let mut gradients = loss.backward().unwrap();
        clip_each_norm(&mut gradients, 1.0).unwrap();
        let clipped = gradients.get(&long).unwrap().to_vec::<f32>().unwrap();
        assert!((clipped[0] - 0.6).abs() < 1e-6 && (clipped[1] - 0.8).abs() < 1e-6, "{clipped:?}");
        assert_eq!(gradients.get(&short).unwrap().item().unwrap(), 0.25);
    }
}

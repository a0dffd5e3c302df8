//! Sums on the host with the bits of the device's.
//!
//! What a process receives is added while its device still computes, and a run that nobody shares
//! adds the same on the device. Both round to the nearest (Vulkan asks it of additions, as Metal and
//! Direct3D do), so they can differ in one thing: numbers below the least normal one, which a
//! device may take, or give, as 0. What this one does is tried once.

use crate::autograd;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::tensor::Tensor;

/// What becomes of a number below the least normal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subnormal {
    Kept,
    /// 0 of either sign.
    SignedZero,
    Zero,
}

impl Subnormal {
    /// As `found` shows, which the device made of -x: of a subnormal number, or of one that 0 took
    /// the place of.
    fn seen(found: f32) -> Self {
        match found {
            0.0 if found.is_sign_negative() => Self::SignedZero,
            0.0 => Self::Zero,
            _ => Self::Kept,
        }
    }

    fn of(self, x: f32) -> f32 {
        match self {
            Self::SignedZero if x.is_subnormal() => 0f32.copysign(x),
            Self::Zero if x.is_subnormal() => 0.0,
            _ => x,
        }
    }
}

/// How a device adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arithmetic {
    taken: Subnormal,
    given: Subnormal,
}

impl Arithmetic {
    /// That of `gpu`, whose answers are read.
    pub fn of(gpu: &Gpu) -> Result<Self> {
        let (half, least) = (f32::MIN_POSITIVE / 2.0, f32::MIN_POSITIVE);
        // -half - half is normal, unless 0 is taken in their place; the other sum is -half.
        let a = Tensor::from_slice(gpu, &[-half, -1.5 * least], [2])?;
        let b = Tensor::from_slice(gpu, &[-half, least], [2])?;
        match autograd::sum(&a, &b)?.to_vec::<f32>()?.as_slice() {
            [taken, given] => Ok(Self { taken: Subnormal::seen(*taken), given: Subnormal::seen(*given) }),
            _ => Err(Error::argument("parallel", "a sum has another length")),
        }
    }

    fn add(self, a: f32, b: f32) -> f32 {
        self.given.of(self.taken.of(a) + self.taken.of(b))
    }

    /// `a + b`, f32 as bytes.
    pub fn sum(self, a: &[u8], b: &[u8]) -> Vec<u8> {
        let words = |bytes: &[u8]| bytes.as_chunks::<4>().0.to_vec();
        let (a, b) = (words(a), words(b));
        a.into_iter().zip(b).flat_map(|(a, b)| self.add(f32::from_le_bytes(a), f32::from_le_bytes(b)).to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_host_adds_as_the_device_does() {
        let gpu = Gpu::new().unwrap();
        let arithmetic = Arithmetic::of(&gpu).unwrap();
        // All exponents, the subnormal ones of half of the numbers; multiplicative hashing.
        let word = |i: u32| {
            let random = i.wrapping_mul(2_654_435_761).rotate_left(13) ^ i.wrapping_mul(0x9E37_79B1);
            f32::from_bits(if i.is_multiple_of(2) { random & 0x80FF_FFFF } else { random })
        };
        let [a, b]: [Vec<f32>; 2] = [0, 100_000].map(|from| (from..from + 100_000).map(word).collect());
        let on = |values: &[f32]| Tensor::from_slice(&gpu, values, [values.len()]).unwrap();
        let device: Vec<f32> = autograd::sum(&on(&a), &on(&b)).unwrap().to_vec().unwrap();
        let host: Vec<f32> = bytemuck::pod_collect_to_vec(&arithmetic.sum(bytemuck::cast_slice(&a), bytemuck::cast_slice(&b)));
        let small = device.iter().filter(|sum| sum.abs() < f32::MIN_POSITIVE).count();
        assert!(small > 1000 && host.len() == device.len(), "{small}");
        for (at, (host, device)) in host.iter().zip(&device).enumerate() {
            let same = host.to_bits() == device.to_bits() || host.is_nan() && device.is_nan();
            assert!(same, "{:e} + {:e}: {host:e} on the host, {device:e} on the device, {arithmetic:?}", a[at], b[at]);
        }
    }

    #[test]
    fn numbers_below_the_least_normal_one_become_what_the_device_makes_of_them() {
        let small = -f32::MIN_POSITIVE / 2.0;
        for (rule, expected) in [(Subnormal::Kept, small), (Subnormal::SignedZero, -0.0), (Subnormal::Zero, 0.0)] {
            assert_eq!(rule.of(small).to_bits(), expected.to_bits(), "{rule:?}");
            assert_eq!((rule.of(-1.0), Subnormal::seen(expected)), (-1.0, rule));
        }
    }
}

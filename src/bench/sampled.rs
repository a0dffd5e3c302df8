//! Gates of large convolutions and products: elements of the very results that are timed, computed
//! in float64 one by one. A matrix product is a convolution of one image of M x 1 pixels.

use super::run::Gate;
use super::workload::gate_of;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

/// A convolution [N, H, W, C] to [N, OH, OW, K], padded alike on all sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Images.
    pub n: usize,
    /// Height and width of an image.
    pub size: [usize; 2],
    /// Input channels.
    pub c: usize,
    /// Output channels.
    pub k: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Pixels between two positions.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
    /// Every channel has its own kernel, laid out `[kh, kw, C]`, rather than `[K, kh, kw, C]`.
    pub depthwise: bool,
    /// The weight is laid out `[C, K]`, as the right factor of a product.
    pub product: bool,
}

/// What is said of a reference that any device would match that computes nothing.
pub(super) const NO_REFERENCE: &str = "its reference is 0 in every element compared, so it proves nothing: inputs must not be all zero";
/// Elements compared of each result.
const ELEMENTS: usize = 64;

impl Geometry {
    /// The product of `[m, k]` and `[k, n]`.
    pub fn product([m, k, n]: [usize; 3]) -> Self {
        Self { n: 1, size: [m, 1], c: k, k: n, kernel: [1, 1], stride: 1, padding: 0, depthwise: false, product: true }
    }

    /// Height and width of the result.
    pub fn output(&self) -> [usize; 2] {
        let along = |size: usize, kernel: usize| (size + 2 * self.padding).saturating_sub(kernel) / self.stride.max(1) + 1;
        let ([h, w], [kh, kw]) = (self.size, self.kernel);
        [along(h, kh), along(w, kw)]
    }

    fn weight_at(&self, k: usize, [r, s]: [usize; 2], c: usize) -> usize {
        let [kh, kw] = self.kernel;
        match (self.depthwise, self.product) {
            (true, _) => (r * kw + s) * self.c + c,
            (_, true) => c * self.k + k,
            _ => ((k * kh + r) * kw + s) * self.c + c,
        }
    }

    /// The input pixel that a tap meets; `None` in the padding.
    fn pixel(&self, [i, j]: [usize; 2], [r, s]: [usize; 2]) -> Option<[usize; 2]> {
        let along = |at: usize, tap: usize, size: usize| (at * self.stride + tap).checked_sub(self.padding).filter(|p| *p < size);
        let [h, w] = self.size;
        Some([along(i, r, h)?, along(j, s, w)?])
    }

    fn taps(&self) -> impl Iterator<Item = [usize; 2]> + use<> {
        let [kh, kw] = self.kernel;
        (0..kh).flat_map(move |r| (0..kw).map(move |s| [r, s]))
    }
}

/// `element` of the tensors as they are on the host: which terms are added.
type Terms<'a> = dyn Fn(usize, &mut dyn FnMut(f64)) + 'a;

fn compare(what: &str, found: &[f64], terms: &Terms, stream: &mut Stream) -> Result<f64> {
    let last = found.len().saturating_sub(1);
    let (mut worst, mut largest) = (0.0_f64, 0.0_f64);
    for index in 0..ELEMENTS.min(found.len()) {
        // The ends and a random choice between them.
        let at = match index {
            0 => 0,
            1 => last,
            _ => stream.below(u32::try_from(found.len()).unwrap_or(u32::MAX)) as usize,
        };
        let (mut sum, mut magnitude) = (0.0, 0.0);
        terms(at, &mut |term: f64| {
            sum += term;
            magnitude += term * term;
        });
        let got = found.get(at).copied().unwrap_or(f64::NAN);
        // Of n random terms, their root of squares is what the sum is like, so cancellation does
        // not count as an error.
        let ratio = (got - sum).abs() / (1e-5 + 1e-4 * magnitude.sqrt());
        if ratio > 1.0 || ratio.is_nan() {
            return Err(Error::argument(what, format!("element {at} is {got:.7e}, expected {sum:.7e}")));
        }
        (worst, largest) = (worst.max(ratio), largest.max(magnitude));
    }
    // Inputs come from the device, so of one that computes nothing everything is 0, and equal.
    if largest == 0.0 && !found.is_empty() {
        return Err(Error::argument(what, NO_REFERENCE));
    }
    Ok(worst)
}

/// Compares elements of y and, where they are given, of dx and dw for the cotangent dy.
///
/// # Errors
/// Those of reading back.
pub fn gate(g: &Geometry, x: &Tensor, w: &Tensor, y: &Tensor, gradients: Option<[&Tensor; 3]>) -> Result<Gate> {
    let (x, w, y) = (x.to_f64()?, w.to_f64()?, y.to_f64()?);
    let read = |data: &[f64], at: usize| data.get(at).copied().unwrap_or(f64::NAN);
    let ([h, width], [oh, ow]) = (g.size, g.output());
    let x_at = |n: usize, [i, j]: [usize; 2], c: usize| ((n * h + i) * width + j) * g.c + c;
    let channels = |k: usize| if g.depthwise { k..k + 1 } else { 0..g.c };
    let mut stream = Stream::new(17, Purpose::Test);
    let forward = |at: usize, add: &mut dyn FnMut(f64)| {
        let (k, j, i, n) = (at % g.k, at / g.k % ow, at / g.k / ow % oh, at / g.k / ow / oh);
        for tap in g.taps() {
            let Some(pixel) = g.pixel([i, j], tap) else { continue };
            channels(k).for_each(|c| add(read(&x, x_at(n, pixel, c)) * read(&w, g.weight_at(k, tap, c))));
        }
    };
    let mut results = || -> Result<f64> {
        let mut worst = compare("y", &y, &forward, &mut stream)?;
        let Some([dy, dx, dw]) = gradients else { return Ok(worst) };
        let (dy, dx, dw) = (dy.to_f64()?, dx.to_f64()?, dw.to_f64()?);
        let dy_at = |n: usize, [i, j]: [usize; 2], k: usize| read(&dy, ((n * oh + i) * ow + j) * g.k + k);
        let to_input = |at: usize, add: &mut dyn FnMut(f64)| {
            let (c, j, i, n) = (at % g.c, at / g.c % width, at / g.c / width % h, at / g.c / width / h);
            for [r, s] in g.taps() {
                // The output whose tap is here.
                let along = |p: usize, tap: usize, most: usize| {
                    (p + g.padding).checked_sub(tap).filter(|d| d % g.stride == 0).map(|d| d / g.stride).filter(|o| *o < most)
                };
                let (Some(oi), Some(oj)) = (along(i, r, oh), along(j, s, ow)) else { continue };
                let filters = if g.depthwise { c..c + 1 } else { 0..g.k };
                filters.for_each(|k| add(dy_at(n, [oi, oj], k) * read(&w, g.weight_at(k, [r, s], c))));
            }
        };
        worst = worst.max(compare("gradient of the input", &dx, &to_input, &mut stream)?);
        let [kh, kw] = g.kernel;
        let to_weight = |at: usize, add: &mut dyn FnMut(f64)| {
            let (k, tap, c) = match (g.depthwise, g.product) {
                (true, _) => (at % g.c, [at / g.c / kw, at / g.c % kw], at % g.c),
                (_, true) => (at % g.k, [0, 0], at / g.k),
                _ => (at / g.c / kw / kh, [at / g.c / kw % kh, at / g.c % kw], at % g.c),
            };
            for (n, i, j) in (0..g.n).flat_map(|n| (0..oh).flat_map(move |i| (0..ow).map(move |j| (n, i, j)))) {
                if let Some(pixel) = g.pixel([i, j], tap) {
                    add(dy_at(n, [i, j], k) * read(&x, x_at(n, pixel, c)));
                }
            }
        };
        Ok(worst.max(compare("gradient of the weight", &dw, &to_weight, &mut stream)?))
    };
    let against = format!("float64, {ELEMENTS} elements of each result itself; as a fraction of 1e-4 of the terms' root of squares");
    Ok(gate_of(results(), against))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::gpu::Gpu;

    /// Products of small whole numbers, so that every right element is exact, and then one that is
    /// off in its last element.
    #[test]
    fn one_wrong_element_fails_the_gate() {
        let gpu = Gpu::new().unwrap();
        let tensor = |data: &[f32], shape: [usize; 2]| Tensor::from_slice(&gpu, data, shape).unwrap();
        let (x, w) = (tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3, 2]), tensor(&[1.0, 0.0, 2.0, 3.0], [2, 2]));
        let (mut y, dy) = ([5.0, 6.0, 11.0, 12.0, 17.0, 18.0], tensor(&[1.0, 0.0, 0.0, 1.0, 2.0, 0.0], [3, 2]));
        let (dx, mut dw) = (tensor(&[1.0, 2.0, 0.0, 3.0, 2.0, 4.0], [3, 2]), [11.0, 3.0, 14.0, 4.0]);
        let g = Geometry::product([3, 2, 2]);
        let passed = |y: &[f32], dw: &[f32]| gate(&g, &x, &w, &tensor(y, [3, 2]), Some([&dy, &dx, &tensor(dw, [2, 2])])).unwrap().passed;
        assert_eq!(passed(&y, &dw), Some(true));
        y[5] += 0.1;
        assert_eq!(passed(&y, &dw), Some(false));
        y[5] -= 0.1;
        dw[3] = f32::NAN;
        assert_eq!(passed(&y, &dw), Some(false));
    }

    #[test]
    fn zero_for_zero_is_no_reference() {
        let gpu = Gpu::new().unwrap();
        let zeros = |shape: [usize; 2]| Tensor::zeros(&gpu, shape, crate::tensor::DType::F32).unwrap();
        let gate = gate(&Geometry::product([3, 2, 2]), &zeros([3, 2]), &zeros([2, 2]), &zeros([3, 2]), None).unwrap();
        assert!(gate.passed == Some(false) && gate.against.contains("y: ") && gate.against.contains(NO_REFERENCE), "{gate:?}");
    }
}

//! Images of bytes, four a word, as floats in 0..1.

use std::ops::Range;

use super::check_side;
use crate::error::{Error, Result};
use crate::gpu::Launch;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Operator, apply_one, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

kernels!(UNPACK = "augment/unpack");

/// `words` `[ceil(N H W C / 4)]` of bytes, lowest byte first, to images `[N, H, W, channels]`: byte
/// / 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpack {
    /// `[N, H, W, C]` of the bytes.
    pub shape: [usize; 4],
    /// Channels of the result: C, or 4 for a C of 3, where the fourth channel is 0.
    pub channels: usize,
}

impl Unpack {
    fn bytes(&self) -> usize {
        self.shape.iter().fold(1, |n: usize, side| n.saturating_mul(*side))
    }
}

impl Operator for Unpack {
    fn name(&self) -> &str {
        "unpack"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [words] = exactly(self.name(), inputs)?;
        if words.dtype != DType::I32 {
            return Err(Error::dtype(self.name(), format!("words must be i32, found {}", words.dtype)));
        }
        let [n, h, w, c] = self.shape;
        check_side(self.name(), "images", h)?;
        check_side(self.name(), "images", w)?;
        if !matches!((c, self.channels), (1, 1) | (3, 3 | 4)) {
            let message = format!("1 channel stays 1 and 3 become 3 or 4, found {c} to {}", self.channels);
            return Err(Error::shape(self.name(), message));
        }
        let expected = self.bytes().div_ceil(4);
        if words.shape.array() != Some([expected]) {
            return Err(Error::shape(
                self.name(),
                format!("{:?} bytes take words of shape [{expected}], found {}", self.shape, words.shape),
            ));
        }
        Ok(vec![Spec::f32([n, h, w, self.channels])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([words], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let [_, _, _, c] = self.shape;
        let images = Tensor::empty(words.gpu(), &spec.shape, spec.dtype)?;
        let (pad, pixels) = (self.channels != c, self.bytes() / c.max(1));
        let threads = if pad { pixels.div_ceil(4) } else { words.numel() };
        let launch = Launch::new(words.gpu(), &UNPACK, "forward").define("PAD", pad).read(*words).write(&images);
        launch.params(params![words.numel(), pixels]).invocations(threads)?;
        Ok(vec![images])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        let [_, h, w, c] = self.shape;
        if (h * w * c).is_multiple_of(4) { vec![0] } else { Vec::new() }
    }

    fn piece(&self, rows: &Range<usize>) -> Option<Box<dyn Operator>> {
        let [_, h, w, c] = self.shape;
        Some(Box::new(Unpack { shape: [rows.len(), h, w, c], ..*self }))
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [words] = exactly(self.name(), inputs)?;
        let bytes: Vec<u8> = words.data.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect();
        let [n, h, w, c] = self.shape;
        Ok(vec![Array::from_fn([n, h, w, self.channels], |index| {
            let (Some(channel), [n, y, x, ..]) = (index.last(), index) else { return f64::NAN };
            let byte = bytes.get(((n * h + y) * w + x) * c + channel).copied().unwrap_or(0);
            if *channel < c { f64::from(byte) / 255.0 } else { 0.0 }
        })])
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let size = |name| attributes.size(name);
    let shape = [size("n")?, size("height")?, size("width")?, size("channels")?];
    Ok(Box::new(Unpack { shape, channels: attributes.size_or("out_channels", size("channels")?)? }))
}

fn sample(shape: [usize; 4], channels: usize) -> Sample {
    let unpack = Unpack { shape, channels };
    // A Weyl sequence reaches all four bytes and both signs.
    let word = |i: usize| f64::from((i as u32).wrapping_mul(0x9E37_79B9).wrapping_add(0x7F4A_7C15) as i32);
    let count = unpack.bytes().div_ceil(4);
    let words = Input::Values(Array::integers([count], (0..count).map(word).collect()));
    Sample::new(unpack, [words])
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "unpack",
        module: module_path!(),
        inputs: &["words"],
        outputs: &["images"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(|| {
            let shapes: [([usize; 4], usize); 8] = [
                ([1, 1, 1, 1], 1),
                ([3, 5, 7, 1], 1),
                ([0, 5, 7, 3], 4),
                ([1, 1, 1, 3], 4),
                ([1, 1, 1, 3], 3),
                ([3, 5, 7, 3], 3),
                ([3, 5, 7, 3], 4),
                ([7, 33, 3, 3], 4),
            ];
            shapes.iter().map(|(shape, channels)| sample(*shape, *channels)).collect()
        }),
        bad: Box::new(|| {
            let make = |channels| Unpack { shape: [2, 3, 3, 3], channels };
            vec![
                Bad::new(make(3), [normal([14])], "words must be i32"),
                Bad::new(make(3), [indices([13], 9)], "words of shape [14]"),
                Bad::new(make(1), [indices([14], 9)], "3 become 3 or 4, found 3 to 1"),
                Bad::new(Unpack { shape: [2, 0, 3, 3], channels: 3 }, [indices([0], 9)], "sides of 1 to 32767"),
            ]
        }),
    }
}

impl Tensor {
    /// Images `[N, H, W, channels]` in 0..1 from `words` of packed bytes of `shape` `[N, H, W, C]`:
    /// see [`Unpack`].
    ///
    /// # Errors
    /// Words that are not i32 or too many or few; 3 channels into anything but 3 or 4, or 1 into
    /// anything but 1.
    pub fn unpack(&self, shape: [usize; 4], channels: usize) -> Result<Tensor> {
        apply_one(Unpack { shape, channels }, &[self])
    }
}

//! Sizes of what is resampled: the new size along both axes, and the ratio of old to new as a
//! fraction that kernels reckon with exactly.

use super::super::window::float_images;
use super::{Upsample, Upsample2d, UpsampleMode};
use crate::error::{Error, Result};
use crate::tensor::{Spec, check_sizes};

/// The largest denominator of a scale that is taken to be a fraction exactly.
const DENOMINATOR: usize = 1024;
/// How far the last position of another scale may be off, in pixels.
const OFF: f64 = 1e-5;

/// The best approximation of a number by a fraction of two numbers up to `most`, by its continued
/// fraction.
fn fraction(number: f64, most: f64) -> Option<(usize, usize)> {
    let (mut before, mut now, mut rest) = ((0.0, 1.0), (1.0, 0.0), number);
    let mut best = None;
    for _ in 0..64 {
        let whole = rest.floor();
        let next = (whole * now.0 + before.0, whole * now.1 + before.1);
        if next.0 > most || next.1 > most {
            break;
        }
        (before, now) = (now, next);
        best = Some((now.0 as usize, now.1 as usize));
        if rest - whole < 1e-12 {
            break;
        }
        rest = 1.0 / (rest - whole);
    }
    best
}

/// One axis: the new size, and the ratio of old to new size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio {
    pub size: usize,
    pub num: usize,
    pub den: usize,
}

impl Ratio {
    fn reduced(size: usize, num: usize, den: usize) -> Self {
        let (mut a, mut b) = (num, den);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        Self { size, num: num / a.max(1), den: den / a.max(1) }
    }

    /// An axis that stays as it is.
    pub fn same(size: usize) -> Self {
        Self { size, num: 1, den: 1 }
    }

    /// New pixels that are looked at for one of `from` old ones, at most (`readers` of the shader).
    pub fn readers(&self, from: usize, reach: usize) -> usize {
        if from == 1 || self.num == 0 { self.size } else { self.size.min((2 * reach * self.den).div_ceil(self.num) + 5) }
    }
}

impl Upsample2d {
    /// Sizes of x, and what becomes of its height and width.
    pub(super) fn ratios(&self, x: &Spec) -> Result<([usize; 4], [Ratio; 2])> {
        let shape @ [_, h, w, _] = float_images("upsample2d", x)?;
        check_sizes("upsample2d", "an image's side", [h, w])?;
        if let Upsample::Size(size) = self.to {
            check_sizes("upsample2d", "an image's side", size)?;
        }
        let scaled = |from: usize, scale: f64| {
            if !(scale > 0.0 && scale < 1e6) {
                return Err(Error::argument("upsample2d", format!("a scale must lie between 0 and 1e6, found {scale}")));
            }
            let exact = |num: &usize| (scale * *num as f64 - (scale * *num as f64).round()).abs() < 1e-9;
            if let Some(num) = (1..=DENOMINATOR).find(exact) {
                let den = (scale * num as f64).round() as usize;
                return Ok(Ratio::reduced(from * den / num, num, den));
            }
            let size = (from as f64 * scale).floor() as usize;
            let most = f64::from(u32::MAX) / (2.0 * size.max(from) as f64 + 9.0);
            let close = |(num, den): &(usize, usize)| (*num as f64 / *den as f64 - 1.0 / scale).abs() * (size as f64) < OFF;
            let wrong =
                || Error::argument("upsample2d", format!("scale {scale} of {from} pixels is too fine for 32 bits; give the size instead"));
            let (num, den) = fraction(1.0 / scale, most).filter(close).ok_or_else(wrong)?;
            Ok::<Ratio, Error>(Ratio { size, num, den })
        };
        let mut ratios = match self.to {
            Upsample::Size([oh, ow]) => [Ratio::reduced(oh, h, oh), Ratio::reduced(ow, w, ow)],
            Upsample::Scale([sh, sw]) => [scaled(h, sh)?, scaled(w, sw)?],
        };
        if self.align_corners {
            if self.mode == UpsampleMode::Nearest {
                return Err(Error::argument(
                    "upsample2d",
                    "align_corners goes with bilinear and bicubic, the nearest pixel has no corners",
                ));
            }
            for (ratio, from) in ratios.iter_mut().zip([h, w]) {
                *ratio = Ratio::reduced(ratio.size, from.saturating_sub(1), ratio.size.saturating_sub(1).max(1));
                // One pixel lies upon the first.
                ratio.num = if ratio.size == 1 { 0 } else { ratio.num };
            }
        }
        let wrong = |rule: &str| Err(Error::shape("upsample2d", format!("images {} cannot become {:?}: {rule}", x.shape, self.to)));
        if h * w == 0 || ratios.iter().any(|r| r.size == 0) {
            return wrong("both need pixels");
        }
        let margin = if self.mode == UpsampleMode::Bicubic { 8 } else { 3 };
        if ratios.iter().zip([h, w]).any(|(r, from)| u32::try_from((2 * r.size.max(from) + margin) * r.num.max(r.den)).is_err()) {
            return wrong("the sizes are too large for positions of 32 bits");
        }
        Ok((shape, ratios))
    }
}

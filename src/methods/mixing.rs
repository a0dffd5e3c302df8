//! mixup (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899) of the
//! images of a batch: timm's `Mixup` in mode `batch`, on the device.
//!
//! What is drawn follows from the run's seed and the step, so a run that goes on draws the same. An
//! image is mixed with the one at its place from the end of its batch; of several shards with one of
//! its own shard, since a shard sees no other, by the numbers that all of the step's shards have.
//! How a batch is divided is a part of the recipe, so bits do not depend on processes.

use super::{HIDDEN, MethodContext, SupervisedConfig};
use crate::error::{Error, Result, require_share, require_within};
use crate::gpu::Scalar;
use crate::ops::augment::{MixImages, MixupTarget};
use crate::tensor::random::{Purpose, Stream};
use crate::tensor::{InputShape, Tensor};

/// How the images of each step are mixed.
pub(super) struct Mixing {
    rule: Rule,
    step: Scalar<u64>,
    classes: usize,
    label_smoothing: f32,
}

/// What is drawn from.
#[derive(Debug, Clone, Copy)]
struct Rule {
    seed: u32,
    /// Concentrations of mixup's and of CutMix's lambda; 0 for none.
    mixup: f32,
    cutmix: f32,
    prob: f32,
    switch_prob: f32,
}

/// What was drawn for a step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Drawn {
    /// The weight of an image's own label.
    lam: f32,
    /// Its own weight outside of the box.
    outside: f32,
    /// Of the other image: first column and row, one past the last ones.
    area: [u32; 4],
}

impl Mixing {
    /// What `config` says; `None` where nothing is mixed.
    ///
    /// # Errors
    /// Numbers outside their limits; labels that are hidden, and texts, which cannot be mixed.
    pub fn new(method: &str, config: &SupervisedConfig, context: &MethodContext) -> Result<Option<Self>> {
        let SupervisedConfig { label_smoothing, mixup, cutmix, mixup_prob: prob, mixup_switch_prob: switch_prob } = *config;
        for (what, alpha) in [("mixup", mixup), ("cutmix", cutmix)] {
            require_within(method, what, alpha, [0.0, 1e3])?;
        }
        for (what, p) in [("mixup_prob", prob), ("mixup_switch_prob", switch_prob)] {
            require_share(method, what, p)?;
        }
        if mixup == 0.0 && cutmix == 0.0 {
            return Ok(None);
        }
        let wrong = |message: &str| Err(Error::argument(method, message));
        if matches!(context.input, InputShape::Tokens(_)) {
            return wrong("texts cannot be mixed: set mixup and cutmix to 0");
        }
        if context.labels.contains(&HIDDEN) {
            return wrong("mixup and cutmix ask for the labels of all images: set data.labels_per_class to 0, or both of them");
        }
        let rule = Rule { seed: context.seed, mixup, cutmix, prob, switch_prob };
        Ok(Some(Self { rule, step: context.clock.step.scalar(), classes: context.classes, label_smoothing }))
    }

    /// Images `[N, H, W, C]` mixed with those of the batch read backwards, and their labels as
    /// probabilities `[N, classes]`.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn mix(&self, images: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        let (rule, size) = (self.rule, [images.shape().dim(1), images.shape().dim(2)]);
        let drawn = self.step.map(move |step| rule.drawn(step, size));
        let area = [0, 1, 2, 3].map(|side| drawn.map(move |drawn| drawn.area.get(side).copied().unwrap_or(0)));
        let mixed = images.mix_images(&images.flip(&[0])?, MixImages { lam: drawn.map(|drawn| drawn.outside), area })?;
        let target = MixupTarget { classes: self.classes, lam: drawn.map(|drawn| drawn.lam), label_smoothing: self.label_smoothing };
        Ok((mixed, labels.mixup_target(&labels.flip(&[0])?, target)?))
    }
}

impl Rule {
    /// For images of `[height, width]`.
    fn drawn(&self, step: u64, [height, width]: [usize; 2]) -> Drawn {
        let mut stream = Stream::keyed(self.seed, Purpose::Mix.key(), step as u32);
        let [whether, which] = [stream.uniform(), stream.uniform()];
        if whether >= self.prob {
            return Drawn { lam: 1.0, outside: 1.0, area: [0; 4] };
        }
        let cuts = if self.mixup > 0.0 && self.cutmix > 0.0 { which < self.switch_prob } else { self.cutmix > 0.0 };
        let lam = beta(&mut stream, f64::from(if cuts { self.cutmix } else { self.mixup }));
        if !cuts {
            return Drawn { lam: lam as f32, outside: lam as f32, area: [0; 4] };
        }
        let mut side = |pixels: usize| {
            let cut = (pixels as f64 * (1.0 - lam).sqrt()) as i64;
            let centre = i64::from(stream.below(pixels as u32));
            [centre - cut / 2, centre + (cut + 1) / 2].map(|edge| edge.clamp(0, pixels as i64) as u32)
        };
        let ([top, bottom], [left, right]) = (side(height), side(width));
        // What the edges of the image cut off is the image's own again.
        let other = f64::from((bottom - top) * (right - left)) / (height * width).max(1) as f64;
        Drawn { lam: (1.0 - other) as f32, outside: 1.0, area: [left, top, right, bottom] }
    }
}

/// A number from Beta(alpha, alpha): the share of one of two gamma numbers in their sum, by
/// logarithms, since those of a small alpha leave any float.
fn beta(stream: &mut Stream, alpha: f64) -> f64 {
    let [own, other] = [log_gamma_number(stream, alpha), log_gamma_number(stream, alpha)];
    1.0 / (1.0 + (other - own).exp())
}

/// The logarithm of a number from Gamma(alpha, 1) (Marsaglia and Tsang, "A simple method for
/// generating gamma variables", 2000): theirs is for an alpha of at least 1, and a power of a uniform
/// number leads from alpha + 1 to alpha.
fn log_gamma_number(stream: &mut Stream, alpha: f64) -> f64 {
    // Half a step up, so that no logarithm sees 0.
    let log_uniform = |stream: &mut Stream| ((f64::from(stream.next_u32()) + 0.5) / 4_294_967_296.0).ln();
    let power = log_uniform(stream) / alpha;
    let (d, power) = if alpha < 1.0 { (alpha + 2.0 / 3.0, power) } else { (alpha - 1.0 / 3.0, 0.0) };
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = f64::from(stream.normal());
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && log_uniform(stream) < 0.5 * x * x + d - d * v + d * v.ln() {
            return d.ln() + v.ln() + power;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const COUNT: u64 = 8192;

    fn rule(mixup: f32, cutmix: f32) -> Rule {
        Rule { seed: 7, mixup, cutmix, prob: 1.0, switch_prob: 0.5 }
    }

    fn lams(rule: Rule) -> Vec<f64> {
        (0..COUNT).map(|step| f64::from(rule.drawn(step, [224, 224]).lam)).collect()
    }

    /// Mean 1/2 and variance 1 / (8 alpha + 4), by the standard errors of both.
    #[test]
    fn lambda_has_the_moments_of_beta() {
        for alpha in [0.1f32, 0.2, 0.8, 1.0, 2.0, 30.0] {
            let lams = lams(rule(alpha, 0.0));
            assert!(lams.iter().all(|lam| (0.0..=1.0).contains(lam)));
            let n = COUNT as f64;
            let mean = lams.iter().sum::<f64>() / n;
            let squares: Vec<f64> = lams.iter().map(|lam| (lam - 0.5).powi(2)).collect();
            let (variance, wanted) = (squares.iter().sum::<f64>() / n, 1.0 / (8.0 * f64::from(alpha) + 4.0));
            let spread = (squares.iter().map(|s| (s - variance).powi(2)).sum::<f64>() / n / n).sqrt();
            assert!((mean - 0.5).abs() < 5.0 * (wanted / n).sqrt(), "alpha {alpha}: mean {mean}");
            assert!((variance - wanted).abs() < 5.0 * spread, "alpha {alpha}: variance {variance}, expected {wanted}");
        }
        // Evenly: of 15 degrees of freedom, one in a thousand is above 37.7.
        let mut counts = [0f64; 16];
        lams(rule(1.0, 0.0)).iter().for_each(|lam| counts[((lam * 16.0) as usize).min(15)] += 1.0);
        let expected = COUNT as f64 / 16.0;
        let statistic: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        assert!(statistic < 37.7, "{statistic}");
        // Concentrations at the limits leave no number behind.
        for alpha in [f32::MIN_POSITIVE, 1e-3, 1e3] {
            assert!(lams(rule(alpha, 0.0)).iter().all(|lam| (0.0..=1.0).contains(lam)), "{alpha}");
        }
    }

    #[test]
    fn a_box_leaves_the_share_that_it_says() {
        let whole = rule(0.0, 1.0);
        let mut cut_off = 0;
        for step in 0..COUNT {
            let Drawn { lam, outside, area: [left, top, right, bottom] } = whole.drawn(step, [24, 40]);
            assert!(outside == 1.0 && left <= right && right <= 40 && top <= bottom && bottom <= 24);
            let share = f64::from((right - left) * (bottom - top)) / 960.0;
            assert!((f64::from(lam) + share - 1.0).abs() < 1e-6, "step {step}");
            cut_off += usize::from(left == 0 || right == 40);
        }
        assert!(cut_off > 0 && cut_off < COUNT as usize);
    }

    #[test]
    fn chances_are_those_that_were_asked_for() {
        let drawn = |rule: Rule| (0..COUNT).map(move |step| rule.drawn(step, [32, 32])).collect::<Vec<_>>();
        let likely = |count: usize, p: f64| (count as f64 - COUNT as f64 * p).abs() < 5.0 * (COUNT as f64 * p * (1.0 - p)).sqrt();
        let some = drawn(Rule { prob: 0.25, switch_prob: 0.75, ..rule(1.0, 1.0) });
        assert!(likely(some.iter().filter(|drawn| drawn.lam < 1.0 && drawn.outside < 1.0).count(), 0.0625));
        // A box of no pixels is none: one in 32 * 32 or so.
        let boxes = some.iter().filter(|drawn| drawn.area != [0; 4]).count();
        assert!(likely(boxes, 0.1875), "{boxes}");
        assert_eq!(drawn(rule(1.0, 1.0)), drawn(rule(1.0, 1.0)));
        assert_ne!(drawn(rule(1.0, 1.0))[..9], drawn(Rule { seed: 8, ..rule(1.0, 1.0) })[..9]);
    }
}

//! A random box of the image is erased (Zhong et al., "Random erasing data augmentation", 2017,
//! arXiv:1708.04896).

use serde::{Deserialize, Serialize};

use super::{
    Draws, bad_drawn, below, between, check_drawn, check_records, images_of, range, sample_draws, sample_inputs, samples_of, stage, unit,
};
use crate::error::{Error, Result, require_share, require_within};
use crate::gpu::rounds;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample};
use crate::ops::{Array, Attributes, Cost, Operator, exactly};
use crate::params;
use crate::tensor::random::{threefry2x32, uniform_from_bits};
use crate::tensor::{Spec, Tensor};

kernels!(RANDOM_ERASING = "augment/random_erasing");

/// The tries that a box has to fit into the image.
const TRIES: u32 = 10;

/// What an erased pixel becomes; in recipes a number, or `"random"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or \"random\"")]
pub enum ErasingValue {
    /// This number, in all channels.
    Number(f32),
    /// Standard normal numbers, each channel of each pixel its own.
    Noise(Noisy),
}

/// The word for [`ErasingValue::Noise`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noisy {
    /// `"random"`, as torchvision says.
    Random,
}

impl Default for ErasingValue {
    fn default() -> Self {
        Self::Number(0.0)
    }
}

impl ErasingValue {
    /// The number; none of noise.
    fn number(self) -> Option<f32> {
        match self {
            Self::Number(number) => Some(number),
            Self::Noise(Noisy::Random) => None,
        }
    }
}

/// A random box of an image is erased with chance `p`: torchvision's `RandomErasing`, and timm's
/// with mode `const` or `pixel`.
///
/// The box has an area of `scale` times the image's, uniform, and an aspect ratio (height / width)
/// uniform in its logarithm; both of its sides are shorter than the image's. Ten boxes are tried;
/// where none fits, nothing is erased. A fourth channel stays as it is. Where rounding a box's side
/// to a pixel is a near tie, adapters may differ by that pixel. Published recipes erase after
/// normalising, so 0 is the mean colour there and noise is as strong as the images.
///
/// `draws` `[N, 8]`: first column and row, one past the last column and row, zeros for an image that
/// stays whole; the noise's key, 16 bits a number.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomErasing {
    /// The chance of an image to be erased.
    pub p: f32,
    /// Least and greatest share of the area, within 0..=1.
    pub scale: [f32; 2],
    /// Least and greatest height / width.
    pub ratio: [f32; 2],
    /// What is written.
    pub value: ErasingValue,
    /// Where the random numbers come from.
    pub draws: Draws,
}

impl RandomErasing {
    /// 2 % to 33 % of the area, torchvision's default.
    pub const SCALE: [f32; 2] = [0.02, 0.33];
    /// Aspect ratios from 0.3 to 3.3, torchvision's default.
    pub const RATIO: [f32; 2] = [0.3, 3.3];

    fn check(&self) -> Result<()> {
        let ([low, high], [thin, wide]) = (self.scale, self.ratio);
        require_share(self.name(), "p", self.p)?;
        require_within(self.name(), "the greatest scale", high, [0.0, 1.0])?;
        require_within(self.name(), "the least scale", low, [0.0, high])?;
        require_within(self.name(), "the least ratio", thin, [1e-3, 1e3])?;
        require_within(self.name(), "the greatest ratio", wide, [thin, 1e3])?;
        require_within(self.name(), "value", self.value.number().unwrap_or(0.0), [-1e6, 1e6]).map(drop)
    }

    fn record(&self, [h, w]: [usize; 2], bits: &dyn Fn(u32) -> [u32; 2]) -> Vec<f64> {
        let (height, width) = (h as f64, w as f64);
        let logarithms = self.ratio.map(f32::ln);
        let sides = (1..=TRIES).map(|block| {
            let [area, ratio] = bits(block);
            let (area, ratio) = (between(area, self.scale) * height * width, between(ratio, logarithms).exp());
            ((area / ratio).sqrt().round_ties_even(), (area * ratio).sqrt().round_ties_even())
        });
        let fitting = sides.into_iter().find(|(x, y)| *x < width && *y < height);
        let ([whether, _], [left, top], [a, b]) = (bits(0), bits(TRIES + 1), bits(TRIES + 2));
        let mut record = match fitting.filter(|_| unit(whether) < f64::from(self.p)) {
            Some((x, y)) => {
                let (left, top) = (below(left, w - x as usize + 1) as f64, below(top, h - y as usize + 1) as f64);
                vec![left, top, left + x, top + y]
            }
            None => vec![0.0; 4],
        };
        record.extend([a & 0xffff, a >> 16, b & 0xffff, b >> 16].map(f64::from));
        record
    }

    /// Does to `images` `[N, H, W, C]` what `draws` `[N, 8]` say: what was drawn before, or chosen
    /// by hand.
    ///
    /// # Errors
    /// Anything but f32 images with a record each; settings outside their limits.
    pub fn replay(&self, images: &Tensor, draws: &Tensor) -> Result<Tensor> {
        self.check()?;
        let [_, h, w, c] = check_records(self.name(), images, draws, 8)?;
        let y = Tensor::empty(images.gpu(), images.shape(), images.dtype())?;
        let (pixels, number) = (y.numel() / c, self.value.number());
        let launch = stage(&RANDOM_ERASING, images, c).define("NOISE", number.is_none()).write(&y).read(draws);
        launch.params(params![pixels, h, w, number.unwrap_or(0.0)]).invocations(pixels)?;
        Ok(y)
    }
}

/// The three normal numbers of a pixel, by the key of its image's record.
fn noise(record: &[f64], place: usize) -> [f64; 3] {
    let [.., a, b, c, d] = record else { return [f64::NAN; 3] };
    let key = [*a as u32 | (*b as u32) << 16, *c as u32 | (*d as u32) << 16];
    let pair = |number| {
        let [first, second] = threefry2x32(key, [place as u32, number]);
        let radius = (-2.0 * ((f64::from(first >> 9) + 0.5) / f64::from(1 << 23)).ln()).sqrt();
        let angle = (f64::from(uniform_from_bits(second)) - 0.5) * std::f64::consts::TAU;
        [radius * angle.cos(), radius * angle.sin()]
    };
    let ([red, green], [blue, _]) = (pair(0), pair(1));
    [red, green, blue]
}

impl Operator for RandomErasing {
    fn name(&self) -> &str {
        "random_erasing"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [n, h, w, c] = check_drawn(self.name(), inputs, &self.draws)?;
        self.check()?;
        Ok(vec![Spec::f32([n, h, w, c]), Spec::f32([n, 8])])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [images, indices] = exactly(self.name(), inputs)?;
        let (h, w) = (images.shape().dim(1), images.shape().dim(2));
        let ([low, high], [thin, wide]) = (self.scale, self.ratio);
        let params = params![h, w, low, high, thin.ln(), wide.ln(), self.p];
        let draws = self.draws.launch(&RANDOM_ERASING, indices, 8, params, rounds(10, 0))?;
        Ok(vec![self.replay(images, &draws)?, draws])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [images, indices] = exactly(self.name(), inputs)?;
        let (h, w) = (images.shape.dim(1), images.shape.dim(2));
        let draws = self.draws.reference(indices, 8, |bits| self.record([h, w], bits));
        let y = Array::from_fn(&images.shape, |index| {
            let [n, y, x, channel] = index else { return f64::NAN };
            let side = |at: usize, axis: usize| (draws.at(&[*n, axis])..draws.at(&[*n, axis + 2])).contains(&(at as f64));
            if *channel > 2 || !(side(*x, 0) && side(*y, 1)) {
                return images.at(index);
            }
            let record = draws.rows().nth(*n).unwrap_or_default();
            let noisy = || noise(record, y * w + x).get(*channel).copied().unwrap_or(f64::NAN);
            self.value.number().map_or_else(noisy, f64::from)
        });
        Ok(vec![y, draws])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 2.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let value = match attributes.number_or("value", 0.0) {
        Ok(number) => ErasingValue::Number(number as f32),
        Err(_) if attributes.text_or("value", "")? == "random" => ErasingValue::Noise(Noisy::Random),
        Err(_) => return Err(Error::argument("random_erasing", "value must be a number or \"random\"")),
    };
    Ok(Box::new(RandomErasing {
        p: attributes.number_or("p", 0.5)? as f32,
        scale: range(attributes, "scale_low", "scale_high", RandomErasing::SCALE)?,
        ratio: range(attributes, "ratio_low", "ratio_high", RandomErasing::RATIO)?,
        value,
        draws: Draws::from_attributes(attributes)?,
    }))
}

pub(super) fn entry() -> Entry {
    let make = |value, draws| RandomErasing { p: 0.7, scale: RandomErasing::SCALE, ratio: RandomErasing::RATIO, value, draws };
    let constant = move |draws| make(ErasingValue::Number(0.25), draws);
    Entry {
        name: "random_erasing",
        module: module_path!(),
        inputs: &["images", "indices"],
        outputs: &["y", "draws"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(move || {
            let mut samples = samples_of(|| constant(sample_draws()));
            samples.extend(samples_of(|| make(ErasingValue::Noise(Noisy::Random), sample_draws())));
            // A box as large as the image never fits.
            let whole = RandomErasing { p: 1.0, scale: [1.0, 1.0], ratio: [1.0, 1.0], ..constant(sample_draws()) };
            samples.push(Sample::new(whole, sample_inputs([3, 7, 7, 3])));
            samples.push(Sample::new(constant(sample_draws()), sample_inputs([5, 1, 1, 3])));
            samples
        }),
        bad: Box::new(move || {
            let mut bad = bad_drawn(constant);
            let good = constant(sample_draws());
            let cases = [
                (RandomErasing { p: 1.5, ..good.clone() }, "p must lie in 0..=1, found 1.5"),
                (RandomErasing { scale: [0.5, 0.2], ..good.clone() }, "the least scale must lie in 0..=0.2, found 0.5"),
                (RandomErasing { scale: [0.5, 2.0], ..good.clone() }, "the greatest scale"),
                (RandomErasing { ratio: [0.0, 1.0], ..good.clone() }, "the least ratio"),
                (RandomErasing { ratio: [1.0, 0.5], ..good.clone() }, "the greatest ratio"),
                (RandomErasing { value: ErasingValue::Number(f32::NAN), ..good.clone() }, "value must lie in"),
            ];
            bad.extend(cases.map(|(erasing, words)| Bad::new(erasing, sample_inputs([2, 5, 5, 3]), words)));
            bad
        }),
    }
}

impl Tensor {
    /// Images `[N, H, W, C]` with a random box erased: see [`RandomErasing`].
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; ranges that are empty or outside their
    /// limits.
    pub fn random_erasing(&self, indices: &Tensor, erasing: RandomErasing) -> Result<Tensor> {
        images_of(erasing, &[self, indices])
    }
}

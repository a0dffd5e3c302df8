//! Colour: jitter, grey and solarize, in one pass over the image. torchvision's ColorJitter,
//! RandomGrayscale and RandomSolarize on floats in 0..1.

mod launch;
mod spec;

use serde::{Deserialize, Serialize};

use super::{Draws, check_drawn, choice, images_of};
use crate::error::{Result, require_share, require_within};
use crate::ops::entry::Entry;
use crate::ops::{Array, Attributes, Cost, Operator, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

/// What brightness, contrast and saturation are; hue is the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JitterStyle {
    /// torchvision's `ColorJitter`: as [`Color`] says.
    #[default]
    Torchvision,
    /// google-research/simclr, `data_util.py` (`simclrv2`): contrast about the mean of each
    /// channel, saturation in HSV.
    Simclr,
    /// deepmind-research/byol, `utils/augmentations.py`: as `Simclr`, with brightness added,
    /// uniform in `-strength..strength`.
    Byol,
}

/// Jitter with chance `p`, then grey with chance `grayscale`, then solarize with chance `solarize`.
///
/// Jitter does four things in random order, each limited to 0..1: `f x + (1 - f) base` with base
/// black (brightness), the image's mean grey (contrast) or the pixel's grey (saturation), `f`
/// uniform in `max(0, 1 - strength)..1 + strength`; and hue turned by a part of the circle uniform
/// in `-hue..hue`. Grey is 0.299 R + 0.587 G + 0.114 B. Grey images have neither saturation nor
/// hue. Solarize turns values from `threshold` up into 1 - x. [`JitterStyle`] has the variants.
///
/// `draws` `[N, 8]`: brightness, contrast, saturation, hue; the order (two bits each, the first
/// lowest: 0 to 3 in this order; -1 without jitter), greyed, solarized, hue's slot in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Color {
    /// Whose jitter it is.
    pub style: JitterStyle,
    /// Strength of brightness.
    pub brightness: f32,
    /// Strength of contrast.
    pub contrast: f32,
    /// Strength of saturation.
    pub saturation: f32,
    /// Largest turn of the hue, as a part of the circle, at most 0.5.
    pub hue: f32,
    /// The chance of an image to be jittered.
    pub p: f32,
    /// The chance of an image to become grey.
    pub grayscale: f32,
    /// The chance of an image to be solarized.
    pub solarize: f32,
    /// The least value that solarize turns.
    pub threshold: f32,
    /// Where the random numbers come from.
    pub draws: Draws,
}

impl Color {
    /// Jitter with chance `p` alone; the strengths of brightness, contrast, saturation and hue.
    pub fn jitter([brightness, contrast, saturation, hue]: [f32; 4], p: f32, draws: Draws) -> Self {
        Self { brightness, contrast, saturation, hue, p, draws, ..Self::default() }
    }

    fn jitters(&self) -> bool {
        self.p > 0.0
    }

    /// The range of brightness: factors, or what is added.
    fn brightnesses(&self) -> [f32; 2] {
        match self.style {
            JitterStyle::Byol => [-self.brightness, self.brightness],
            _ => [(1.0 - self.brightness).max(0.0), 1.0 + self.brightness],
        }
    }
}

impl Operator for Color {
    fn name(&self) -> &str {
        match (self.jitters(), self.solarize > 0.0) {
            (true, _) => "color_jitter",
            (false, true) => "solarize",
            (false, false) => "grayscale",
        }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let name = self.name();
        let [n, h, w, c] = check_drawn(name, inputs, &self.draws)?;
        for (what, strength) in [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)] {
            require_within(name, what, strength, [0.0, 1e3])?;
        }
        require_within(name, "hue", self.hue, [0.0, 0.5])?;
        for (what, p) in [("p", self.p), ("grayscale", self.grayscale), ("solarize", self.solarize)] {
            require_share(name, what, p)?;
        }
        require_within(name, "threshold", self.threshold, [-1e6, 1e6])?;
        Ok(vec![Spec::f32([n, h, w, c]), Spec::f32([n, 8])])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [images, indices] = exactly(self.name(), inputs)?;
        let [low, high] = self.brightnesses();
        let strengths = params![low, high, self.contrast, self.saturation, self.hue, self.p, self.grayscale, self.solarize];
        let draws = self.draws.launch(&launch::COLOR, indices, 8, strengths, 0)?;
        Ok(vec![launch::apply(self, images, &draws)?, draws])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        spec::reference(self, inputs)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, if self.jitters() { 60.0 } else { 4.0 })
    }
}

/// The colour operator called `name`, on its defaults or the given attributes.
fn build(name: &str, attributes: &Attributes) -> Result<Color> {
    let number = |key, default| Ok(attributes.number_or(key, default)? as f32);
    let draws = Draws::from_attributes(attributes)?;
    Ok(match name {
        "color_jitter" => {
            let strengths = [number("brightness", 0.0)?, number("contrast", 0.0)?, number("saturation", 0.0)?, number("hue", 0.0)?];
            let styles = [("torchvision", JitterStyle::Torchvision), ("simclr", JitterStyle::Simclr), ("byol", JitterStyle::Byol)];
            let style = choice(attributes, "style", styles)?;
            Color { style, grayscale: number("grayscale", 0.0)?, ..Color::jitter(strengths, number("p", 1.0)?, draws) }
        }
        "solarize" => Color { solarize: number("p", 1.0)?, threshold: number("threshold", 0.5)?, draws, ..Color::default() },
        _ => Color { grayscale: number("p", 1.0)?, draws, ..Color::default() },
    })
}

pub(super) fn entries() -> Vec<Entry> {
    let entry = |name: &'static str| Entry {
        name,
        module: module_path!(),
        inputs: &["images", "indices"],
        outputs: &["y", "draws"],
        kernels: &[launch::KERNELS],
        build: Box::new(move |attributes: &Attributes| Ok(Box::new(build(name, attributes)?))),
        samples: Box::new(move || spec::samples(name)),
        bad: Box::new(move || spec::bad(name)),
    };
    ["color_jitter", "grayscale", "solarize"].map(entry).into()
}

impl Tensor {
    /// Images `[N, H, W, C]` with jittered, greyed or solarized colours: see [`Color`].
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; strengths and chances outside their limits.
    pub fn color_jitter(&self, indices: &Tensor, color: Color) -> Result<Tensor> {
        images_of(color, &[self, indices])
    }

    /// Images `[N, H, W, C]` turned grey with chance `p`; they keep their channels.
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; a chance outside 0..=1.
    pub fn grayscale(&self, indices: &Tensor, p: f32, draws: Draws) -> Result<Tensor> {
        images_of(Color { grayscale: p, draws, ..Color::default() }, &[self, indices])
    }

    /// Images `[N, H, W, C]` where, with chance `p`, values from `threshold` up become 1 - x.
    ///
    /// # Errors
    /// Anything but f32 images with an i32 index each; a chance outside 0..=1.
    pub fn solarize(&self, indices: &Tensor, threshold: f32, p: f32, draws: Draws) -> Result<Tensor> {
        images_of(Color { solarize: p, threshold, draws, ..Color::default() }, &[self, indices])
    }
}

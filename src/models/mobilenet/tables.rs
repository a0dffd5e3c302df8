//! The tables of the published networks.

use super::stages::{Scaling, SqueezeRule, expand};
use super::{Head, MobileNetConfig, Style};
use crate::error::{Error, Result};
use crate::ops::activation::Activation;

/// MobileNetV1 (Howard et al. 2017, arXiv:1704.04861).
const V1: [&[&str]; 5] = [&["dsa_c64"], &["dsa_r2_s2_c128"], &["dsa_r2_s2_c256"], &["dsa_r6_s2_c512"], &["dsa_r2_s2_c1024"]];

/// MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), table 2.
const V2: [&[&str]; 7] = [
    &["ds_c16"],
    &["ir_r2_s2_e6_c24"],
    &["ir_r3_s2_e6_c32"],
    &["ir_r4_s2_e6_c64"],
    &["ir_r3_e6_c96"],
    &["ir_r3_s2_e6_c160"],
    &["ir_e6_c320"],
];

/// MobileNetV3 (Howard et al. 2019, arXiv:1905.02244), table 1.
const V3_LARGE: [&[&str]; 7] = [
    &["ds_c16_nre"],
    &["ir_s2_e4_c24_nre", "ir_e3_c24_nre"],
    &["ir_r3_k5_s2_e3_c40_se0.25_nre"],
    &["ir_s2_e6_c80", "ir_e2.5_c80", "ir_r2_e2.3_c80"],
    &["ir_r2_e6_c112_se0.25"],
    &["ir_r3_k5_s2_e6_c160_se0.25"],
    &["cn_k1_c960"],
];

/// MobileNetV3, table 2.
const V3_SMALL: [&[&str]; 6] = [
    &["ds_s2_c16_se0.25_nre"],
    &["ir_s2_e4.5_c24_nre", "ir_e3.67_c24_nre"],
    &["ir_k5_s2_e4_c40_se0.25", "ir_r2_k5_e6_c40_se0.25"],
    &["ir_r2_k5_e3_c48_se0.25"],
    &["ir_r3_k5_s2_e6_c96_se0.25"],
    &["cn_k1_c576"],
];

/// EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946), table 1.
const B0: [&[&str]; 7] = [
    &["ds_c16_se0.25"],
    &["ir_r2_s2_e6_c24_se0.25"],
    &["ir_r2_k5_s2_e6_c40_se0.25"],
    &["ir_r3_s2_e6_c80_se0.25"],
    &["ir_r3_k5_e6_c112_se0.25"],
    &["ir_r4_k5_s2_e6_c192_se0.25"],
    &["ir_e6_c320_se0.25"],
];

/// The lite variants: no squeeze-and-excitation, ReLU6, ends that are not scaled.
const LITE: [&[&str]; 7] = [
    &["ds_c16"],
    &["ir_r2_s2_e6_c24"],
    &["ir_r2_k5_s2_e6_c40"],
    &["ir_r3_s2_e6_c80"],
    &["ir_r3_k5_e6_c112"],
    &["ir_r4_k5_s2_e6_c192"],
    &["ir_e6_c320"],
];

/// EfficientNetV2 (Tan and Le 2021, arXiv:2104.00298), table 4.
const V2_S: [&[&str]; 6] = [
    &["cn_r2_c24_skip"],
    &["er_r4_s2_e4_c48"],
    &["er_r4_s2_e4_c64"],
    &["ir_r6_s2_e4_c128_se0.25"],
    &["ir_r9_e6_c160_se0.25"],
    &["ir_r15_s2_e6_c256_se0.25"],
];

const V2_M: [&[&str]; 7] = [
    &["cn_r3_c24_skip"],
    &["er_r5_s2_e4_c48"],
    &["er_r5_s2_e4_c80"],
    &["ir_r7_s2_e4_c160_se0.25"],
    &["ir_r14_e6_c176_se0.25"],
    &["ir_r18_s2_e6_c304_se0.25"],
    &["ir_r5_e6_c512_se0.25"],
];

const V2_L: [&[&str]; 7] = [
    &["cn_r4_c32_skip"],
    &["er_r7_s2_e4_c64"],
    &["er_r7_s2_e4_c96"],
    &["ir_r10_s2_e4_c192_se0.25"],
    &["ir_r19_e6_c224_se0.25"],
    &["ir_r25_s2_e6_c384_se0.25"],
    &["ir_r7_e6_c640_se0.25"],
];

/// Width, depth and resolution of B0 to B7, rounded by their authors (tensorflow/tpu,
/// efficientnet_builder.py).
pub const EFFICIENTNET: [(f64, f64, usize); 8] = [
    (1.0, 1.0, 224),
    (1.0, 1.1, 240),
    (1.1, 1.2, 260),
    (1.2, 1.4, 300),
    (1.4, 1.8, 380),
    (1.6, 2.2, 456),
    (1.8, 2.6, 528),
    (2.0, 3.1, 600),
];

/// Width, depth and resolution of lite0 to lite4.
pub const EFFICIENTNET_LITE: [(f64, f64, usize); 5] = [(1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300)];

impl MobileNetConfig {
    /// A network of your own from a table in the notation of [`stages`](super::stages), with so
    /// many channels in its stem and its head (0: none).
    ///
    /// # Errors
    /// [`Error::Argument`] naming a word that cannot be read, or a width or depth outside 0.01 to 100.
    pub fn from_stages(
        stages: &[&[&str]],
        [stem, head]: [usize; 2],
        scaling: Scaling,
        activation: Activation,
        rule: SqueezeRule,
    ) -> Result<Self> {
        for (name, value) in [("width", scaling.width), ("depth", scaling.depth)] {
            if !(0.01..=100.0).contains(&value) {
                return Err(Error::argument(name, format!("expected 0.01 to 100, found {value}")));
            }
        }
        Ok(Self {
            channels: 3,
            stem,
            stem_stride: 2,
            stages: expand(stages, stem, scaling, activation, rule)?,
            head: if head == 0 { Head::Pool } else { Head::Convolution(head) },
            style: Style { activation, ..Default::default() },
            drop_rate: 0.0,
        })
    }

    /// MobileNetV1 with ReLU6, as its authors' code and timm have it; their paper says ReLU.
    /// `width` is the paper's alpha.
    ///
    /// # Errors
    /// As [`Self::from_stages`].
    pub fn v1(width: f64) -> Result<Self> {
        let scaling = Scaling::width(width);
        Self::from_stages(&V1, [scaling.channels(32), 0], scaling, Activation::Relu6, SqueezeRule::Inputs)
    }

    /// MobileNetV2. Its head has at least 1280 channels. `depth` is 1 in the paper; timm's `110d`
    /// and `120d` scale it and keep the ends.
    ///
    /// # Errors
    /// As [`Self::from_stages`].
    pub fn v2(width: f64, depth: f64) -> Result<Self> {
        let scaling = Scaling { width, depth, keep_ends: depth != 1.0 };
        let ends = if scaling.keep_ends { [32, 1280] } else { [scaling.channels(32), scaling.channels(1280).max(1280)] };
        Self::from_stages(&V2, ends, scaling, Activation::Relu6, SqueezeRule::Inputs)
    }

    /// MobileNetV3, large or small.
    ///
    /// # Errors
    /// As [`Self::from_stages`].
    pub fn v3(large: bool, width: f64) -> Result<Self> {
        let (stages, head): (&[&[&str]], _) = if large { (&V3_LARGE, 1280) } else { (&V3_SMALL, 1024) };
        let scaling = Scaling::width(width);
        // timm keeps the stem of the narrow ones.
        let stem = if width < 0.75 { 16 } else { scaling.channels(16) };
        let config = Self::from_stages(stages, [stem, 0], scaling, Activation::Hardswish, SqueezeRule::ExpandedHard)?;
        Ok(Self { head: Head::PoolFirst(head), ..config })
    }

    /// EfficientNet-B0 with its channels and repeats scaled. [`EFFICIENTNET`] has the factors of B0
    /// to B7.
    ///
    /// # Errors
    /// As [`Self::from_stages`].
    pub fn efficientnet(width: f64, depth: f64) -> Result<Self> {
        let scaling = Scaling { width, depth, keep_ends: false };
        Self::from_stages(&B0, [scaling.channels(32), scaling.channels(1280)], scaling, Activation::Silu, SqueezeRule::Inputs)
    }

    /// EfficientNet-Lite0 with its channels and repeats scaled, but for its ends.
    /// [`EFFICIENTNET_LITE`] has the factors of lite0 to lite4.
    ///
    /// # Errors
    /// As [`Self::from_stages`].
    pub fn efficientnet_lite(width: f64, depth: f64) -> Result<Self> {
        let scaling = Scaling { width, depth, keep_ends: true };
        Self::from_stages(&LITE, [32, 1280], scaling, Activation::Relu6, SqueezeRule::Inputs)
    }

    /// EfficientNetV2 `s`, `m` or `l`, with its channels scaled.
    ///
    /// # Errors
    /// [`Error::Argument`] for another size; as [`Self::from_stages`].
    pub fn efficientnet_v2(size: &str, width: f64) -> Result<Self> {
        let (stages, stem): (&[&[&str]], _) = match size {
            "s" => (&V2_S, 24),
            "m" => (&V2_M, 24),
            "l" => (&V2_L, 32),
            _ => return Err(Error::argument("efficientnetv2", format!("there is no \"{size}\"; there are s, m, l"))),
        };
        let scaling = Scaling::width(width);
        Self::from_stages(stages, [scaling.channels(stem), scaling.channels(1280)], scaling, Activation::Silu, SqueezeRule::Inputs)
    }

    /// As TensorFlow has it: SAME padding, batch norm with eps 1e-3 (timm's `tf_` models).
    #[must_use]
    pub fn as_tensorflow(mut self) -> Self {
        self.style = Style { same_padding: true, eps: 1e-3, ..self.style };
        self
    }
}

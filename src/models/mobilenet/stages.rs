//! The tables of mobile networks, written as timm writes them: one list of words a stage, one word
//! a row of the paper's table.
//!
//! `ir_r2_k3_s2_e6_c24_se0.25` is: inverted residual, 2 repeats, kernel 3, stride 2 in the first,
//! expansion 6, 24 channels, squeeze to a quarter. Kinds: `ds` depthwise separable, `dsa` the same
//! with an activation behind and no skip (MobileNetV1), `ir` inverted residual, `er` the same with
//! its expansion and depthwise convolution fused (EfficientNetV2), `cn` a plain convolution. `nre`
//! stands for ReLU instead of the network's activation, `skip` lets a plain convolution be skipped.

use super::block::{BlockConfig, Kind};
use crate::error::{Error, Result};
use crate::ops::activation::Activation;

/// Channels rounded to a multiple of 8, but by no more than a tenth downwards (the rule of all
/// mobile networks).
pub fn round_channels(channels: f64) -> usize {
    let rounded = (((channels + 4.0) / 8.0) as usize).saturating_mul(8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded.saturating_add(8) } else { rounded }
}

/// How the published table becomes a smaller or larger network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Multiplies channels, which are then rounded by [`round_channels`].
    pub width: f64,
    /// Multiplies the repeats of each stage, rounded up.
    pub depth: f64,
    /// The repeats of the first and the last stage stay as they are (the lite variants).
    pub keep_ends: bool,
}

impl Scaling {
    /// Channels by `width` alone.
    pub fn width(width: f64) -> Self {
        Self { width, depth: 1.0, keep_ends: false }
    }

    /// Scaled channels.
    pub fn channels(&self, channels: usize) -> usize {
        round_channels(channels as f64 * self.width)
    }
}

/// How many channels squeeze-and-excitation has between its two convolutions, as a ratio of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SqueezeRule {
    /// Of the block's input, with a sigmoid: EfficientNet.
    #[default]
    Inputs,
    /// Of the expanded channels, rounded to 8, with ReLU and a hard sigmoid: MobileNetV3.
    ExpandedHard,
}

/// One row of a table.
struct Row {
    block: BlockConfig,
    repeats: usize,
    expansion: f64,
    squeeze: f64,
}

fn parse(word: &str, activation: Activation, rule: SqueezeRule) -> Result<Row> {
    let wrong = |what: &str| Error::argument("stages", format!("\"{word}\": {what}"));
    let mut parts = word.split('_');
    let kind = match parts.next() {
        Some("ds") => Kind::DepthwiseSeparable,
        Some("dsa") => Kind::DepthwiseSeparableActivated,
        Some("ir") => Kind::InvertedResidual,
        Some("er") => Kind::FusedResidual,
        Some("cn") => Kind::Convolution,
        _ => return Err(wrong("it must begin with ds, dsa, ir, er or cn")),
    };
    let skip = matches!(kind, Kind::DepthwiseSeparable | Kind::InvertedResidual | Kind::FusedResidual);
    let block = BlockConfig { kind, kernel: 3, stride: 1, expanded: 0, outputs: 0, squeezed: 0, rule, activation, skip, drop_path: 0.0 };
    let mut row = Row { block, repeats: 1, expansion: 1.0, squeeze: 0.0 };
    for part in parts {
        let split = part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len());
        let (key, value) = part.split_at(split);
        let count =
            || value.parse::<usize>().ok().filter(|n| (1..=1 << 16).contains(n)).ok_or_else(|| wrong(&format!("\"{part}\" needs a count")));
        let ratio =
            || value.parse::<f64>().ok().filter(|r| (0.0..=1e3).contains(r)).ok_or_else(|| wrong(&format!("\"{part}\" needs a ratio")));
        match key {
            "r" => row.repeats = count()?,
            "k" => row.block.kernel = count()?,
            "s" => row.block.stride = count()?,
            "c" => row.block.outputs = count()?,
            "e" => row.expansion = ratio()?,
            "se" => row.squeeze = ratio()?,
            "nre" => row.block.activation = Activation::Relu,
            "skip" => row.block.skip = true,
            _ => return Err(wrong(&format!("\"{part}\" is none of r, k, s, e, c, se, nre, skip"))),
        }
    }
    if row.block.outputs == 0 { Err(wrong("it has no channels (c)")) } else { Ok(row) }
}

/// The blocks of a network whose stem has `inputs` channels, by stage.
///
/// # Errors
/// [`Error::Argument`] naming a word that cannot be read.
pub fn expand(
    stages: &[&[&str]],
    mut inputs: usize,
    scaling: Scaling,
    activation: Activation,
    rule: SqueezeRule,
) -> Result<Vec<Vec<BlockConfig>>> {
    let last = stages.len().saturating_sub(1);
    let mut result = Vec::new();
    for (index, words) in stages.iter().enumerate() {
        let keep = scaling.keep_ends && (index == 0 || index == last);
        let mut blocks = Vec::new();
        for word in *words {
            let Row { block, repeats, expansion, squeeze } = parse(word, activation, rule)?;
            let repeats = if keep { repeats } else { (repeats as f64 * scaling.depth).ceil() as usize };
            let outputs = scaling.channels(block.outputs);
            for repeat in 0..repeats {
                let expanded = match block.kind {
                    Kind::InvertedResidual | Kind::FusedResidual => round_channels(inputs as f64 * expansion),
                    _ => inputs,
                };
                let squeezed = match rule {
                    _ if squeeze == 0.0 => 0,
                    SqueezeRule::Inputs => ((inputs as f64 * squeeze).round() as usize).max(1),
                    SqueezeRule::ExpandedHard => round_channels(expanded as f64 * squeeze),
                };
                let stride = if repeat == 0 { block.stride } else { 1 };
                blocks.push(BlockConfig {
                    stride,
                    expanded,
                    outputs,
                    squeezed,
                    skip: block.skip && stride == 1 && inputs == outputs,
                    ..block
                });
                inputs = outputs;
            }
        }
        result.push(blocks);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_bad_ones_named() {
        let blocks =
            expand(&[&["ir_r2_k5_s2_e6_c24_se0.25_nre"]], 16, Scaling::width(1.0), Activation::Hardswish, SqueezeRule::Inputs).unwrap();
        let [[first, second]] = blocks.iter().map(|b| <[BlockConfig; 2]>::try_from(b.clone()).unwrap()).collect::<Vec<_>>()[..] else {
            panic!()
        };
        assert_eq!((first.kernel, first.stride, first.expanded, first.squeezed, first.skip), (5, 2, 96, 4, false));
        assert_eq!((second.stride, second.expanded, second.squeezed, second.skip), (1, 144, 6, true));
        assert_eq!(first.activation, Activation::Relu);
        for bad in ["", "xx_c8", "ir_k3", "ir_c", "ir_c0", "ir_cx", "ir_c8_q2", "ir_c99999999", "ir_c8_e-1"] {
            let error = expand(&[&[bad]], 8, Scaling::width(1.0), Activation::Relu, SqueezeRule::Inputs).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{bad}\"")), "{error}");
        }
    }

    #[test]
    fn channels_are_rounded_as_published() {
        let rounded: Vec<usize> = [16.0 * 0.35, 32.0 * 0.35, 24.0 * 1.4, 1280.0 * 1.1, 8.0 * 0.1].map(round_channels).to_vec();
        assert_eq!(rounded, [8, 16, 32, 1408, 8]);
    }
}

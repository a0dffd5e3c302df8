//! How colours are changed: a pass for the mean of each image, and one over its pixels.

use super::super::stage;
use super::{Color, JitterStyle};
use crate::error::Result;
use crate::gpu::{Launch, rounds};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Tensor};

kernels!(COLOR = "augment/color");

/// A stage that jitters.
fn styled<'a>(color: &Color, launch: Launch<'a>) -> Launch<'a> {
    launch.define("TENSORFLOW", color.style != JitterStyle::Torchvision).define("ADDITIVE", color.style == JitterStyle::Byol)
}

/// The mean grey of each image where contrast's turn comes.
fn means(color: &Color, images: &Tensor, draws: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = [0, 1, 2, 3].map(|axis| images.shape().dim(axis));
    let means = Tensor::empty(images.gpu(), [n, 4], DType::F32)?;
    // More lanes where a walk over the image is too long for the usual ones.
    let walk = |lanes: usize| rounds((h * w).div_ceil(lanes), 0) + rounds(lanes, 0);
    let lanes = if images.gpu().capabilities().may_walk_exactly(walk(64)) { 64 } else { 256 };
    let launch = Launch::new(images.gpu(), &COLOR, "mean").define("STAGE", "mean").define("JITTER", true).define("CHANNELS", c as u32);
    let launch = styled(color, launch.define("LANES", lanes as u32)).read(images).write(&means).read(draws);
    launch.params(params![h * w]).walk(walk(lanes)).groups(n)?;
    Ok(means)
}

/// Does to each image what was drawn for it.
pub(super) fn apply(color: &Color, images: &Tensor, draws: &Tensor) -> Result<Tensor> {
    let [_, h, w, c] = [0, 1, 2, 3].map(|axis| images.shape().dim(axis));
    let y = Tensor::empty(images.gpu(), images.shape(), DType::F32)?;
    let pixels = y.numel() / c;
    let mut launch = styled(color, stage(&COLOR, images, c)).define("JITTER", color.jitters()).write(&y).read(draws);
    if color.jitters() {
        launch = launch.read(&means(color, images, draws)?);
    }
    launch.params(params![pixels, h * w, color.threshold]).invocations(pixels)?;
    Ok(y)
}

//! How RandAugment runs: for each operation in turn a pass for what it needs to know of each
//! image, and one over the pixels.

use super::super::{check_records, stage};
use super::{RandAugment, Sampling};
use crate::error::Result;
use crate::gpu::{Launch, rounds};
use crate::ops::Operator;
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Tensor};

kernels!(RAND_AUGMENT = "augment/rand_augment");

/// Numbers of an image's statistics, see the shader.
const STATISTICS: usize = 776;

/// What operation `number` of each image asks for.
fn statistics(augment: &RandAugment, images: &Tensor, draws: &Tensor, number: usize) -> Result<Tensor> {
    let [n, h, w, c] = [0, 1, 2, 3].map(|axis| images.shape().dim(axis));
    let statistics = Tensor::empty(images.gpu(), [n, STATISTICS], DType::F32)?;
    // More lanes where a walk over the image is too long for the usual ones.
    let walk = |lanes: usize| {
        let tables = rounds((256 * c.min(3)).div_ceil(lanes), 0) + 2 * rounds(256, 0);
        rounds((h * w).div_ceil(lanes), 0) + rounds(lanes, 0) + tables
    };
    let lanes = if images.gpu().capabilities().may_walk_exactly(walk(64)) { 64 } else { 256 };
    let launch = Launch::new(images.gpu(), &RAND_AUGMENT, "measure").define("STAGE", "measure").define("CHANNELS", c as u32);
    let launch = launch.define("LANES", lanes as u32).read(images).write(&statistics).read(draws);
    launch.params(params![h * w, augment.num_ops, number]).walk(walk(lanes)).groups(n)?;
    Ok(statistics)
}

/// Does to each image what was drawn for it.
pub(super) fn apply(augment: &RandAugment, images: &Tensor, draws: &Tensor) -> Result<Tensor> {
    let [_, h, w, c] = check_records(augment.name(), images, draws, 4 * augment.num_ops)?;
    let mut images = images.clone();
    for number in 0..augment.num_ops {
        let statistics = statistics(augment, &images, draws, number)?;
        let y = Tensor::empty(images.gpu(), images.shape(), DType::F32)?;
        let pixels = y.numel() / c;
        stage(&RAND_AUGMENT, &images, c)
            .define("BILINEAR", augment.sampling == Sampling::Bilinear)
            .write(&y)
            .read(draws)
            .read(&statistics)
            .params(params![pixels, h as i64, w as i64, augment.num_ops, number])
            .invocations(pixels)?;
        images = y;
    }
    Ok(images)
}

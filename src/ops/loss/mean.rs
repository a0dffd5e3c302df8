//! The second, tiny pass of a loss: the mean of its terms. No operator itself.

use crate::error::Result;
use crate::gpu::{Launch, rounds};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Tensor};

kernels!(MEAN = "loss/mean");

/// Terms of a mean that a workgroup adds up, 64 a lane.
const CHUNK: usize = 16_384;

/// The sum of `n` terms, the first at element `first` and then every `step`-th, over that of as
/// many weights from element `weights` on, or over `divisor`: the loss `[]`, and what the sum was
/// multiplied by `[1]`.
pub(crate) fn mean(
    terms: &Tensor,
    n: usize,
    [first, step]: [usize; 2],
    weights: Option<usize>,
    divisor: usize,
) -> Result<(Tensor, Tensor)> {
    let gpu = terms.gpu();
    let groups = n.div_ceil(CHUNK).max(1);
    let launch = Launch::new(gpu, &MEAN, "mean").define("PARTIAL", groups > 1).read(terms);
    let launch = launch
        .params(params![n, first, step, weights.is_some(), weights.unwrap_or(0), divisor.max(1) as f32, CHUNK])
        .walk(rounds(CHUNK / 256, 0));
    if groups > 1 {
        let partials = Tensor::empty(gpu, [groups, 2], DType::F32)?;
        launch.write(&partials).groups(groups)?;
        return mean(&partials, groups, [0, 2], weights.map(|_| 1), divisor);
    }
    let (loss, inverse) = (Tensor::empty(gpu, [], DType::F32)?, Tensor::empty(gpu, [1], DType::F32)?);
    launch.write(&loss).write(&inverse).groups(1)?;
    Ok((loss, inverse))
}

//! Which operator was the first to produce a NaN or an infinity? Tracing looks at every output as
//! it is made, which makes every operator wait for the device: switch it on
//! (`GpuOptions::trace_non_finite`) to search, not to train.

use crate::error::{Error, Result};
use crate::gpu::{Kernel, Launch, kernel, rounds};
use crate::params;
use crate::tensor::{DType, Tensor};

static COUNT: Kernel = kernel!("autograd/non_finite");
/// Elements that one invocation looks at.
const EACH: usize = 4096;

/// Fails where tracing is on and `tensor` holds a value that is not finite.
pub(crate) fn check_finite(operator: &str, what: &str, tensor: &Tensor) -> Result<()> {
    if !tensor.gpu().options().trace_non_finite || !tensor.dtype().is_float() {
        return Ok(());
    }
    match count_non_finite(tensor)? {
        0 => Ok(()),
        bad => Err(Error::NonFinite {
            operator: operator.into(),
            message: format!("{what} has {bad} non-finite values of {}, and everything before it was finite", tensor.numel()),
        }),
    }
}

/// How many elements are NaN or infinite. Waits for the device.
fn count_non_finite(tensor: &Tensor) -> Result<i64> {
    let mut total = 0;
    for range in tensor.bindable() {
        let (part, parts) = (tensor.rows(&range, tensor.numel())?, range.len().div_ceil(EACH));
        let counts = Tensor::empty(tensor.gpu(), [parts], DType::I32)?;
        Launch::new(tensor.gpu(), &COUNT, "count")
            .storage(tensor.dtype().storage())
            .read(&part)
            .write(&counts)
            .params(params![range.len(), parts])
            .walk(rounds(range.len().div_ceil(parts.max(1)), 0))
            .invocations(parts)?;
        total += counts.to_vec::<i32>()?.into_iter().map(i64::from).sum::<i64>();
    }
    Ok(total)
}

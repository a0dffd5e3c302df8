//! The policy of mixed precision: which operators are given f16, which f32. The classes are those of
//! PyTorch's autocast (aten/src/ATen/autocast_mode.h).

use std::sync::Arc;

use super::Operator;
use crate::error::Result;
use crate::gpu::Precision;
use crate::tensor::{DType, Tensor};

/// In which types an operator is given its inputs where the precision is mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autocast {
    /// As they are.
    Keep,
    /// The first so many inputs in f16; those behind them, weights and biases, stay f32 in memory
    /// and so do their gradients, which are summed in f32.
    Half(usize),
    /// All in f32: what adds up many terms, or takes an exponential or a logarithm.
    Full,
    /// All in the widest float type among them: element by element, and losses of logits, which
    /// read either type and are f32 themselves.
    Widest,
}

impl Autocast {
    /// The type for input `index`, where the rule has one.
    fn wanted(self, index: usize, inputs: &[&Tensor]) -> Option<DType> {
        let full = || inputs.iter().any(|t| t.dtype() == DType::F32);
        match self {
            Self::Keep => None,
            Self::Half(count) => (index < count).then_some(DType::F16),
            Self::Full => Some(DType::F32),
            Self::Widest => full().then_some(DType::F32),
        }
    }
}

/// Runs an operator by `run`, with the casts that the precision of its inputs asks for: of a handle
/// with a policy, if one has any. The operator itself, and its backward, work without a policy, so
/// that no cast is added to what they are made of.
pub(super) fn apply(
    operator: Arc<dyn Operator>,
    inputs: &[&Tensor],
    run: impl Fn(Arc<dyn Operator>, &[&Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    let Some(gpu) = inputs.iter().map(|t| t.gpu()).find(|gpu| gpu.precision() == Precision::Mixed) else { return run(operator, inputs) };
    let (rule, plain) = (operator.autocast(), gpu.plain());
    let prepare = |(index, input): (usize, &&Tensor)| {
        let input = input.with_handle(&plain);
        match rule.wanted(index, inputs).filter(|_| input.dtype().is_float()) {
            Some(dtype) => input.cast(dtype),
            None => Ok(input),
        }
    };
    let prepared = inputs.iter().enumerate().map(prepare).collect::<Result<Vec<_>>>()?;
    let outputs = run(operator, &prepared.iter().collect::<Vec<_>>())?;
    Ok(outputs.iter().map(|y| y.with_handle(gpu)).collect())
}

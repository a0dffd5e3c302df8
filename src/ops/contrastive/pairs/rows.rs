//! Normalised rows: what every pair is made of.

use crate::error::Result;
use crate::gpu::{Gpu, Launch, Scalar, Schedule, rounds};
use crate::ops::Backward;
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

kernels!(NORMALIZE = "contrastive/normalize");

/// Rows are padded to the larger tile's height.
pub(super) const ROWS: usize = 64;
/// Features are padded to the narrower tile's width.
const FEATURES: usize = 32;

/// Lanes that share a row of `d` in kernels that own a row with one workgroup and walk it `walks`
/// times, and the rounds of one: more lanes where the walk is too long for the schedule's own.
pub(crate) fn row_lanes(gpu: &Gpu, d: usize, walks: usize) -> (u32, usize) {
    let own = match gpu.capabilities().schedule {
        Schedule::Software => 8,
        Schedule::Gpu | Schedule::Matrix => 64,
    };
    // The first lane may join the others one by one.
    let walk = |lanes: u32| walks * rounds(d.div_ceil(lanes as usize), 0) + rounds(lanes as usize, 0);
    let lanes = if gpu.capabilities().may_walk_exactly(walk(own)) { own } else { 256 };
    (lanes, walk(lanes))
}

/// Normalised rows of one or more tensors below each other, padded with zeros.
#[derive(Clone)]
pub(crate) struct Rows {
    /// `[padded rows, padded features]`.
    pub unit: Tensor,
    /// `[padded rows]`: 1 / norm.
    pub inverse: Tensor,
}

impl Rows {
    /// Normalises the rows of `parts`, which have the same number of columns.
    pub fn new(gpu: &Gpu, parts: &[&Tensor]) -> Result<Self> {
        let d = parts.first().map_or(1, |t| t.shape().last());
        let rows: usize = parts.iter().map(|t| t.shape().dim(0)).sum();
        let (padded, width) = (rows.next_multiple_of(ROWS), d.next_multiple_of(FEATURES));
        let unit = Tensor::empty(gpu, [padded, width], DType::F32)?;
        let inverse = Tensor::empty(gpu, [padded], DType::F32)?;
        let mut offset = 0;
        for (index, part) in parts.iter().enumerate() {
            let n = part.shape().dim(0);
            let last = index + 1 == parts.len();
            let (lanes, walk) = row_lanes(gpu, width, 2);
            Launch::new(gpu, &NORMALIZE, "normalize")
                .storage(part.dtype().storage())
                .define("BACKWARD", false)
                .define("LANES", lanes)
                .read(*part)
                .write(&unit)
                .write(&inverse)
                .params(params![d, width, offset, n])
                .walk(walk)
                .groups(if last { padded - offset } else { n })?;
            offset += n;
        }
        Ok(Self { unit, inverse })
    }

    pub fn padded(&self) -> usize {
        self.unit.shape().dim(0)
    }

    pub fn width(&self) -> usize {
        self.unit.shape().last()
    }

    /// The gradient of the rows from `offset` that came from an input of this spec, of the gradient
    /// `du` of the normalised rows, times `scale` and the two scalars on the device (the loss's own
    /// gradient and weight).
    pub fn gradient(&self, du: &Tensor, offset: usize, input: &Spec, scale: &Scalar, scalars: Option<[&Tensor; 2]>) -> Result<Tensor> {
        let gpu = du.gpu();
        let dx = Tensor::empty(gpu, input.shape.clone(), input.dtype)?;
        let (lanes, walk) = row_lanes(gpu, self.width(), 2);
        let mut launch = Launch::new(gpu, &NORMALIZE, "normalize")
            .storage(input.dtype.storage())
            .define("BACKWARD", true)
            .define("SCALED", scalars.is_some())
            .define("LANES", lanes)
            .read(du)
            .read(&self.unit)
            .read(&self.inverse);
        for scalar in scalars.into_iter().flatten() {
            launch = launch.read(scalar);
        }
        launch = launch.write(&dx).walk(walk);
        launch.params(params![input.shape.last(), self.width(), offset, scale]).groups(input.shape.dim(0))?;
        Ok(dx)
    }
}

/// What [`Rows`] puts on the tape: normalised rows, norms.
pub(crate) fn rows_specs(rows: usize, d: usize) -> [Spec; 2] {
    let padded = rows.next_multiple_of(ROWS);
    [Spec::f32([padded, d.next_multiple_of(FEATURES)]), Spec::f32([padded])]
}

/// The rows that forward kept as outputs `first` and the next.
pub(crate) fn saved_rows(step: &Backward, first: usize) -> Result<Rows> {
    Ok(Rows { unit: step.output(first)?.clone(), inverse: step.output(first + 1)?.clone() })
}

//! One step shared by several processes, or done in several parts: a batch consists of shards.
//!
//! A process computes its shards one after the other. What they give is joined in one order,
//! whatever the number of processes ([`Sums`]), so a run's bits do not depend on it: with one
//! process this is gradient accumulation, with several it is data parallelism.

mod arithmetic;
mod group;
mod lockstep;
#[cfg(feature = "mpi")]
mod mpi;
mod sums;
mod tree;

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arithmetic::Arithmetic;

pub use group::{Alone, Group, local_rank, world};
pub use lockstep::Lockstep;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use sums::Sums;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::tensor::Tensor;

/// The shards of each step, and who computes them.
#[derive(Clone)]
pub struct Shards {
    count: usize,
    group: Arc<dyn Group>,
    arithmetic: Arc<OnceLock<Arithmetic>>,
}

impl Shards {
    /// `count` shards among the processes of `group`, in their order, equally many for each.
    ///
    /// # Errors
    /// [`Error::Argument`] where either is no power of two, or there are more processes than shards.
    pub fn new(count: usize, group: Arc<dyn Group>) -> Result<Self> {
        if !count.is_power_of_two() {
            return Err(Error::argument("parallel.shards", format!("expected a power of two, found {count}")));
        }
        let processes = group.size();
        if !processes.is_power_of_two() || processes > count {
            let message = format!(
                "{processes} processes cannot share {count} shards: start 1, 2, 4 and so on up to {count}, or set parallel.shards to a power \
                 of two that is no less than the number of processes"
            );
            return Err(Error::argument("parallel", message));
        }
        Ok(Self { count, group, arithmetic: Arc::default() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The processes.
    pub fn group(&self) -> &Arc<dyn Group> {
        &self.group
    }

    /// Those that this process computes.
    pub fn own(&self) -> Range<usize> {
        let each = self.count / self.group.size();
        self.group.rank() * each..(self.group.rank() + 1) * each
    }

    /// How the device of this process adds, which is tried once.
    fn arithmetic(&self, gpu: &Gpu) -> Result<Arithmetic> {
        match self.arithmetic.get() {
            Some(known) => Ok(*known),
            None => Arithmetic::of(gpu).map(|tried| *self.arithmetic.get_or_init(|| tried)),
        }
    }

    /// The rows of all shards, in their order, of those of this process's shards.
    ///
    /// # Errors
    /// Those of the group; out of memory.
    pub fn gather(&self, rows: &Rows) -> Result<Vec<Tensor>> {
        let own = rows.joined()?;
        if self.group.size() == 1 {
            return Ok(own);
        }
        let all = self.group.all_gather(&group::sent(&own)?)?;
        let parts = all.iter().map(|bytes| group::received(bytes, &own)).collect::<Result<Vec<_>>>()?;
        transposed(parts)
    }
}

/// The same tensors of several shards, rows of which belong below one another.
#[derive(Default)]
pub struct Rows(Vec<Vec<Tensor>>);

impl Rows {
    /// Keeps a copy of the next shard's.
    ///
    /// # Errors
    /// Out of memory.
    pub fn push(&mut self, tensors: &[Tensor]) -> Result<()> {
        self.0.push(tensors.iter().map(Tensor::copy).collect::<Result<_>>()?);
        Ok(())
    }

    fn joined(&self) -> Result<Vec<Tensor>> {
        transposed(self.0.clone())
    }
}

/// Tensor by tensor, the parts below one another.
fn transposed(parts: Vec<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    let Some(first) = parts.first() else { return Ok(Vec::new()) };
    let one = |at: usize| {
        let of_all: Vec<&Tensor> = parts.iter().filter_map(|part| part.get(at)).collect();
        match of_all.as_slice() {
            [only] => Ok((*only).clone()),
            _ => Tensor::concat(&of_all, 0),
        }
    };
    (0..first.len()).map(one).collect()
}

/// What the exchange of `sums`, f32, costs a process beside the network: the times until they are on
/// the host, of one addition there, and until as many are on the device again.
///
/// # Errors
/// Out of memory; a lost device.
pub fn handling(sums: &[Tensor]) -> Result<[Duration; 3]> {
    let Some(any) = sums.first() else { return Ok([Duration::ZERO; 3]) };
    let arithmetic = Arithmetic::of(any.gpu())?;
    let begun = Instant::now();
    let own = group::sent(sums)?;
    let read = begun.elapsed();
    let sum = arithmetic.sum(&own, &own);
    let added = begun.elapsed();
    group::received(&sum, sums)?;
    any.gpu().synchronize()?;
    Ok([read, added - read, begun.elapsed() - added])
}

/// A sum over shards divided by their number, which is exact.
pub(crate) fn mean(sum: &Tensor, shards: usize) -> Result<Tensor> {
    if shards == 1 { Ok(sum.clone()) } else { sum.mul_scalar(1.0 / shards as f32) }
}

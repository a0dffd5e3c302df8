//! The processes that share a run, and what they send each other.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Processes that share a run. All of them call the same methods in the same order.
pub trait Group: Send + Sync {
    /// This one's number.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Gives `bytes` to process `partner`, and takes as many from it.
    ///
    /// # Errors
    /// [`Error::Parallel`] where that process does not answer.
    fn exchange(&self, partner: usize, bytes: &[u8]) -> Result<Vec<u8>>;

    /// What every process gives, by rank; the lengths may differ.
    ///
    /// # Errors
    /// [`Error::Parallel`] where one of them does not answer.
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Tells the others that this process ends, and by what.
    fn fail(&self, _message: &str) {}

    /// Whether any process says so.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    fn any(&self, said: bool) -> Result<bool> {
        Ok(said | (self.size() > 1 && self.all_gather(&[u8::from(said)])?.concat().contains(&1)))
    }
}

/// One process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Group for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, partner: usize, _: &[u8]) -> Result<Vec<u8>> {
        Err(Error::Parallel { rank: partner, message: "there is one process alone".into() })
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes.to_vec()])
    }
}

fn number(names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// This process's number among those that `mpirun` (of Open MPI, MPICH, Intel MPI or Slurm) has
/// started on this machine; `None` where this process was started by itself.
pub fn local_rank() -> Option<usize> {
    let names = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PALS_LOCAL_RANKID", "SLURM_LOCALID"];
    launched().and_then(|_| number(&names))
}

/// How many processes `mpirun` has started in all.
fn launched() -> Option<usize> {
    number(&["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
}

/// The processes that share what this one does: those that `mpirun` has started with it, or itself
/// alone.
///
/// # Errors
/// [`Error::Argument`] where there are several and this program was built without MPI.
pub fn world() -> Result<Arc<dyn Group>> {
    match launched() {
        None | Some(1) => Ok(Arc::new(Alone)),
        #[cfg(feature = "mpi")]
        Some(_) => Ok(Arc::new(super::Mpi::new()?)),
        #[cfg(not(feature = "mpi"))]
        Some(size) => {
            let message = format!(
                "{size} processes were started, but this program was built without MPI, so that each would do all of the work: \
                 build it with `cargo install wgrad --features mpi`"
            );
            Err(Error::argument("mpirun", message))
        }
    }
}

fn length(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.dtype().bytes() as usize
}

/// The contents of `tensors`, one after the other.
pub(super) fn sent(tensors: &[Tensor]) -> Result<Vec<u8>> {
    let pending = tensors.iter().map(Tensor::read_later).collect::<Result<Vec<_>>>()?;
    let mut bytes = Vec::new();
    for (read, tensor) in pending.into_iter().zip(tensors) {
        let read = read.wait()?;
        // What is read is rounded up to whole words.
        bytes.extend_from_slice(read.get(..length(tensor)).unwrap_or(&read));
    }
    Ok(bytes)
}

/// Tensors like `own`, with the contents that another process sent.
pub(super) fn received(bytes: &[u8], own: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut rest = bytes;
    let mut take = |tensor: &Tensor| {
        let (gpu, shape) = (tensor.gpu(), tensor.shape());
        let Some((own, others)) = rest.split_at_checked(length(tensor)) else {
            let message = format!("{} bytes came, more were expected: the processes do not run the same program", bytes.len());
            return Err(Error::argument("parallel", message));
        };
        rest = others;
        match tensor.dtype() {
            DType::F32 => Tensor::from_slice(gpu, &bytemuck::pod_collect_to_vec::<u8, f32>(own), shape),
            DType::F16 => Tensor::from_slice(gpu, &bytemuck::pod_collect_to_vec::<u8, half::f16>(own), shape),
            _ => Tensor::from_slice(gpu, &bytemuck::pod_collect_to_vec::<u8, i32>(own), shape),
        }
    };
    own.iter().map(&mut take).collect()
}

//! Sums over all shards of a step, on their way while the step goes on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::Shards;
use super::arithmetic::Arithmetic;
use super::group::{self, Group};
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::gpu::Pending;
use crate::tensor::{DType, Tensor};

/// The sums of tensors over all shards. Each shard gives the same tensors in the same order, one
/// when it is complete: what the last shard of a process gives is sent to the other processes at
/// once, by a thread of its own, beside what the device computes meanwhile.
pub struct Sums {
    shards: Shards,
    /// Shards that have given all.
    ended: usize,
    /// Tensors that the present shard has given.
    given: usize,
    trees: Vec<Tree>,
    /// What this process's shards have given together.
    own: Vec<Tensor>,
    courier: Option<Courier>,
}

impl Sums {
    /// Nothing given yet.
    pub fn new(shards: &Shards) -> Self {
        Self { shards: shards.clone(), ended: 0, given: 0, trees: Vec::new(), own: Vec::new(), courier: None }
    }

    /// How many tensors the present shard has given.
    pub fn given(&self) -> usize {
        self.given
    }

    /// Takes the present shard's next tensor, f32, which may be overwritten afterwards.
    ///
    /// # Errors
    /// Another shape than the shards before gave; more shards than this process has; out of memory.
    pub fn push(&mut self, value: &Tensor) -> Result<()> {
        let of_process = self.shards.own().len();
        if self.ended >= of_process || value.dtype() != DType::F32 {
            let message = format!("expected f32 of {of_process} shards, found {} of shard {}", value.dtype(), self.ended + 1);
            return Err(Error::argument("parallel", message));
        }
        if self.given == self.trees.len() {
            self.trees.push(Tree::default());
        }
        if let Some(tree) = self.trees.get_mut(self.given) {
            tree.push(value)?;
            if self.ended + 1 == of_process {
                self.own.extend(tree.take());
                self.send()?;
            }
        }
        self.given += 1;
        Ok(())
    }

    /// Begins with the next shard.
    pub fn end_shard(&mut self) {
        (self.ended, self.given) = (self.ended + 1, 0);
    }

    /// Sends the last sum to the other processes, where there are others.
    fn send(&mut self) -> Result<()> {
        let group = self.shards.group();
        let Some(sum) = self.own.last().filter(|_| group.size() > 1) else { return Ok(()) };
        if self.courier.is_none() {
            self.courier = Some(Courier::new(group.clone(), self.shards.arithmetic(sum.gpu())?)?);
        }
        let read = sum.read_later()?;
        // A submission of its own, behind which nothing else is waited for.
        sum.gpu().flush()?;
        if let Some(courier) = &self.courier {
            // Where the courier has ended, `finish` says by what.
            let _ = courier.parcels.send(read);
        }
        Ok(())
    }

    /// The sums, once all shards have given all.
    ///
    /// # Errors
    /// Those of the group; out of memory.
    pub fn finish(self) -> Result<Vec<Tensor>> {
        let Some(Courier { parcels, thread }) = self.courier else { return Ok(self.own) };
        drop(parcels);
        let joined = thread.join().unwrap_or_else(|_| Err(Error::argument("parallel", "the thread that sends sums ended early")))?;
        joined
            .iter()
            .zip(&self.own)
            .map(|(bytes, own)| group::received(bytes, std::slice::from_ref(own)))
            .collect::<Result<Vec<_>>>()
            .map(|all| all.concat())
    }
}

/// The thread that joins sums with those of other processes, in the order in which they come.
struct Courier {
    parcels: Sender<Pending>,
    thread: JoinHandle<Result<Vec<Vec<u8>>>>,
}

impl Courier {
    fn new(group: Arc<dyn Group>, arithmetic: Arithmetic) -> Result<Self> {
        let (parcels, receiver) = channel();
        let work = move || join_all(&receiver, &*group, arithmetic);
        let thread = Builder::new().name("courier".into()).spawn(work);
        let thread = thread.map_err(|e| Error::argument("parallel", format!("could not start a thread: {e}")))?;
        Ok(Self { parcels, thread })
    }
}

fn join_all(parcels: &Receiver<Pending>, group: &dyn Group, arithmetic: Arithmetic) -> Result<Vec<Vec<u8>>> {
    parcels.iter().map(|parcel| join(parcel.wait()?, group, arithmetic)).collect()
}

/// The sum over all processes by recursive doubling: behind each round, twice as many have the same.
fn join(own: Vec<u8>, group: &dyn Group, arithmetic: Arithmetic) -> Result<Vec<u8>> {
    let (rank, mut sum) = (group.rank(), own);
    for bit in (0..).map(|round| 1 << round).take_while(|bit| *bit < group.size()) {
        let theirs = group.exchange(rank ^ bit, &sum)?;
        if theirs.len() != sum.len() {
            let message = format!("{} bytes came, {} were expected: the processes do not run the same program", theirs.len(), sum.len());
            return Err(Error::argument("parallel", message));
        }
        sum = if rank & bit == 0 { arithmetic.sum(&sum, &theirs) } else { arithmetic.sum(&theirs, &sum) };
    }
    Ok(sum)
}

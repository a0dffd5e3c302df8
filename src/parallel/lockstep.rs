//! Shards that are computed side by side, because batch norm joins their statistics layer by layer.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use super::{Shards, Sums, mean};
use crate::autograd::{Backward, Function, Saves, record};
use crate::error::{Error, Result};
use crate::nn::Joint;
use crate::ops::exactly;
use crate::tensor::Tensor;

/// A thread for each shard of this process, of which one runs at a time: from one meeting to the
/// next, in the order of the shards, so that all of them are always the same.
#[derive(Clone)]
pub struct Lockstep(Arc<Inner>);

struct Inner {
    shards: Shards,
    state: Mutex<State>,
    changed: Condvar,
    /// Runs before a shard goes on.
    turn: Box<dyn Fn(usize) + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Which thread each shard of this process, counted from 0, runs on.
    members: HashMap<ThreadId, usize>,
    turn: usize,
    /// A shard failed, so that no other can go on.
    failed: bool,
    /// What the shards before have brought to the meeting under way.
    brought: Vec<Vec<Tensor>>,
    /// What the last meeting gave.
    joined: Vec<Tensor>,
}

impl Lockstep {
    /// The shards of this process, before each of which `turn` runs, with its number among all.
    pub fn new(shards: &Shards, turn: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let (shards, turn) = (shards.clone(), Box::new(turn));
        Self(Arc::new(Inner { shards, state: Mutex::default(), changed: Condvar::new(), turn }))
    }

    /// What `work` gives for each shard of this process, in order.
    ///
    /// # Errors
    /// The first of those of `work`.
    pub fn run<T: Send>(&self, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        let own = 0..self.0.shards.own().len();
        let found: Vec<Result<T>> = thread::scope(|scope| {
            let running: Vec<_> = own
                .map(|shard| {
                    scope.spawn({
                        let work = &work;
                        move || self.member(shard, || work(shard))
                    })
                })
                .collect();
            let lost = || Err(Error::argument("parallel", "a shard's thread ended early"));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
        });
        // The cause, not those that stopped because of it.
        let cause = found.iter().find_map(|result| result.as_ref().err().filter(|error| **error != stopped()));
        cause.cloned().map_or_else(|| found.into_iter().collect(), Err)
    }

    fn member<T>(&self, shard: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.lock().members.insert(thread::current().id(), shard);
        drop(self.wait(shard)?);
        // However the work ends, the others go on or end, too.
        let mut leaving = Leaving { lockstep: self, shard, failed: true };
        let result = work();
        leaving.failed = result.is_err();
        result
    }

    /// What `join` gives of what all shards of this process bring.
    ///
    /// # Errors
    /// Those of `join`; where another shard failed.
    pub fn meet(&self, brought: Vec<Tensor>, join: impl FnOnce(Vec<Vec<Tensor>>) -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
        let mut state = self.lock();
        let own = state.members.get(&thread::current().id()).copied();
        let Some(shard) = own else { return Err(Error::argument("parallel", "batch norms meet in a step over shards alone")) };
        state.brought.push(brought);
        if shard + 1 == self.0.shards.own().len() {
            let all = std::mem::take(&mut state.brought);
            // Nobody else can come in: it is not their turn.
            drop(state);
            let joined = join(all);
            state = self.lock();
            match joined {
                Ok(joined) => state.joined = joined,
                Err(error) => {
                    self.pass(&mut state, shard, true);
                    return Err(error);
                }
            }
        }
        self.pass(&mut state, shard, false);
        drop(state);
        Ok(self.wait(shard)?.joined.clone())
    }

    fn all_mean(&self, x: &Tensor) -> Result<Tensor> {
        let means = self.meet(vec![x.detach()], |all| {
            let mut sums = Sums::new(&self.0.shards);
            for brought in &all {
                brought.iter().try_for_each(|value| sums.push(value))?;
                sums.end_shard();
            }
            sums.finish()?.iter().map(|sum| mean(sum, self.0.shards.count())).collect()
        })?;
        let [mean] = exactly("batch norm", &means)?;
        Ok(mean.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, state: &mut State, shard: usize, failed: bool) {
        state.turn = (shard + 1) % self.0.shards.own().len();
        state.failed |= failed;
        self.0.changed.notify_all();
    }

    fn wait(&self, shard: usize) -> Result<MutexGuard<'_, State>> {
        let others = |state: &mut State| state.turn != shard && !state.failed;
        let state = self.0.changed.wait_while(self.lock(), others).unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            return Err(stopped());
        }
        (self.0.turn)(self.0.shards.own().start + shard);
        Ok(state)
    }
}

struct Leaving<'a> {
    lockstep: &'a Lockstep,
    shard: usize,
    failed: bool,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.lockstep.pass(&mut self.lockstep.lock(), self.shard, self.failed);
    }
}

fn stopped() -> Error {
    Error::argument("parallel", "another shard of the step failed")
}

/// The mean over shards on the tape. With a loss for each shard, whose mean counts, a shard's
/// gradient is the mean of those that arrive at all shards.
struct Mean(Lockstep);

impl Function for Mean {
    fn name(&self) -> &str {
        "mean over shards"
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.0.all_mean(&step.cotangent(0)?)?)])
    }
}

impl Joint for Lockstep {
    fn mean(&self, x: &Tensor) -> Result<Tensor> {
        let outputs = vec![self.all_mean(x)?];
        let recorded = record(Box::new(Mean(self.clone())), &Saves::default(), &[x], outputs);
        let [mean] = exactly("batch norm", &recorded)?;
        Ok(mean.clone())
    }

    fn shards(&self) -> usize {
        self.0.shards.count()
    }

    fn leads(&self) -> bool {
        self.lock().members.get(&thread::current().id()) == Some(&0)
    }
}

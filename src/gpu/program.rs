//! Programs: what some work recorded, kept to be run again without any of the host's work that led
//! to it: shape rules, allocation, bind groups. A run encodes a flat list of (pipeline, bind group,
//! parameters, grid).
//!
//! A program has memory of its own: what its work allocated comes from a private part of the pool,
//! so that nothing else is ever in it between two runs. What it uses from outside (weights,
//! optimizer state, inputs) it keeps alive.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Gpu;
use super::command::{Command, Dispatch};
use super::pool::{Buffer, Private};
use super::recording::{Recording, Use};
use super::scalar::{Scalar, ScalarCell};
use crate::error::{Error, Result};

/// The memory that a program needs, in bytes, by the list of its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Liveness {
    /// The most that its own tensors hold at once, without padding, each from its first to its last
    /// use: no allocator can do with less.
    pub bound: u64,
    /// What it really holds for them.
    pub held: u64,
    /// What it uses from outside: weights, optimizer state, inputs.
    pub outside: u64,
}

/// Commands that can be run again.
pub struct Program {
    pub(super) gpu: Gpu,
    pub(super) commands: Vec<Command>,
    marks: Vec<usize>,
    uses: Vec<Vec<Use>>,
    /// What is used from outside must stay what it is.
    _outside: Vec<Arc<Buffer>>,
    private: Private,
    generation: u64,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} dispatches)", self.dispatches())
    }
}

/// Ends a capture however its work ends, also by an error or a panic: the device goes on as before.
struct Ending<'a>(&'a Gpu);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.inner.pool.allocate_for(None);
        self.0.recorder().recording = None;
    }
}

impl Gpu {
    /// Runs `work` and keeps what it recorded on this thread as a program.
    ///
    /// Tensors that `work` allocates belong to the program: every run overwrites them. Uploads and
    /// host reads cannot be part of a program, so they are errors inside `work`; what varies
    /// between runs is a [`Scalar`], or lies in a tensor made before.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::Tensor;
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0], [2])?;
    /// let (y, program) = gpu.capture(|| x.square())?;
    /// x.write(&[3.0f32, 4.0])?;
    /// program.replay()?;
    /// assert_eq!(y.to_vec::<f32>()?, [9.0, 16.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `work`; an earlier driver error; [`Error::Argument`] where a capture is under way
    /// already.
    pub fn capture<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Program)> {
        self.check()?;
        let private = self.inner.pool.private();
        let generation = self.generation();
        let recording = Recording::new(private.owner());
        {
            let mut recorder = self.recorder();
            if recorder.recording.is_some() {
                return Err(Error::argument("capture", "another capture is under way on this device; end it first"));
            }
            recorder.recording = Some(recording);
        }
        self.inner.pool.allocate_for(Some(private.owner()));
        let ending = Ending(self);
        let result = work()?;
        let recording = self.recorder().recording.take();
        drop(ending);
        let Some(Recording { commands, marks, uses, outside, .. }) = recording else {
            return Err(Error::argument("capture", "the capture was ended by someone else"));
        };
        Ok((result, Program { gpu: self.clone(), commands, marks, uses, _outside: outside.into_values().collect(), private, generation }))
    }

    /// Whether this thread is capturing a program.
    pub fn is_capturing(&self) -> bool {
        self.recorder().recording().is_some()
    }

    /// Does `effect` now and, where a program is being captured, at this point of each of its runs:
    /// for what the host counts. It must not use the device.
    pub fn each_run(&self, effect: impl Fn() + Send + Sync + 'static) {
        effect();
        if let Some(recording) = self.recorder().recording() {
            recording.push(Command::Effect(Arc::new(effect)), std::iter::empty());
        }
    }

    /// Where a program is being captured, sets a mark at this point: [`Program::replay_in_parts`].
    pub fn mark(&self) {
        if let Some(recording) = self.recorder().recording() {
            recording.marks.push(recording.commands.len());
        }
    }

    /// `scalar` as it is at this point of each run, whatever changes it later in the run.
    pub fn pin<T: Copy + Send + Sync + 'static>(&self, scalar: &Scalar<T>) -> Scalar<T> {
        if !scalar.is_live() {
            return scalar.clone();
        }
        let (cell, source) = (ScalarCell::new(scalar.get()), scalar.clone());
        let pinned = cell.scalar();
        self.each_run(move || cell.set(source.get()));
        pinned
    }

    /// Says that programs captured so far do not do any more what their work would do now: a
    /// parameter was frozen, say.
    pub fn invalidate_programs(&self) {
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// How often [`Self::invalidate_programs`] was called.
    pub(crate) fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    /// Refuses what cannot be part of a program.
    pub(super) fn not_capturing(&self, what: &str, remedy: &str) -> Result<()> {
        if self.is_capturing() {
            return Err(Error::argument("capture", format!("{what} cannot be part of a captured program; {remedy}")));
        }
        Ok(())
    }

    /// Submits `commands` behind everything recorded before.
    pub(super) fn submit(&self, commands: &[Command]) -> Result<()> {
        self.check()?;
        if self.is_dry() {
            commands.iter().for_each(|c| {
                if let Command::Effect(effect) = c {
                    effect()
                }
            });
            return Ok(());
        }
        self.recorder().flush_with(&self.inner.device, &self.inner.queue, commands);
        self.check()
    }
}

impl Program {
    /// Runs it again, behind everything recorded before. Does not wait.
    ///
    /// # Errors
    /// A lost device or an earlier driver error; [`Error::Argument`] inside a capture.
    pub fn replay(&self) -> Result<()> {
        self.gpu.not_capturing("running a program", "capture its work instead")?;
        self.gpu.submit(&self.commands)
    }

    /// As [`Self::replay`], with a stop at each mark: what is before it is submitted, then `at_mark` is
    /// given its number. What that records, reads or submits comes behind the mark.
    ///
    /// # Errors
    /// As [`Self::replay`]; those of `at_mark`.
    pub fn replay_in_parts(&self, mut at_mark: impl FnMut(usize) -> Result<()>) -> Result<()> {
        self.gpu.not_capturing("running a program", "capture its work instead")?;
        let mut rest = self.commands.as_slice();
        let mut begun = 0;
        for (number, end) in self.marks.iter().enumerate() {
            let (part, others) = rest.split_at_checked(end - begun).unwrap_or((rest, &[]));
            self.gpu.submit(part)?;
            at_mark(number)?;
            (rest, begun) = (others, *end);
        }
        self.gpu.submit(rest)
    }

    /// Whether it still does what its work would do: see [`Gpu::invalidate_programs`].
    pub fn is_current(&self) -> bool {
        self.generation == self.gpu.generation()
    }

    /// Kernels that one run launches.
    pub fn dispatches(&self) -> usize {
        self.list().count()
    }

    /// The kernels that one run launches, in order: `family/file:entry`, and the constants of the
    /// variant.
    pub fn kernels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list().map(|dispatch| (&*dispatch.pipeline.label, &*dispatch.pipeline.variant))
    }

    pub(super) fn list(&self) -> impl Iterator<Item = &Dispatch> {
        self.commands.iter().filter_map(|c| if let Command::Dispatch(dispatch) = c { Some(dispatch) } else { None })
    }

    /// The memory that it needs and holds.
    pub fn liveness(&self) -> Liveness {
        Liveness { bound: bound(&self.uses), held: self.private.bytes(), outside: outside(&self.uses) }
    }
}

/// The most bytes that tensors of the program's own hold at once, each from its first to its last
/// use.
fn bound(uses: &[Vec<Use>]) -> u64 {
    struct Life {
        last: usize,
        first: usize,
        bytes: u64,
    }
    let mut lives: HashMap<u64, Life> = HashMap::new();
    for (at, list) in uses.iter().enumerate() {
        for used in list.iter().filter(|u| u.inside) {
            let life = lives.entry(used.buffer).or_insert(Life { first: at, last: at, bytes: 0 });
            life.last = at;
            life.bytes = life.bytes.max(used.bytes);
        }
    }
    // What begins and what has ended with each command.
    let mut changes = vec![(0u64, 0u64); uses.len() + 1];
    for life in lives.values() {
        if let Some(change) = changes.get_mut(life.first) {
            change.0 += life.bytes;
        }
        if let Some(change) = changes.get_mut(life.last + 1) {
            change.1 += life.bytes;
        }
    }
    let (mut live, mut most) = (0, 0);
    for (begun, ended) in changes {
        live = live + begun - ended;
        most = most.max(live);
    }
    most
}

/// Bytes of all that is used from outside.
fn outside(uses: &[Vec<Use>]) -> u64 {
    let mut sizes: HashMap<u64, u64> = HashMap::new();
    for used in uses.iter().flatten().filter(|u| !u.inside) {
        let size = sizes.entry(used.buffer).or_default();
        *size = (*size).max(used.bytes);
    }
    sizes.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_counts_each_tensor_from_its_first_to_its_last_use() {
        let own = |buffer, bytes| Use { buffer, bytes, inside: true };
        let foreign = |buffer, bytes| Use { buffer, bytes, inside: false };
        // 1 -> 2 -> 3, and 1 again at the end: 1 lives throughout. A view of 2 uses less of it.
        let uses = vec![
            vec![foreign(9, 1000), own(1, 10)],
            vec![own(1, 10), own(2, 30)],
            vec![own(2, 20), own(3, 5)],
            vec![],
            vec![own(3, 5), own(4, 7)],
            vec![own(1, 10), own(4, 7), foreign(9, 500), foreign(8, 1)],
        ];
        assert_eq!(bound(&uses), 10 + 30 + 5);
        assert_eq!(outside(&uses), 1001);
        assert_eq!(bound(&[]), 0);
    }
}

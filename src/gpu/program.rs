//! Programs: what some work recorded, kept to be run again without any of the host's work that led
//! to it: shape rules, allocation, bind groups. A run encodes a flat list of (pipeline, bind group,
//! parameters, grid).
//!
//! A program has memory of its own: what its work allocated comes from a private part of the pool,
//! so that nothing else is ever in it between two runs. What it uses from outside (weights,
//! optimizer state, inputs) it keeps alive.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Gpu;
use super::clock::Instant;
use super::health;
use super::pool::{Buffer, Private};
use super::recorder::{Command, Dispatch, Recording, Use};
use super::scalar::{Scalar, ScalarCell};
use super::waiting::{Answer, Polled, block_on, unmapped};
use crate::error::{Error, Result};

/// How long a program took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// By the device's time stamps, from before the first command to behind the last; `None` where
    /// there are none, or where they cannot be right.
    pub device_seconds: Option<f64>,
    /// By the host's clock, from the call until the device had finished.
    pub wall_seconds: f64,
    /// The host's share of it: encoding and submitting.
    pub host_seconds: f64,
}

/// One dispatch of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// Its kernel and entry point, `family/file:entry`.
    pub kernel: Arc<str>,
    /// The constants of the variant.
    pub variant: Arc<str>,
    /// Workgroups along x, y and z.
    pub grid: [u32; 3],
    /// Seconds since the program's first time stamp.
    pub begin_seconds: f64,
    /// Seconds since the program's first time stamp.
    pub end_seconds: f64,
    /// Operations, where the launch says.
    pub flops: f64,
    /// Bytes of all bindings.
    pub bytes: u64,
}

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
    gpu: Gpu,
    commands: Vec<Command>,
    uses: Vec<Vec<Use>>,
    /// What is used from outside must stay what it is.
    _outside: Vec<Arc<Buffer>>,
    private: Private,
    generation: u64,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
        let Some(Recording { commands, uses, outside, .. }) = recording else {
            return Err(Error::argument("capture", "the capture was ended by someone else"));
        };
        Ok((result, Program { gpu: self.clone(), commands, uses, _outside: outside.into_values().collect(), private, generation }))
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
    fn submit(&self, commands: &[Command]) -> Result<()> {
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

    fn list(&self) -> impl Iterator<Item = &Dispatch> {
        self.commands.iter().filter_map(|c| if let Command::Dispatch(dispatch) = c { Some(dispatch) } else { None })
    }

    /// The memory that it needs and holds.
    pub fn liveness(&self) -> Liveness {
        Liveness { bound: bound(&self.uses), held: self.private.bytes(), outside: outside(&self.uses) }
    }

    /// Runs it `repeats` times in a row and waits.
    ///
    /// # Errors
    /// As [`Self::replay`]; [`Error::Argument`] on a dry device.
    pub fn time(&self, repeats: usize) -> Result<Timing> {
        self.gpu.not_capturing("timing a program", "time it outside")?;
        self.gpu.not_dry("timing a program")?;
        let mut commands: Vec<Command> = self.commands.iter().cycle().take(self.commands.len() * repeats).cloned().collect();
        let stamps = self.stamps(2);
        if let Some(set) = &stamps {
            commands.insert(0, Command::Stamp(set.clone(), 0));
            commands.push(Command::Stamp(set.clone(), 1));
        }
        self.gpu.synchronize()?;
        let begun = Instant::now();
        self.gpu.submit(&commands)?;
        let host_seconds = begun.elapsed().as_secs_f64();
        self.gpu.synchronize()?;
        let wall_seconds = begun.elapsed().as_secs_f64();
        let device_seconds = match stamps {
            Some(set) => self.gpu.read_stamps(&set, 2)?.last().copied().filter(|s| *s > 0.0 && *s <= wall_seconds),
            None => None,
        };
        Ok(Timing { device_seconds, wall_seconds, host_seconds })
    }

    fn stamps(&self, count: u32) -> Option<wgpu::QuerySet> {
        let descriptor = wgpu::QuerySetDescriptor { label: Some("stamps"), ty: wgpu::QueryType::Timestamp, count };
        self.gpu.capabilities().timestamps.then(|| self.gpu.device().create_query_set(&descriptor))
    }

    /// Runs it once with a time stamp between any two dispatches, and waits. Kernels that would
    /// overlap follow each other here.
    ///
    /// # Errors
    /// [`Error::Limit`] where the adapter has no time stamps; as [`Self::replay`].
    pub fn profile(&self) -> Result<Vec<Interval>> {
        self.gpu.not_capturing("profiling a program", "profile it outside")?;
        self.gpu.not_dry("profiling a program")?;
        self.gpu.synchronize()?;
        let mut intervals = Vec::with_capacity(self.dispatches());
        let (mut rest, mut offset) = (self.commands.as_slice(), 0.0);
        while !rest.is_empty() {
            // A query set holds 4,096 time stamps at most.
            let (part, tail) = rest.split_at(rest.len().min(2000));
            rest = tail;
            offset = self.profile_part(part, offset, &mut intervals)?;
        }
        Ok(intervals)
    }

    fn profile_part(&self, part: &[Command], offset: f64, intervals: &mut Vec<Interval>) -> Result<f64> {
        let Some(set) = self.stamps(part.len() as u32 + 1) else {
            let message = "a profile needs time stamps, which the adapter has not".to_string();
            return Err(Error::Limit { operator: "profile".into(), message, adapter: self.gpu.capabilities().name.clone() });
        };
        let mut commands = vec![Command::Stamp(set.clone(), 0)];
        let mut stamp = 0;
        for command in part {
            commands.push(command.clone());
            stamp += 1;
            commands.push(Command::Stamp(set.clone(), stamp));
        }
        self.gpu.submit(&commands)?;
        self.gpu.synchronize()?;
        let times = self.gpu.read_stamps(&set, stamp + 1)?;
        for (command, pair) in part.iter().zip(times.windows(2)) {
            let (Command::Dispatch(dispatch), [begin, end]) = (command, pair) else { continue };
            intervals.push(Interval {
                kernel: dispatch.pipeline.label.clone(),
                variant: dispatch.pipeline.variant.clone(),
                grid: dispatch.grid,
                begin_seconds: offset + begin,
                end_seconds: offset + end,
                flops: dispatch.flops,
                bytes: dispatch.bytes,
            });
        }
        Ok(offset + times.last().copied().unwrap_or(0.0))
    }
}

impl Gpu {
    /// Seconds of each time stamp since the first, none earlier than the one before it.
    fn read_stamps(&self, set: &wgpu::QuerySet, count: u32) -> Result<Vec<f64>> {
        let bytes = u64::from(count) * 8;
        let buffer = |usage| health::buffer(self.device(), Some("stamps"), bytes, usage);
        let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC)?;
        let mapped = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("stamps") });
        encoder.resolve_query_set(set, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &mapped, 0, bytes);
        let submission = self.inner.queue.submit([encoder.finish()]);
        block_on(self.answered(&Answer::to_mapping(&mapped), Some(submission), Polled::Here))?;
        let range = mapped.get_mapped_range(..).map_err(unmapped)?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&range);
        let period = f64::from(self.inner.queue.get_timestamp_period()) * 1e-9;
        let first = ticks.first().copied().unwrap_or(0);
        let mut latest = 0.0f64;
        Ok(ticks
            .into_iter()
            .map(|tick| {
                latest = latest.max(tick.saturating_sub(first) as f64 * period);
                latest
            })
            .collect())
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

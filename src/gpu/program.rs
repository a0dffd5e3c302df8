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
use super::clock::Instant;
use super::health;
use super::pool::{Buffer, Private};
use super::recorder::{Command, Dispatch, Recording, Use};
use super::scalar::{Scalar, ScalarCell};
use super::waiting::{Answer, Polled, block_on, unmapped};
use crate::error::{Error, Result};

/// Dispatches between whose stamps one query set is read: it holds 4,096 stamps at most.
const STAMPED: usize = 2000;
/// The clocks of host and device may run differently by so much.
const CLOCKS_DIFFER: f64 = 1.1;

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

/// What clock a profile was taken by.
#[derive(Debug, Clone, PartialEq)]
pub enum TimedBy {
    /// The device's time stamps around each dispatch.
    TimeStamps,
    /// The host's: each dispatch was submitted and waited for by itself, which is part of its time.
    WallClock {
        /// Why not the device's.
        reason: String,
    },
}

impl fmt::Display for TimedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimedBy::TimeStamps => "time stamps",
            TimedBy::WallClock { .. } => "wall clock",
        })
    }
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

    /// What each dispatch takes, one after another, in order. By time stamps; where there are none
    /// or they cannot be right, it is run once more by the wall clock.
    ///
    /// # Errors
    /// As [`Self::replay`]; [`Error::Argument`] on a dry device.
    pub fn profile(&self) -> Result<(Vec<Interval>, TimedBy)> {
        let begun = Instant::now();
        let reason = if self.gpu.capabilities().timestamps {
            let intervals = self.profile_by(&TimedBy::TimeStamps)?;
            match doubt(&intervals, begun.elapsed().as_secs_f64()) {
                None => return Ok((intervals, TimedBy::TimeStamps)),
                Some(reason) => reason,
            }
        } else {
            "the adapter, or what was asked of it, has no time stamps".into()
        };
        log::info!("a profile is taken by the wall clock: {reason}");
        let clock = TimedBy::WallClock { reason };
        Ok((self.profile_by(&clock)?, clock))
    }

    /// [`Self::profile`] by this clock, whatever it says.
    ///
    /// # Errors
    /// As [`Self::profile`]; [`Error::Limit`] for time stamps where the adapter has none.
    pub fn profile_by(&self, clock: &TimedBy) -> Result<Vec<Interval>> {
        self.gpu.not_capturing("profiling a program", "profile it outside")?;
        self.gpu.not_dry("profiling a program")?;
        self.gpu.synchronize()?;
        let times = match clock {
            TimedBy::TimeStamps => self.stamped()?,
            TimedBy::WallClock { .. } => self.awaited()?,
        };
        let interval = |(dispatch, [begin_seconds, end_seconds]): (&Dispatch, [f64; 2])| Interval {
            kernel: dispatch.pipeline.label.clone(),
            variant: dispatch.pipeline.variant.clone(),
            grid: dispatch.grid,
            begin_seconds,
            end_seconds,
            flops: dispatch.flops,
            bytes: dispatch.bytes,
        };
        Ok(self.list().zip(times).map(interval).collect())
    }

    /// Seconds around each dispatch by time stamps.
    fn stamped(&self) -> Result<Vec<[f64; 2]>> {
        let mut times: Vec<[f64; 2]> = Vec::with_capacity(self.dispatches());
        let mut rest = self.commands.iter().peekable();
        while rest.peek().is_some() {
            let Some(set) = self.stamps(2 * STAMPED as u32) else {
                let message = "a profile by time stamps needs them, and the adapter has none".to_string();
                return Err(Error::Limit { operator: "profile".into(), message, adapter: self.gpu.capabilities().name.clone() });
            };
            let (mut commands, mut count) = (Vec::new(), 0);
            while let Some(command) = rest.next_if(|_| count < STAMPED) {
                commands.push(match command {
                    Command::Dispatch(dispatch) => {
                        count += 1;
                        Command::Timed(dispatch.clone(), set.clone(), 2 * count as u32 - 2)
                    }
                    other => other.clone(),
                });
            }
            self.gpu.submit(&commands)?;
            self.gpu.synchronize()?;
            let offset = times.last().map_or(0.0, |last| last[1]);
            let stamps = if count > 0 { self.gpu.read_stamps(&set, 2 * count as u32)? } else { Vec::new() };
            times.extend(stamps.as_chunks::<2>().0.iter().map(|pair| pair.map(|seconds| offset + seconds)));
        }
        Ok(times)
    }

    /// Seconds around each dispatch by the host's clock.
    fn awaited(&self) -> Result<Vec<[f64; 2]>> {
        let begun = Instant::now();
        let now = || begun.elapsed().as_secs_f64();
        let mut times = Vec::with_capacity(self.dispatches());
        for command in &self.commands {
            let begin = now();
            self.gpu.submit(std::slice::from_ref(command))?;
            self.gpu.inner.health.wait(self.gpu.device(), None)?;
            if let Command::Dispatch(_) = command {
                times.push([begin, now()]);
            }
        }
        self.gpu.synchronize()?;
        Ok(times)
    }
}

/// Why time stamps cannot be right, if they cannot, of dispatches that ran one after another within
/// `wall_seconds`. Drivers give zeros, or stamp work that has not ended.
fn doubt(intervals: &[Interval], wall_seconds: f64) -> Option<String> {
    let seconds = |interval: &Interval| interval.end_seconds - interval.begin_seconds;
    let all = intervals.len();
    let backwards = intervals.iter().any(|i| i.end_seconds < i.begin_seconds)
        || intervals.windows(2).any(|pair| matches!(pair, [a, b] if b.begin_seconds < a.end_seconds));
    if backwards {
        return Some("its time stamps go backwards".into());
    }
    // A clock may be too coarse for a kernel, but not for most.
    let zeros = intervals.iter().filter(|i| seconds(i) == 0.0).count();
    if 2 * zeros > all {
        return Some(format!("by its time stamps {zeros} of {all} kernels take no time"));
    }
    let first = intervals.first()?;
    let alike = |i: &Interval| i.kernel == first.kernel && i.grid == first.grid;
    // Sums of float64 may differ in their last digits.
    let equal = |i: &Interval| (seconds(i) - seconds(first)).abs() < 1e-12;
    if all > 2 && intervals.iter().all(equal) && !intervals.iter().all(alike) {
        return Some(format!("by its time stamps all {all} kernels take the same time"));
    }
    let sum: f64 = intervals.iter().map(seconds).sum();
    if sum > wall_seconds * CLOCKS_DIFFER {
        return Some(format!("by its time stamps the kernels take {sum:.3} s in {wall_seconds:.3} s of the wall clock"));
    }
    None
}

impl Gpu {
    /// Seconds of each time stamp since the first, as the driver gives them.
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
        Ok(ticks.into_iter().map(|tick| tick.wrapping_sub(first).cast_signed() as f64 * period).collect())
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
    fn time_stamps_are_doubted_where_they_cannot_be_right() {
        let intervals = |times: &[(f64, f64)]| -> Vec<Interval> {
            let interval = |(at, (begin, end)): (usize, &(f64, f64))| Interval {
                kernel: format!("kernel {at}").into(),
                variant: "".into(),
                grid: [1, 1, 1],
                begin_seconds: *begin,
                end_seconds: *end,
                flops: 0.0,
                bytes: 4,
            };
            times.iter().enumerate().map(interval).collect()
        };
        let of = |times: &[(f64, f64)], wall| doubt(&intervals(times), wall).unwrap_or_default();
        let right = [(0.0, 1e-3), (1e-3, 3e-3), (4e-3, 4e-3), (5e-3, 6e-3)];
        assert_eq!(doubt(&intervals(&right), 6e-3), None, "one kernel is too short for the clock");
        assert_eq!(doubt(&[], 0.0), None);
        assert!(of(&[(0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 1e-3)], 1.0).contains("3 of 4 kernels take no time"));
        assert!(of(&[(0.0, 1e-3), (5e-4, 2e-3), (2e-3, 3e-3)], 1.0).contains("backwards"), "the second begins in the first");
        assert!(of(&[(0.0, 1e-3), (2e-3, 1e-3)], 1.0).contains("backwards"));
        assert!(of(&[(0.0, 1e-3), (1e-3, 2e-3), (2e-3, 3e-3)], 1.0).contains("all 3 kernels take the same time"));
        assert!(of(&right, 3e-3).contains("0.004 s in 0.003 s"));
        // The same kernel again and again may well take the same time.
        let same: Vec<Interval> = intervals(&[(0.0, 1e-3), (1e-3, 2e-3), (2e-3, 3e-3)]);
        let same: Vec<Interval> = same.into_iter().map(|i| Interval { kernel: "one".into(), ..i }).collect();
        assert_eq!(doubt(&same, 1.0), None);
    }

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

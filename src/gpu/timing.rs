//! How long a program takes, and each of its dispatches: by the device's time stamps where these can
//! be right, else by the host's clock.

use std::fmt;
use std::sync::Arc;

use super::clock::Instant;
use super::command::{Command, Dispatch};
use super::program::Program;
use super::waiting::{Answer, Polled, block_on, unmapped};
use super::{Gpu, health};
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

impl Program {
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
}

//! Commands, and how many of them a submission takes: by the work in them, which follows from shapes.

use std::borrow::Cow;
use std::sync::Arc;

use super::kernel::Pipeline;
use super::scalar::Scalar;

/// Dispatches of one submission at most: few submissions a step, by what is in them and never by
/// the clock.
pub(super) const DISPATCHES_PER_SUBMIT: usize = 256;
/// The same for a program that is run again, where the device need not be kept busy while the host
/// encodes.
pub(super) const DISPATCHES_PER_REPLAY: usize = 1024;
/// Work of one submission at most, in seconds of a slow GPU. Drivers end what takes longer than 2 to
/// 10 s (Windows after 2), because a screen may wait for it.
const SECONDS_PER_SUBMIT: f64 = 0.25;
/// What a slow GPU does in a second: an integrated one of ten years ago.
pub(super) const OPERATIONS_PER_SECOND: f64 = 500e9;
pub(super) const BYTES_PER_SECOND: f64 = 20e9;

#[derive(Clone)]
pub(crate) struct Dispatch {
    pub pipeline: Arc<Pipeline>,
    pub bind_group: wgpu::BindGroup,
    /// Where its rounds are reported, and as which group, if they are counted.
    pub rounds: Option<(u32, wgpu::BindGroup)>,
    pub params: Vec<u8>,
    /// Where `params` holds numbers that are looked up before each run.
    pub live: Vec<(usize, Scalar<u32>)>,
    pub grid: [u32; 3],
    /// For profiles: operations, and bytes of all bindings.
    pub flops: f64,
    pub bytes: u64,
    /// Rounds of the loops of all invocations at most, one for each that has no loop.
    pub steps: f64,
}

impl Dispatch {
    /// Seconds that a slow GPU may need for it, from shapes alone: for its operations (where the
    /// launch does not say how many, a round of a loop is one at least) and its bytes.
    pub(super) fn seconds(&self) -> f64 {
        self.flops.max(self.steps) / OPERATIONS_PER_SECOND + self.bytes as f64 / BYTES_PER_SECOND
    }

    pub(super) fn present_params(&self) -> Cow<'_, [u8]> {
        if self.live.is_empty() {
            return Cow::Borrowed(&self.params);
        }
        let mut bytes = self.params.clone();
        for (at, scalar) in &self.live {
            if let Some(word) = bytes.get_mut(*at..at + 4) {
                word.copy_from_slice(&scalar.get().to_le_bytes());
            }
        }
        Cow::Owned(bytes)
    }
}

#[derive(Clone)]
pub(crate) enum Command {
    Dispatch(Dispatch),
    Copy {
        source: wgpu::Buffer,
        source_offset: u64,
        target: wgpu::Buffer,
        target_offset: u64,
        bytes: u64,
    },
    /// A time stamp behind everything before it.
    Stamp(wgpu::QuerySet, u32),
    /// A dispatch between two time stamps, this one and the next. It has a pass to itself, because
    /// Metal takes no stamps in an empty one, and a submission, because kernels of one submission
    /// that do not depend on each other overlap.
    Timed(Dispatch, wgpu::QuerySet, u32),
    /// Something that the host does at this point of a program whenever it is run; never in the
    /// list of what is to be submitted.
    Effect(Arc<dyn Fn() + Send + Sync>),
}

/// What a submission holds so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Load {
    pub dispatches: usize,
    pub seconds: f64,
}

impl Load {
    pub(super) fn with(self, command: &Command) -> Self {
        let (dispatches, seconds) = match command {
            Command::Dispatch(dispatch) => (1, dispatch.seconds()),
            Command::Copy { bytes, .. } => (0, 2.0 * *bytes as f64 / BYTES_PER_SECOND),
            // More than a submission holds, so it is alone.
            Command::Timed(..) => (1, f64::INFINITY),
            Command::Stamp(..) | Command::Effect(_) => (0, 0.0),
        };
        Self { dispatches: self.dispatches + dispatches, seconds: self.seconds + seconds }
    }

    /// Adds a command, unless the submission should end before it. It has one dispatch at least,
    /// however long that takes, and copies go with what is before them.
    pub(super) fn add(&mut self, command: &Command, most: usize) -> bool {
        let next = self.with(command);
        let too_much = next.dispatches > most || next.seconds > SECONDS_PER_SUBMIT;
        let ends = next.dispatches > self.dispatches && self.dispatches > 0 && too_much;
        if !ends {
            *self = next;
        }
        !ends
    }

    pub(super) fn is_full(&self) -> bool {
        self.dispatches >= DISPATCHES_PER_SUBMIT || self.seconds >= SECONDS_PER_SUBMIT
    }
}

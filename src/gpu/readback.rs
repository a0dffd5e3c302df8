//! Reading back. Each read is a copy into a mappable buffer, recorded in order; the blocking form waits for the submission
//! that carries it, the async form polls the device from its own future (a map callback only fires inside `poll`).

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Gpu;
use super::health;
use super::launch::Binding;
use super::recorder::Command;
use crate::error::{Error, Result};

/// What the map callback reports, and who waits for it.
#[derive(Default)]
pub(super) struct Answer {
    result: Mutex<Option<Result<(), wgpu::BufferAsyncError>>>,
    arrived: Condvar,
}

/// A buffer that the driver would not map.
pub(super) fn unmapped(error: impl std::fmt::Display) -> Error {
    Error::DeviceLost(format!("a buffer could not be mapped: {error}"))
}

impl Answer {
    /// To mapping `buffer`, which is asked for now.
    pub(super) fn to_mapping(buffer: &wgpu::Buffer) -> Arc<Self> {
        let state = Arc::new(Self::default());
        let sink = state.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |result| sink.give(result));
        state
    }

    fn give(&self, result: Result<(), wgpu::BufferAsyncError>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.arrived.notify_all();
    }

    fn take(&self) -> Option<Result<(), wgpu::BufferAsyncError>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The result, once the submission is known to be finished. Another thread's poll may have collected the callback and be about
    /// to call it, so its absence right behind one's own poll says nothing.
    pub(super) fn wait(&self, limit: Duration) -> Option<Result<(), wgpu::BufferAsyncError>> {
        let held = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.arrived.wait_timeout_while(held, limit, |r| r.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

/// Bytes on their way to the host: copied when this was made, waited for when they are asked for.
#[must_use = "nothing is read before `wait` or `.await`"]
pub struct Pending {
    gpu: Gpu,
    buffer: wgpu::Buffer,
    bytes: u64,
    serial: u64,
    /// The answer, and since when it is asked for.
    mapped: Option<(Arc<Answer>, Instant)>,
}

impl Gpu {
    /// Records a copy of `binding` to the host; later commands do not change what it reads.
    ///
    /// # Errors
    /// A lost device or an earlier driver error.
    pub fn read_later(&self, binding: &Binding) -> Result<Pending> {
        self.check()?;
        self.not_capturing("a host read", "read what it returns after a run")?;
        if !self.owns(binding) {
            return Err(Error::argument("read_later", "the binding lives on another device; read it by that one"));
        }
        if self.is_dry() {
            return Ok(Pending { gpu: self.clone(), buffer: binding.buffer.raw.clone(), bytes: 0, serial: 0, mapped: None });
        }
        let bytes = binding.bytes.next_multiple_of(4).max(4);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let buffer = health::buffer(self.device(), Some("readback"), bytes, usage)?;
        let mut recorder = self.recorder();
        recorder.push(Command::Copy {
            source: binding.buffer.raw.clone(),
            source_offset: binding.offset,
            target: buffer.clone(),
            target_offset: 0,
            bytes,
        });
        let serial = recorder.serial();
        drop(recorder);
        Ok(Pending { gpu: self.clone(), buffer, bytes: binding.bytes, serial, mapped: None })
    }
}

impl Pending {
    fn map(&mut self) -> Result<(Arc<Answer>, Instant)> {
        if let Some(state) = &self.mapped {
            return Ok(state.clone());
        }
        self.gpu.not_dry("a host read")?;
        if self.gpu.recorder().serial() == self.serial {
            self.gpu.flush()?;
        }
        let mapped = (Answer::to_mapping(&self.buffer), Instant::now());
        self.mapped = Some(mapped.clone());
        Ok(mapped)
    }

    fn take(&self, result: Result<(), wgpu::BufferAsyncError>) -> Result<Vec<u8>> {
        self.gpu.check()?;
        result.map_err(unmapped)?;
        let range = self.buffer.get_mapped_range(..).map_err(unmapped)?;
        let mut data = range.to_vec();
        data.truncate(self.bytes as usize);
        drop(range);
        self.buffer.unmap();
        Ok(data)
    }

    /// The bytes, waiting for the device where they are not there yet.
    ///
    /// # Errors
    /// A lost device; a kernel that did not end within the time limit; an earlier driver error; a dry device.
    pub fn wait(mut self) -> Result<Vec<u8>> {
        let (state, _) = self.map()?;
        let submission_index = self.gpu.recorder().submission(self.serial);
        self.gpu.wait_for(submission_index)?;
        let health = &self.gpu.inner.health;
        self.take(state.wait(health.limit).ok_or_else(|| health.timed_out())?)
    }
}

impl Future for Pending {
    type Output = Result<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (state, since) = match self.map() {
            Ok(mapped) => mapped,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let _ = self.gpu.device().poll(wgpu::PollType::Poll);
        match state.take() {
            Some(result) => Poll::Ready(self.gpu.check_walks().and_then(|()| self.take(result))),
            None => {
                let health = &self.gpu.inner.health;
                let late = if since.elapsed() > health.limit { Err(health.timed_out()) } else { health.check() };
                if let Err(error) = late {
                    return Poll::Ready(Err(error));
                }
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

//! Whether a device still works, and waiting for it.
//!
//! Its first failure stays: a command that the driver refused takes the commands beside it along,
//! so nothing computed from then on can be trusted. Every later call fails with the same error, on
//! every thread, until a new [`Gpu`](super::Gpu) is made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::lock;
use super::waiting::Answer;
use crate::error::{Error, Result};

pub(crate) struct Health {
    failure: Mutex<Option<Error>>,
    /// What is waited for, and woken by a failure.
    waiting: Mutex<Vec<Weak<Answer>>>,
    /// Work is under way that may never end, so whatever waits for the device may never return.
    hangs: AtomicBool,
    /// Longest wait.
    pub limit: Duration,
}

impl Health {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { failure: Mutex::default(), waiting: Mutex::default(), hangs: AtomicBool::new(false), limit }
    }

    /// The device's first failure, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// Keeps the first failure, wakes whoever waits, and returns it.
    pub(crate) fn fail(&self, error: Error) -> Error {
        let first = lock(&self.failure).get_or_insert(error).clone();
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.iter().filter_map(Weak::upgrade).for_each(|answer| answer.wake());
        first
    }

    /// Has `answer` woken by a failure, as long as somebody waits for it.
    pub(super) fn notify(&self, answer: &Arc<Answer>) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|answer| answer.strong_count() > 0);
        waiting.push(Arc::downgrade(answer));
    }

    pub(crate) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Acquire)
    }

    /// Waits for a submission, or for all. The device is lost where it takes longer than the limit.
    /// In a browser, which ends endless kernels by itself, this returns at once.
    pub(crate) fn wait(&self, device: &wgpu::Device, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        self.check()?;
        match device.poll(wgpu::PollType::Wait { submission_index, timeout: Some(self.limit) }) {
            Ok(_) => self.check(),
            Err(wgpu::PollError::Timeout) => Err(self.timed_out()),
            Err(error) => Err(self.fail(Error::DeviceLost(error.to_string()))),
        }
    }

    /// Marks the device as lost to work that did not end.
    pub(crate) fn timed_out(&self) -> Error {
        self.hangs.store(true, Ordering::Release);
        let seconds = self.limit.as_secs();
        self.fail(Error::DeviceLost(format!(
            "a recorded kernel did not end within {seconds} s (WGRAD_TIMEOUT_SECONDS): a loop without an end?"
        )))
    }
}

/// Does `work`, which makes something of the device, and returns what the driver has against it: a
/// failure that harms nothing else.
pub(crate) fn guarded<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    // A browser tells it later, and to whoever listens to the device, as it does with any command.
    if cfg!(target_arch = "wasm32") {
        return Ok(work());
    }
    // Scopes belong to a thread in wgpu: pushed and popped here, in one function, the last first.
    // What they caught is known by then, so nobody waits.
    let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let made = work();
    let refused = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).last();
    refused.map_or(Ok(made), Err)
}

/// A buffer, or an error that harms nothing else.
pub(crate) fn buffer(device: &wgpu::Device, label: Option<&str>, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
    guarded(device, || device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false }))
        .map_err(|error| Error::OutOfMemory(format!("the driver refused {size} bytes: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::{Binding, Gpu, Storage};
    use super::*;

    #[test]
    fn the_first_error_of_the_driver_stays_for_every_thread_and_program() {
        let gpu = Gpu::new().unwrap();
        let words = || Binding { buffer: gpu.allocate(64).unwrap(), offset: 0, bytes: 64, storage: Storage::I32 };
        let (kept, other) = (words(), words());
        gpu.upload(&kept, &[7; 64]).unwrap();
        let ((), program) = gpu.capture(|| gpu.copy(&kept, &other, 64)).unwrap();
        let pending = gpu.read_later(&kept).unwrap();
        // No scope catches it, as none catches what a recorded command does wrong.
        let refused =
            wgpu::BufferDescriptor { label: None, size: u64::MAX, usage: wgpu::BufferUsages::COPY_DST, mapped_at_creation: false };
        let _ = gpu.device().create_buffer(&refused);
        let first = gpu.check().unwrap_err();
        assert!(matches!(first, Error::Driver { .. }), "{first}");
        let reads = || [gpu.read_later(&kept).map(drop), program.replay(), gpu.flush(), gpu.synchronize(), gpu.allocate(4).map(drop)];
        let all = std::thread::scope(|scope| scope.spawn(reads).join().unwrap()).into_iter().chain(reads());
        assert!(all.chain([gpu.capture(|| Ok(())).map(drop), pending.wait().map(drop)]).all(|result| result == Err(first.clone())));
        assert!(Gpu::new().unwrap().synchronize().is_ok());
    }

    #[test]
    fn a_guarded_error_harms_nothing_else() {
        let gpu = Gpu::new().unwrap();
        let refused = buffer(gpu.device(), None, u64::MAX, wgpu::BufferUsages::COPY_DST).unwrap_err();
        assert!(matches!(refused, Error::OutOfMemory(_)), "{refused}");
        assert_eq!(gpu.synchronize(), Ok(()));
    }
}

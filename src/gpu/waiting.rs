//! Waiting for the device. wgpu calls back only while somebody polls the device. A call that blocks
//! polls on its own thread; for futures a thread of the device does it, which lives while one
//! waits. In a browser nobody need: the event loop calls back.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::health::Health;
use super::{Gpu, lock};
use crate::error::{Error, Result};

/// Who polls the device while something waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    /// The thread that waits: it blocks until the device is done.
    Here,
    /// The device's own thread, or the browser: whoever waits is woken.
    Elsewhere,
}

/// Blocks on a future whose waits are [`Polled::Here`].
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    pollster::block_on(future)
}

/// A browser's thread cannot block: only what is ready at once has an answer.
#[cfg(target_arch = "wasm32")]
pub(super) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::argument("wait", "a browser's thread cannot block; await the call's async form")),
    }
}

/// A buffer that the driver would not map.
pub(super) fn unmapped(error: impl std::fmt::Display) -> Error {
    Error::DeviceLost(format!("a buffer could not be mapped: {error}"))
}

#[derive(Default)]
struct Waiting {
    result: Option<Result<()>>,
    waker: Option<Waker>,
}

/// What a callback of wgpu reports, and who is woken by it.
#[derive(Default)]
pub(super) struct Answer(Mutex<Waiting>);

/// wgpu's end of an answer. A callback that is dropped and not called answers, too.
struct Promise(Option<Arc<Answer>>);

impl Promise {
    fn keep(mut self, result: Result<()>) {
        if let Some(answer) = self.0.take() {
            answer.give(result);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer.give(Err(Error::DeviceLost("the driver gave up a request".into())));
        }
    }
}

impl Answer {
    fn promised() -> (Arc<Self>, Promise) {
        let answer = Arc::new(Self::default());
        (answer.clone(), Promise(Some(answer)))
    }

    /// To mapping `buffer`, which is asked for now.
    pub(super) fn to_mapping(buffer: &wgpu::Buffer) -> Arc<Self> {
        let (answer, promise) = Self::promised();
        buffer.map_async(wgpu::MapMode::Read, .., move |result| promise.keep(result.map_err(unmapped)));
        answer
    }

    /// To the end of everything that has been submitted so far.
    fn to_submissions(queue: &wgpu::Queue) -> Arc<Self> {
        let (answer, promise) = Self::promised();
        queue.on_submitted_work_done(move || promise.keep(Ok(())));
        answer
    }

    fn give(&self, result: Result<()>) {
        lock(&self.0).result = Some(result);
        self.wake();
    }

    /// Has the waiting task look again.
    pub(super) fn wake(&self) {
        // The waker runs after the lock is gone: it may poll at once.
        let waker = lock(&self.0).waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, health: &Health, context: &mut Context<'_>) -> Poll<Result<()>> {
        {
            let mut waiting = lock(&self.0);
            if let Some(result) = waiting.result.take() {
                return Poll::Ready(result);
            }
            waiting.waker = Some(context.waker().clone());
        }
        // After the waker is in its place, so that a failure is either seen here or wakes.
        health.check().map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending)
    }
}

impl Gpu {
    /// `answer`, which comes when `submission`, or by `None` everything submitted, is done; or the
    /// failure of the device, as which a wait beyond the time limit counts.
    pub(super) async fn answered(&self, answer: &Arc<Answer>, submission: Option<wgpu::SubmissionIndex>, polled: Polled) -> Result<()> {
        let health = &self.inner.health;
        health.notify(answer);
        match polled {
            Polled::Here => health.wait(self.device(), submission)?,
            #[cfg(not(target_arch = "wasm32"))]
            Polled::Elsewhere => self.inner.poller.poll_for(self, submission)?,
            #[cfg(target_arch = "wasm32")]
            Polled::Elsewhere => {}
        }
        // Where another thread's poll collected the callback, it is about to call it.
        let answer = poll_fn(|context| answer.poll(health, context)).await;
        health.check()?;
        answer
    }

    /// Submits what has been recorded, and waits until the device has finished it.
    pub(super) async fn finished(&self, polled: Polled) -> Result<()> {
        self.flush()?;
        if self.is_dry() {
            return Ok(());
        }
        let answer = Answer::to_submissions(&self.inner.queue);
        self.answered(&answer, None, polled).await?;
        self.check_walks(polled).await
    }

    /// Submits what has been recorded and waits until the device has finished it.
    ///
    /// # Errors
    /// As [`Self::flush`]; a kernel that does not end within `WGRAD_TIMEOUT_SECONDS` (600 when not
    /// set).
    pub fn synchronize(&self) -> Result<()> {
        block_on(self.finished(Polled::Here))
    }

    /// [`Self::synchronize`] without blocking: the task is woken when the device has finished.
    ///
    /// # Errors
    /// As [`Self::synchronize`].
    pub async fn synchronize_async(&self) -> Result<()> {
        self.finished(Polled::Elsewhere).await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_failure_of_the_device_and_a_dropped_callback_wake_who_waits() {
        let (answer, promise) = Answer::promised();
        let (other, lost) = (Answer::promised(), Error::DeviceLost("unplugged".into()));
        let health = Health::new(Duration::from_secs(1));
        health.notify(&answer);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        let seen = || wakes.0.load(Ordering::SeqCst);
        let mut waiting = pin!(poll_fn(|context| answer.poll(&health, context)));
        assert_eq!((waiting.as_mut().poll(&mut context), seen()), (Poll::Pending, 0));
        health.fail(lost.clone());
        assert_eq!((seen(), waiting.as_mut().poll(&mut context)), (1, Poll::Ready(Err(lost))));

        let healthy = Health::new(Duration::from_secs(1));
        assert_eq!((other.0.poll(&healthy, &mut context), seen()), (Poll::Pending, 1));
        drop(other.1);
        assert_eq!(seen(), 2);
        assert!(matches!(other.0.poll(&healthy, &mut context), Poll::Ready(Err(Error::DeviceLost(_)))));
        promise.keep(Ok(()));
    }
}

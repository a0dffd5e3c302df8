//! The batches of an epoch, prepared on another thread.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::batch::HostBatch;
use crate::error::{Error, Result};

/// The batches of one epoch. Dropping it stops and joins its thread.
#[derive(Debug)]
pub struct Epoch<B = HostBatch> {
    /// `None` once dropped, so that the thread's next send fails.
    receiver: Option<Receiver<Result<B>>>,
    worker: Option<JoinHandle<()>>,
    remaining: usize,
    /// Why there are no batches; the first and last item.
    failure: Option<Error>,
    name: String,
}

impl<B: Send + 'static> Epoch<B> {
    /// `remaining` batches, which `work` sends from a thread of its own, at most `ahead` before they
    /// are asked for; an error is the last.
    pub(super) fn start(name: String, remaining: usize, ahead: usize, work: impl FnOnce(SyncSender<Result<B>>) + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(ahead);
        match std::thread::Builder::new().name("wgrad-loader".to_string()).spawn(move || work(sender)) {
            Ok(worker) => Self { receiver: Some(receiver), worker: Some(worker), remaining, failure: None, name },
            Err(error) => Self::failed(Error::data(name, format!("could not start a thread to load data: {error}"))),
        }
    }
}

impl<B> Epoch<B> {
    /// None, for this reason.
    pub(super) fn failed(error: Error) -> Self {
        let name = String::new();
        Self { receiver: None, worker: None, remaining: 1, failure: Some(error), name }
    }
}

impl<B> Iterator for Epoch<B> {
    type Item = Result<B>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        if let Some(batch) = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok()) {
            self.remaining = if batch.is_ok() { self.remaining - 1 } else { 0 };
            return Some(batch);
        }
        self.remaining = 0;
        let lost = || Error::data(self.name.clone(), "the thread that loads data stopped early");
        Some(Err(self.failure.take().unwrap_or_else(lost)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl<B> Drop for Epoch<B> {
    fn drop(&mut self) {
        // First the receiver: a thread that waits for room in the channel then wakes up and ends.
        self.receiver = None;
        if let Some(worker) = self.worker.take() {
            // A panic there has shown as a missing batch; there is nothing more to do about it
            // here.
            let _ = worker.join();
        }
    }
}

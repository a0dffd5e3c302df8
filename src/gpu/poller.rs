//! Polling a device for futures, natively: wgpu calls nobody back by itself. A thread is started
//! with the first wait, and ends when nothing is waited for. It keeps the time limit, and a failure
//! wakes everyone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::{Gpu, lock};
use crate::error::{Error, Result};

#[derive(Default)]
pub(super) struct Poller(Mutex<Wanted>);

#[derive(Default)]
struct Wanted {
    /// What is still to be polled for; by `None` everything submitted.
    submissions: VecDeque<Option<wgpu::SubmissionIndex>>,
    running: bool,
}

impl Poller {
    /// Has the device polled until a submission, or all, is done.
    pub(super) fn poll_for(self: &Arc<Self>, gpu: &Gpu, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let mut wanted = lock(&self.0);
        wanted.submissions.push_back(submission);
        if wanted.running {
            return Ok(());
        }
        // Not the `Gpu`: the thread would hold up its end.
        let (poller, device, health) = (self.clone(), gpu.device().clone(), gpu.inner.health.clone());
        let work = move || {
            while let Some(submission) = poller.next() {
                let _ = health.wait(&device, submission);
            }
        };
        let thread = std::thread::Builder::new().name("wgrad poll".into()).spawn(work);
        wanted.running = thread.is_ok();
        thread.map(drop).map_err(|e| Error::argument("await", format!("no thread to poll the device on: {e}")))
    }

    fn next(&self) -> Option<Option<wgpu::SubmissionIndex>> {
        let mut wanted = lock(&self.0);
        let next = wanted.submissions.pop_front();
        wanted.running = next.is_some();
        next
    }
}

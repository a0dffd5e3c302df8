//! Processes of a run as threads of a test.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use wgrad::error::{Error, Result};
use wgrad::parallel::Group;

/// One of several threads, with a way to and from each of the others.
pub struct Threads {
    rank: usize,
    to: Vec<Mutex<Sender<Vec<u8>>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

/// The members of a group of `size`.
pub fn threads(size: usize) -> Vec<Arc<Threads>> {
    let mut ways: Vec<Vec<_>> = (0..size).map(|_| (0..size).map(|_| Some(channel())).collect()).collect();
    let mut receivers: Vec<Vec<Option<Receiver<Vec<u8>>>>> = (0..size).map(|_| (0..size).map(|_| None).collect()).collect();
    let mut senders: Vec<Vec<Mutex<Sender<Vec<u8>>>>> = Vec::new();
    for (from, row) in ways.iter_mut().enumerate() {
        senders.push(Vec::new());
        for (to, way) in row.iter_mut().enumerate() {
            let (sender, receiver) = way.take().unwrap();
            senders[from].push(Mutex::new(sender));
            receivers[to][from] = Some(receiver);
        }
    }
    let member = |(rank, (to, from)): (usize, (Vec<_>, Vec<Option<Receiver<_>>>))| {
        Arc::new(Threads { rank, to, from: from.into_iter().map(|receiver| Mutex::new(receiver.unwrap())).collect() })
    };
    senders.into_iter().zip(receivers).enumerate().map(member).collect()
}

impl Group for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, partner: usize, bytes: &[u8]) -> Result<Vec<u8>> {
        let gone = || Error::Parallel { rank: partner, message: "it has ended".into() };
        self.to[partner].lock().unwrap().send(bytes.to_vec()).map_err(|_| gone())?;
        self.from[partner].lock().unwrap().recv().map_err(|_| gone())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        (0..self.size()).for_each(|to| self.to[to].lock().unwrap().send(bytes.to_vec()).unwrap_or_default());
        let from = |rank: usize| {
            let message = || Error::Parallel { rank, message: "it has ended".into() };
            self.from[rank].lock().unwrap().recv().map_err(|_| message())
        };
        (0..self.size()).map(from).collect()
    }
}

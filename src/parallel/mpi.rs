//! Processes that `mpirun` has started.
//!
//! MPI itself waits for ever for a process that was killed or hangs. So nothing here waits inside
//! it: what is sent is buffered, what is received is looked for, and a process from which nothing
//! was heard for too long is named. A thread of each says that it lives, whatever it computes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, yield_now};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, MatchedReceiveVec, Source};
use mpi::topology::Communicator;

use super::Group;
use crate::error::{Error, Result};

/// What a message is about.
const DATA: i32 = 1;
const ALIVE: i32 = 2;
const FAILED: i32 = 3;

/// Between two signs of life.
const PULSE: Duration = Duration::from_secs(1);
/// Without any for so long, a process counts as lost.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a process that fails stays, so that the others hear of it.
const FAREWELL: Duration = Duration::from_secs(2);
/// The most bytes of one message. A process sends the next one when it has the partner's, and
/// begins another exchange when the partner has all, so two lie in its buffer at most.
const PIECE: usize = 16 << 20;
const BUFFER: usize = 3 * PIECE;
/// What helps where a process is lost.
const REMEDY: &str = "end what is left of the run, then --resume goes on from the last checkpoint";
/// Looks for a message before the processor is left to others between them.
const IMPATIENT: u32 = 1000;

/// MPI, which one thread at a time may use.
struct World {
    universe: Universe,
    rank: usize,
    /// When each process was heard last.
    heard: Vec<Instant>,
    /// What one of them says that it failed by.
    failed: Option<(usize, String)>,
}

impl World {
    fn send(&self, to: usize, about: i32, bytes: &[u8]) {
        self.universe.world().process_at_rank(to as i32).buffered_send_with_tag(bytes, about);
    }

    /// The next message of `from`, if it is there.
    fn receive(&mut self, from: usize, about: i32) -> Option<Vec<u8>> {
        let message = self.universe.world().process_at_rank(from as i32).immediate_matched_probe_with_tag(about)?;
        if let Some(heard) = self.heard.get_mut(from) {
            *heard = Instant::now();
        }
        Some(message.matched_receive_vec().0)
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, size) = (self.rank, self.heard.len());
        (0..size).filter(move |other| *other != rank)
    }

    fn tell_all(&self, about: i32, bytes: &[u8]) {
        self.others().for_each(|rank| self.send(rank, about, bytes));
    }

    /// Whether all processes live.
    fn check(&mut self) -> Result<()> {
        for rank in self.others() {
            while self.receive(rank, ALIVE).is_some() {}
            if let Some(text) = self.receive(rank, FAILED) {
                self.failed = Some((rank, String::from_utf8_lossy(&text).into_owned()));
            }
        }
        if let Some((rank, message)) = self.failed.clone() {
            return Err(Error::Parallel { rank, message: format!("it failed: {message}; {REMEDY}") });
        }
        let silent = |rank: &usize| self.heard.get(*rank).is_some_and(|heard| heard.elapsed() > SILENCE);
        self.others().find(silent).map_or(Ok(()), |rank| {
            let message = format!("nothing was heard of it for {} s: it was killed, or hangs; {REMEDY}", SILENCE.as_secs());
            Err(Error::Parallel { rank, message })
        })
    }
}

/// The processes of MPI's world. It is left when the value is dropped.
pub struct Mpi {
    world: Arc<Mutex<World>>,
    rank: usize,
    size: usize,
    /// A process is lost, so MPI's own end, which waits for all, cannot be waited for.
    broken: AtomicBool,
    ended: Arc<AtomicBool>,
    pulse: Option<JoinHandle<()>>,
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mpi {
    /// Enters the world, once in a process.
    ///
    /// # Errors
    /// [`Error::Argument`] where it was entered before, or MPI allows one thread alone.
    pub fn new() -> Result<Self> {
        let refused = |message: &str| Error::argument("MPI", message);
        let entered = mpi::initialize_with_threading(Threading::Serialized);
        let (mut universe, threading) = entered.ok_or_else(|| refused("it is in use already: there is one world in a process"))?;
        if threading < Threading::Serialized {
            return Err(refused("this MPI lets only one thread of a process use it; build it with thread support"));
        }
        let (rank, size) = (universe.world().rank() as usize, universe.world().size() as usize);
        universe.set_buffer_size(BUFFER + (size << 12));
        let world = Arc::new(Mutex::new(World { universe, rank, heard: vec![Instant::now(); size], failed: None }));
        let ended = Arc::<AtomicBool>::default();
        let (theirs, end) = (world.clone(), ended.clone());
        let beat = move || {
            while !end.load(Ordering::Relaxed) {
                {
                    let mut world = lock(&theirs);
                    world.tell_all(ALIVE, &[1]);
                    // Who waits for a message says what is wrong.
                    let _ = world.check();
                }
                sleep(PULSE);
            }
        };
        let thread = || std::thread::Builder::new().name("pulse".into()).spawn(beat);
        let pulse = (size > 1).then(thread).transpose().map_err(|e| refused(&format!("could not start a thread: {e}")))?;
        Ok(Self { world, rank, size, broken: AtomicBool::new(false), ended, pulse })
    }

    /// The next data of `from`.
    fn wait(&self, from: usize) -> Result<Vec<u8>> {
        for look in 0u32.. {
            let mut world = lock(&self.world);
            if let Some(bytes) = world.receive(from, DATA) {
                return Ok(bytes);
            }
            world.check().inspect_err(|_| self.broken.store(true, Ordering::Relaxed))?;
            drop(world);
            if look < IMPATIENT { yield_now() } else { sleep(Duration::from_micros(100)) }
        }
        Err(Error::Parallel { rank: from, message: "it does not answer".into() })
    }
}

impl Group for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, partner: usize, bytes: &[u8]) -> Result<Vec<u8>> {
        let swap = |bytes: &[u8]| {
            lock(&self.world).send(partner, DATA, bytes);
            self.wait(partner)
        };
        let length = swap(&(bytes.len() as u64).to_le_bytes())?.try_into().map(u64::from_le_bytes);
        let length = length.map_err(|_| Error::argument("parallel", "a message of another kind came: the processes differ"))? as usize;
        // As many pieces each way, some of them empty; the last is the word that all has come.
        let (mut found, mut pieces) = (Vec::with_capacity(length), bytes.chunks(PIECE));
        for _ in 0..length.max(bytes.len()).div_ceil(PIECE) {
            found.extend(swap(pieces.next().unwrap_or_default())?);
        }
        swap(&[])?;
        Ok(found)
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut by_rank = vec![bytes.to_vec(); self.size];
        // In each round those are partners whose numbers add up to it.
        for round in 0..self.size {
            let partner = (round + self.size - self.rank) % self.size;
            if let Some(theirs) = by_rank.get_mut(partner).filter(|_| partner != self.rank) {
                *theirs = self.exchange(partner, bytes)?;
            }
        }
        Ok(by_rank)
    }

    fn fail(&self, message: &str) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            lock(&self.world).tell_all(FAILED, message.as_bytes());
            sleep(FAREWELL);
        }
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(pulse) = self.pulse.take() {
            // It cannot have panicked.
            let _ = pulse.join();
        }
        if self.broken.load(Ordering::Relaxed) {
            std::mem::forget(self.world.clone());
        }
    }
}

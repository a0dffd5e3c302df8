//! Device buffers in size classes, recycled as soon as their handle is dropped.
//!
//! Recycling needs no waiting: everything that happens to a buffer happens in recording order, so
//! whoever gets it next records its commands after the last use.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use super::health::{Health, buffer};
use crate::error::{Error, Result};

/// Smallest buffer. Also the alignment of a binding inside a larger buffer.
pub(crate) const ALIGNMENT: u64 = 256;

/// In [`GpuOptions::poison`](super::GpuOptions) mode this many bytes follow every buffer's
/// contents, for sentinels.
pub(crate) const SENTINEL_BYTES: u64 = 256;

/// A free buffer may be so many times as large as what it is taken for: what is made on top of it
/// costs more than what lies idle in it (docs/rejected.md has other numbers).
const FIT: u64 = 8;

/// What the pool holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// In live tensors.
    pub in_use: u64,
    /// In live tensors and in buffers kept for reuse.
    pub held: u64,
    /// The most that was ever in live tensors.
    pub peak: u64,
    /// How often a new buffer had to be made; constant once a training step repeats itself.
    pub allocations: u64,
}

/// Which program a buffer belongs to.
pub(crate) type Owner = u64;

/// Buffers kept for reuse, by size class.
type Free = BTreeMap<u64, Vec<wgpu::Buffer>>;

/// Takes the smallest free buffer that holds `class` bytes, up to [`FIT`] times as many, and its
/// size.
fn take(free: &mut Free, class: u64) -> Option<(wgpu::Buffer, u64)> {
    let (size, list) = free.range_mut(class..=class.saturating_mul(FIT)).find(|(_, list)| !list.is_empty())?;
    Some((list.pop()?, *size))
}

/// The part of the pool that belongs to one program.
#[derive(Default)]
struct Part {
    free: Free,
    bytes: u64,
}

#[derive(Default)]
struct State {
    free: Free,
    parts: HashMap<Owner, Part>,
    /// The thread whose allocations come from a part.
    capturing: Option<(ThreadId, Owner)>,
    /// Numbers of buffers and parts.
    made: u64,
    memory: MemoryUse,
}

impl State {
    /// Gives up what nobody uses. Parts keep theirs: their programs will run again.
    fn trim(&mut self) {
        let kept: u64 = std::mem::take(&mut self.free).into_iter().map(|(class, list)| class * list.len() as u64).sum();
        self.memory.held -= kept;
    }
}

/// A part of the pool, as long as this lives.
pub(crate) struct Private {
    owner: Owner,
    pool: Arc<Pool>,
}

impl Private {
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Bytes of all buffers that belong to the part.
    pub(crate) fn bytes(&self) -> u64 {
        self.pool.lock().parts.get(&self.owner).map_or(0, |p| p.bytes)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let part = state.parts.remove(&self.owner).unwrap_or_default();
        for (class, list) in part.free {
            state.free.entry(class).or_default().extend(list);
        }
    }
}

pub(crate) struct Pool {
    device: wgpu::Device,
    health: Arc<Health>,
    budget: Option<u64>,
    largest: u64,
    /// What every buffer of a dry device is.
    stand_in: Option<wgpu::Buffer>,
    state: Mutex<State>,
}

/// A device buffer that goes back to its pool when dropped.
pub struct Buffer {
    pub(super) raw: wgpu::Buffer,
    /// What was asked for, rounded up.
    class: u64,
    /// What the buffer has.
    size: u64,
    id: u64,
    owner: Option<Owner>,
    pool: Arc<Pool>,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.class)
    }
}

impl Buffer {
    /// Bytes that may be bound, at least what was asked for.
    pub fn bytes(&self) -> u64 {
        self.class
    }

    /// Whether it is of this pool.
    pub(crate) fn is_of(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// A number that no other buffer of the pool ever has, although its memory may come back.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The program that it was allocated for.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.owner
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let State { free, parts, memory, .. } = &mut *state;
        memory.in_use -= self.class;
        let part = self.owner.and_then(|owner| parts.get_mut(&owner));
        part.map_or(free, |p| &mut p.free).entry(self.size).or_default().push(self.raw.clone());
    }
}

/// The size class of a request: eight classes for each power of two, so at most an eighth is
/// wasted.
fn class(bytes: u64) -> u64 {
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.next_power_of_two() / 16).max(ALIGNMENT);
    bytes.next_multiple_of(step)
}

impl Pool {
    pub(crate) fn new(device: wgpu::Device, health: Arc<Health>, budget: Option<u64>, largest: u64) -> Self {
        Self { device, health, budget, largest, stand_in: None, state: Mutex::default() }
    }

    /// One that makes a single small buffer and counts as if it made all.
    pub(crate) fn dry(device: wgpu::Device, health: Arc<Health>, largest: u64) -> Result<Self> {
        let pool = Self::new(device, health, None, largest);
        Ok(Self { stand_in: Some(pool.try_create(ALIGNMENT)?), ..pool })
    }

    // A poisoned lock only says that another thread died between two counters; the lists are whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn memory(&self) -> MemoryUse {
        self.lock().memory
    }

    /// A buffer of at least `bytes`, and whether it was just made.
    pub(crate) fn allocate(self: &Arc<Self>, bytes: u64) -> Result<Buffer> {
        let class = class(bytes);
        if class > self.largest {
            return Err(Error::OutOfMemory(format!("{bytes} bytes exceed this device's largest buffer of {} bytes", self.largest)));
        }
        let mut state = self.lock();
        let owner = state.capturing.filter(|(thread, _)| *thread == std::thread::current().id()).map(|(_, owner)| owner);
        let own = owner.and_then(|owner| take(&mut state.parts.get_mut(&owner)?.free, class));
        let (raw, size) = match own {
            Some(found) => found,
            None => {
                let reused = take(&mut state.free, class);
                let (raw, size) = reused.map_or_else(|| self.create(&mut state, class).map(|raw| (raw, class)), Ok)?;
                if let Some(part) = owner.and_then(|owner| state.parts.get_mut(&owner)) {
                    part.bytes += size;
                }
                (raw, size)
            }
        };
        state.memory.in_use += class;
        state.memory.peak = state.memory.peak.max(state.memory.in_use);
        state.made += 1;
        Ok(Buffer { raw, class, size, id: state.made, owner, pool: self.clone() })
    }

    /// Gives up what nobody uses, except what belongs to programs.
    pub(crate) fn trim(&self) {
        self.lock().trim();
    }

    /// A part of the pool for a program.
    pub(crate) fn private(self: &Arc<Self>) -> Private {
        let mut state = self.lock();
        state.made += 1;
        let owner = state.made;
        state.parts.insert(owner, Part::default());
        Private { owner, pool: self.clone() }
    }

    /// From now on, this thread's allocations come from a part, or from the whole again.
    pub(crate) fn allocate_for(&self, owner: Option<Owner>) {
        self.lock().capturing = owner.map(|owner| (std::thread::current().id(), owner));
    }

    fn create(&self, state: &mut State, class: u64) -> Result<wgpu::Buffer> {
        if self.budget.is_some_and(|budget| state.memory.held + class > budget) {
            state.trim();
        }
        if let Some(budget) = self.budget.filter(|b| state.memory.held + class > *b) {
            return Err(Error::OutOfMemory(format!(
                "{class} bytes more than the {} bytes in use would exceed the budget of {budget} bytes; raise \
                 memory_budget_bytes (WGRAD_MEMORY_MIB) or use a smaller batch",
                state.memory.in_use
            )));
        }
        let raw = self.try_create(class).or_else(|_| {
            // What is kept for reuse may be what is missing: give it back and ask once more.
            state.trim();
            self.health.wait(&self.device, None)?;
            self.try_create(class)
        })?;
        state.memory.held += class;
        state.memory.allocations += 1;
        Ok(raw)
    }

    fn try_create(&self, class: u64) -> Result<wgpu::Buffer> {
        if let Some(buffer) = &self.stand_in {
            return Ok(buffer.clone());
        }
        buffer(&self.device, None, class, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST)
    }
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn classes_waste_at_most_an_eighth_and_stay_aligned() {
        for bytes in [0u64, 1, 255, 256, 257, 4096, 5000, 1 << 20, (1 << 20) + 1, 123_456_789] {
            let class = class(bytes);
            assert!(class >= bytes.max(1) && class.is_multiple_of(256), "{bytes} -> {class}");
            assert!(class - bytes <= (bytes / 8).max(256), "{bytes} -> {class}");
        }
    }
}

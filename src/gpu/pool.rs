//! Device buffers in size classes, recycled as soon as their handle is dropped.
//!
//! Recycling needs no waiting: everything that happens to a buffer happens in recording order, so whoever gets it next
//! records its commands after the last use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Smallest buffer. Also the alignment of a binding inside a larger buffer.
pub(crate) const ALIGNMENT: u64 = 256;

/// In [`GpuOptions::poison`](super::GpuOptions) mode this many bytes follow every buffer's contents, for sentinels.
pub(crate) const SENTINEL_BYTES: u64 = 256;

/// What the pool holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// In live tensors.
    pub in_use: u64,
    /// In live tensors and in buffers kept for reuse.
    pub held: u64,
    /// The most that was ever in live tensors.
    pub high_water: u64,
    /// How often a new buffer had to be made; constant once a training step repeats itself.
    pub allocations: u64,
}

#[derive(Default)]
struct State {
    free: HashMap<u64, Vec<wgpu::Buffer>>,
    memory: MemoryUse,
}

pub(crate) struct Pool {
    device: wgpu::Device,
    budget: Option<u64>,
    largest: u64,
    state: Mutex<State>,
}

/// A device buffer that goes back to its pool when dropped.
pub struct Buffer {
    pub(super) raw: wgpu::Buffer,
    class: u64,
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
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.memory.in_use -= self.class;
        state.free.entry(self.class).or_default().push(self.raw.clone());
    }
}

/// The size class of a request: eight classes for each power of two, so at most an eighth is wasted.
fn class(bytes: u64) -> u64 {
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.next_power_of_two() / 16).max(ALIGNMENT);
    bytes.next_multiple_of(step)
}

impl Pool {
    pub(crate) fn new(device: wgpu::Device, budget: Option<u64>, largest: u64) -> Arc<Self> {
        Arc::new(Self { device, budget, largest, state: Mutex::default() })
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
            return Err(Error::OutOfMemory(format!(
                "one tensor of {bytes} bytes exceeds this device's largest buffer of {} bytes; use a smaller batch",
                self.largest
            )));
        }
        let mut state = self.lock();
        let reused = state.free.get_mut(&class).and_then(Vec::pop);
        let raw = match reused {
            Some(raw) => raw,
            None => self.create(&mut state, class)?,
        };
        state.memory.in_use += class;
        state.memory.high_water = state.memory.high_water.max(state.memory.in_use);
        Ok(Buffer { raw, class, pool: self.clone() })
    }

    fn create(&self, state: &mut State, class: u64) -> Result<wgpu::Buffer> {
        if self.budget.is_some_and(|budget| state.memory.held + class > budget) {
            state.free.clear();
            state.memory.held = state.memory.in_use;
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
            state.free.clear();
            state.memory.held = state.memory.in_use;
            let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
            self.try_create(class)
        })?;
        state.memory.held += class;
        state.memory.allocations += 1;
        Ok(raw)
    }

    fn try_create(&self, class: u64) -> Result<wgpu::Buffer> {
        // Error scopes are thread-local in wgpu: pushed and popped here, in one function.
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let raw = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: class,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let refused = pollster::block_on(validation.pop()).or(pollster::block_on(memory.pop()));
        match refused {
            None => Ok(raw),
            Some(error) => Err(Error::OutOfMemory(format!("the driver refused {class} bytes: {error}"))),
        }
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

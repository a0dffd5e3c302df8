//! One home for all weights of a run.
//!
//! Every trainable value lives in one buffer, every running statistic in another, at slots aligned
//! to 64 elements, so that an optimizer, an average or a target network walks them all in one
//! dispatch. A buffer that would outgrow the largest binding is continued in another.

mod chunk;
mod parameter;
mod slot;
mod snapshot;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use chunk::resized;
use chunk::{Chunk, reserve};
pub use parameter::{Counter, Parameter};
pub use slot::{Kind, ParameterSlot, Role, SLOT};

use super::Joint;
use super::init::Init;
use crate::autograd::leaf;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Scalar};
use crate::tensor::random::{Purpose, Stream};
use crate::tensor::{Origin, Shape, Spec, Tensor};

/// A home holds no more slots: the deepest published networks have some thousands.
const MOST_SLOTS: usize = 1 << 16;

struct Entry {
    slot: ParameterSlot,
    version: Arc<AtomicU64>,
    origin: Origin,
}

#[derive(Default)]
struct State {
    values: Vec<Chunk>,
    statistics: Vec<Chunk>,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    /// `num_batches_tracked` of each batch norm, by name, in the order of the state.
    counters: Vec<(usize, String, Arc<AtomicU64>)>,
    /// Raised when slots are added, frozen or regrouped.
    revision: u64,
}

struct Home {
    gpu: Gpu,
    seed: u32,
    /// Values of a snapshot cannot be watched.
    trainable: bool,
    /// Nor are any while this is false.
    recorded: AtomicBool,
    step: Arc<AtomicU64>,
    /// The shard of the step under way, and how many it has.
    shard: Arc<Mutex<[u32; 2]>>,
    /// Where batch norms see all shards.
    joint: Mutex<Option<Arc<dyn Joint>>>,
    state: Mutex<State>,
}

/// The weights of a run, or a named scope inside them. Clones are handles.
#[derive(Clone)]
pub struct Parameters {
    home: Arc<Home>,
    prefix: String,
}

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parameters(\"{}\", {} values)", self.prefix, self.count())
    }
}

fn lock(home: &Home) -> MutexGuard<'_, State> {
    home.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Parameters {
    /// An empty home. Initial values follow from `seed` and each parameter's name, not from the
    /// order of creation.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::nn::{Linear, Parameters};
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let params = Parameters::new(&gpu, 0);
    /// Linear::new(&params.scope("head"), "fc", 4, 2)?; // makes head.fc.weight and head.fc.bias
    /// assert_eq!(params.count(), 4 * 2 + 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(gpu: &Gpu, seed: u32) -> Self {
        Self::home(gpu, seed, true)
    }

    fn home(gpu: &Gpu, seed: u32, trainable: bool) -> Self {
        let (recorded, shard) = (AtomicBool::new(true), Arc::new(Mutex::new([0, 1])));
        let home = Home {
            gpu: gpu.clone(),
            seed,
            trainable,
            recorded,
            step: Arc::default(),
            shard,
            joint: Mutex::default(),
            state: Mutex::default(),
        };
        Self { home: Arc::new(home), prefix: String::new() }
    }

    /// The scope `name` inside this one: `blocks.0` of the scope `backbone` is `backbone.blocks.0`.
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        Self { home: self.home.clone(), prefix: self.full_name(name.as_ref()) }
    }

    /// The name of this scope, empty for the whole home.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    fn full_name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.home.gpu
    }

    /// The seed of initial values, dropout and stochastic depth.
    pub fn seed(&self) -> u32 {
        self.home.seed
    }

    /// Optimizer steps taken.
    pub fn step(&self) -> u64 {
        self.home.step.load(Ordering::Relaxed)
    }

    /// [`Self::step`] as it is at each run of a captured program.
    pub fn step_scalar(&self) -> Scalar<u32> {
        let step = self.home.step.clone();
        Scalar::live(move || step.load(Ordering::Relaxed) as u32)
    }

    /// What dropout counts by, as it is at each run of a captured program: no two shards of a step
    /// have the same number.
    pub fn draw_scalar(&self) -> Scalar<u32> {
        let shard = self.home.shard.clone();
        self.step_scalar().map(move |step| {
            let [shard, shards] = *shard.lock().unwrap_or_else(PoisonError::into_inner);
            step.wrapping_mul(shards).wrapping_add(shard)
        })
    }

    /// Says that what runs from now on is `shard` of a step that consists of `shards`.
    pub fn set_shard(&self, shard: usize, shards: usize) {
        *self.home.shard.lock().unwrap_or_else(PoisonError::into_inner) = [shard as u32, shards as u32];
    }

    /// From now on batch norms see all shards of a step, by `joint`; by `None`, their own alone.
    pub fn set_joint(&self, joint: Option<Arc<dyn Joint>>) {
        *self.home.joint.lock().unwrap_or_else(PoisonError::into_inner) = joint;
    }

    /// What batch norms ask of other shards.
    pub fn joint(&self) -> Option<Arc<dyn Joint>> {
        self.home.joint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What `work` gives, in which no parameter is watched: networks run in training mode, and leave
    /// no tape.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn unrecorded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.home.recorded.store(false, Ordering::Relaxed);
        let result = work();
        self.home.recorded.store(true, Ordering::Relaxed);
        result
    }

    /// Sets the step, when a run is resumed.
    pub fn set_step(&self, step: u64) {
        self.home.step.store(step, Ordering::Relaxed);
    }

    /// A trained parameter of this scope; the one that exists already where the name is taken with
    /// the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] where the name is taken with another shape; [`Error::Argument`] for a start
    /// that is not finite; out of memory.
    pub fn parameter(&self, name: &str, shape: impl Into<Shape>, kind: Kind, init: Init) -> Result<Parameter> {
        self.create(name, shape.into(), Role::Value(kind), init)
    }

    /// A running statistic of this scope.
    ///
    /// # Errors
    /// As [`Self::parameter`].
    pub fn statistic(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Parameter> {
        self.create(name, shape.into(), Role::Statistic, init)
    }

    /// A count of batches of this scope.
    pub fn counter(&self, name: &str) -> Counter {
        let name = self.full_name(name);
        let mut state = lock(&self.home);
        if let Some((_, _, counter)) = state.counters.iter().find(|(_, n, _)| *n == name) {
            return Counter(counter.clone());
        }
        let counter = Arc::new(AtomicU64::new(0));
        let after = state.entries.len();
        state.counters.push((after, name, counter.clone()));
        Counter(counter)
    }

    fn create(&self, name: &str, shape: Shape, role: Role, init: Init) -> Result<Parameter> {
        let name = self.full_name(name);
        init.check(&name)?;
        let mut state = lock(&self.home);
        if let Some(index) = state.by_name.get(&name).copied() {
            let found = state.entries.get(index).map(|e| e.slot.shape.clone());
            return match found {
                Some(found) if found == shape => Ok(Parameter { home: self.home.clone(), index }),
                _ => Err(Error::shape(name, format!("exists with shape {}, {shape} was asked for", found.unwrap_or_default()))),
            };
        }
        Spec::f32(shape.clone()).check_room(&name, &self.home.gpu)?;
        if state.entries.len() >= MOST_SLOTS {
            return Err(Error::argument(name, format!("there are {MOST_SLOTS} parameters already, the most; use fewer layers")));
        }
        let (padded, limit) = (shape.numel().next_multiple_of(SLOT).max(SLOT), self.largest_chunk());
        if padded > limit {
            let message = format!("shape {shape} has {} elements, and the largest binding holds {limit}; use smaller sizes", shape.numel());
            return Err(Error::Limit { operator: name, message, adapter: self.home.gpu.capabilities().name.clone() });
        }
        let chunks = if role == Role::Statistic { &mut state.statistics } else { &mut state.values };
        let (chunk, start) = reserve(&self.home.gpu, chunks, padded, limit, &name)?;
        let values = || {
            init.values(&shape, &mut Stream::keyed(self.home.seed, Purpose::Initialise.key(), const_fnv1a_hash::fnv1a_hash_str_32(&name)))
        };
        let data = (!self.home.gpu.is_dry()).then(values);
        let origin = leaf(&name, &Spec::f32(shape.clone()));
        let slot = ParameterSlot { name: name.clone(), shape, role, chunk, start, frozen: false, learning_rate: 1.0, weight_decay: 1.0 };
        let index = state.entries.len();
        state.entries.push(Entry { slot, version: Arc::default(), origin });
        state.by_name.insert(name, index);
        state.revision += 1;
        self.home.gpu.invalidate_programs();
        drop(state);
        let parameter = Parameter { home: self.home.clone(), index };
        if let Some(data) = data {
            parameter.detach()?.write(&data)?;
        }
        Ok(parameter)
    }

    fn largest_chunk(&self) -> usize {
        let caps = self.home.gpu.capabilities();
        let bytes = caps.max_binding_bytes.min(caps.max_buffer_bytes);
        usize::try_from(bytes / 4).unwrap_or(usize::MAX) / SLOT * SLOT
    }

    /// All slots, in order of creation.
    pub fn slots(&self) -> Vec<ParameterSlot> {
        lock(&self.home).entries.iter().map(|e| e.slot.clone()).collect()
    }

    /// Changes whenever slots are added, frozen or regrouped.
    pub(crate) fn revision(&self) -> u64 {
        lock(&self.home).revision
    }

    /// The buffers that hold all trained values.
    pub(crate) fn values(&self) -> Vec<Tensor> {
        lock(&self.home).values.iter().map(|c| c.tensor.clone()).collect()
    }

    /// The buffers that hold all running statistics.
    pub(crate) fn statistics(&self) -> Vec<Tensor> {
        lock(&self.home).statistics.iter().map(|c| c.tensor.clone()).collect()
    }

    /// Every parameter and statistic whose name starts with this scope, in order of creation.
    pub fn all(&self) -> Vec<Parameter> {
        let state = lock(&self.home);
        let inside =
            |name: &str| self.prefix.is_empty() || name.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.starts_with('.'));
        let handle = |(index, _): (usize, &Entry)| Parameter { home: self.home.clone(), index };
        state.entries.iter().enumerate().filter(|(_, e)| inside(&e.slot.name)).map(handle).collect()
    }

    /// Every parameter and statistic, whatever this scope.
    pub(crate) fn all_in_home(&self) -> Vec<Parameter> {
        Self { home: self.home.clone(), prefix: String::new() }.all()
    }

    /// The parameter or statistic with this full name.
    pub fn get(&self, name: &str) -> Option<Parameter> {
        let index = *lock(&self.home).by_name.get(name)?;
        Some(Parameter { home: self.home.clone(), index })
    }

    /// How many trained values there are.
    pub fn count(&self) -> usize {
        let trained = |e: &&Entry| matches!(e.slot.role, Role::Value(_));
        lock(&self.home).entries.iter().filter(trained).map(|e| e.slot.shape.numel()).sum()
    }

    /// The names and counts of the counters, each with the number of slots created before it.
    pub fn counters(&self) -> Vec<(usize, String, u64)> {
        lock(&self.home).counters.iter().map(|(at, name, c)| (*at, name.clone(), c.load(Ordering::Relaxed))).collect()
    }

    /// Sets the counter called `name`, where there is one.
    pub fn set_counter(&self, name: &str, value: u64) {
        for (_, _, counter) in lock(&self.home).counters.iter().filter(|(_, n, _)| n == name) {
            counter.store(value, Ordering::Relaxed);
        }
    }

    /// Changes slots, whatever this scope; what was captured before is outdated.
    pub(super) fn edit(&self, change: impl FnMut(&mut ParameterSlot)) {
        let mut state = lock(&self.home);
        state.entries.iter_mut().map(|e| &mut e.slot).for_each(change);
        state.revision += 1;
        self.home.gpu.invalidate_programs();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_two_shards_draw_by_the_same_number() {
        let params = Parameters::new(&Gpu::new().unwrap(), 0);
        params.set_step(3);
        let drawn = params.draw_scalar();
        assert_eq!(drawn.get(), 3);
        let of_step = |step: u64| {
            params.set_step(step);
            (0..4)
                .map(|shard| {
                    params.set_shard(shard, 4);
                    drawn.get()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!([of_step(3), of_step(4)].concat(), (12..20).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_watched_where_nothing_is_recorded() {
        let params = Parameters::new(&Gpu::new().unwrap(), 0);
        let weight = params.parameter("weight", [2], Kind::Other, Init::ONES).unwrap();
        let watched = || weight.tensor(crate::nn::Mode::Train).map(|w| w.is_watched());
        assert!(watched().unwrap() && !params.unrecorded(watched).unwrap());
        // Also behind a failure.
        let failed: Result<()> = params.unrecorded(|| Err(Error::argument("a", "b")));
        assert!(failed.is_err() && watched().unwrap());
    }
}

//! One home for all weights of a run.
//!
//! Every trainable value lives in one buffer, every running statistic in another, at slots aligned to 64 elements, so that an
//! optimizer, an average or a target network walks them all in one dispatch. A buffer that would outgrow the largest
//! binding is continued in another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Mode;
use super::init::Init;
use crate::autograd::leaf;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Scalar};
use crate::io::layout::Layout;
use crate::tensor::random::{Purpose, Stream};
use crate::tensor::{DType, Origin, Shape, Spec, Tensor};

/// Elements between the starts of slots: 256 bytes, the alignment of a binding.
pub const SLOT: usize = 64;

/// A home holds no more slots: the deepest published networks have some thousands.
const MOST_SLOTS: usize = 1 << 16;

/// What a parameter is: decides its layout in files and whether weight decay applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A dense, grouped or transposed convolution's weight.
    Convolution,
    /// A depthwise convolution's weight.
    Depthwise,
    /// A linear layer's weight.
    Linear,
    /// A bias.
    Bias,
    /// Scale or shift of a normalisation.
    Norm,
    /// Tokens, embeddings, position embeddings.
    Embedding,
    /// Anything else that is trained.
    Other,
}

impl Kind {
    /// How files lay it out.
    pub fn layout(self) -> Layout {
        match self {
            Kind::Convolution => Layout::Convolution,
            Kind::Depthwise => Layout::Depthwise,
            _ => Layout::Plain,
        }
    }

    /// Whether it is one that recipes exclude from weight decay.
    pub fn is_bias_or_norm(self) -> bool {
        matches!(self, Kind::Bias | Kind::Norm)
    }
}

/// What becomes of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Trained.
    Value(Kind),
    /// Kept by batch norm.
    Statistic,
}

/// A slot of the home: one entry of the state.
#[derive(Debug, Clone)]
pub struct ParameterSlot {
    /// The state_dict name.
    pub name: String,
    /// The shape in the engine's layout.
    pub shape: Shape,
    /// What becomes of it.
    pub role: Role,
    /// The chunk of its role that holds it.
    pub chunk: usize,
    /// First element in the chunk, a multiple of [`SLOT`].
    pub start: usize,
    /// Not trained: its value and optimizer state stay as they are.
    pub frozen: bool,
    /// Times the learning rate.
    pub learning_rate: f32,
    /// Times the weight decay.
    pub weight_decay: f32,
}

struct Entry {
    slot: ParameterSlot,
    version: Arc<AtomicU64>,
    origin: Origin,
}

/// One buffer of a role; grows by doubling, so views are made anew each time they are asked for.
struct Chunk {
    tensor: Tensor,
    used: usize,
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
    step: Arc<AtomicU64>,
    state: Mutex<State>,
}

/// The weights of a run, or a named scope inside them. Clones are handles.
#[derive(Clone)]
pub struct Parameters {
    home: Arc<Home>,
    prefix: String,
}

/// A handle of one slot.
#[derive(Clone)]
pub struct Parameter {
    home: Arc<Home>,
    index: usize,
}

/// A batch norm's count of training batches, an I64 scalar in files.
#[derive(Debug, Clone)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
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
    /// An empty home. Initial values follow from `seed` and each parameter's name, not from the order of creation.
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
        let home = Home { gpu: gpu.clone(), seed, trainable, step: Arc::default(), state: Mutex::default() };
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

    /// Optimizer steps taken; what dropout counts by.
    pub fn step(&self) -> u64 {
        self.home.step.load(Ordering::Relaxed)
    }

    /// [`Self::step`] as it is at each run of a captured program.
    pub fn step_scalar(&self) -> Scalar<u32> {
        let step = self.home.step.clone();
        Scalar::live(move || step.load(Ordering::Relaxed) as u32)
    }

    /// Sets the step, when a run is resumed.
    pub fn set_step(&self, step: u64) {
        self.home.step.store(step, Ordering::Relaxed);
    }

    /// A trained parameter of this scope; the one that exists already where the name is taken with the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] where the name is taken with another shape; [`Error::Argument`] for a start that is not finite; out of memory.
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
        let values = || init.values(&shape, &mut Stream::keyed(self.home.seed, Purpose::Initialise.key(), fnv1a(&name)));
        let data = (!self.home.gpu.is_dry()).then(values);
        let origin = leaf(&name, &Spec::f32(shape.clone()));
        let slot = ParameterSlot { name: name.clone(), shape, role, chunk, start, frozen: false, learning_rate: 1.0, weight_decay: 1.0 };
        let index = state.entries.len();
        state.entries.push(Entry { slot, version: Arc::default(), origin });
        state.by_name.insert(name, index);
        state.revision += 1;
        self.home.gpu.outdate_programs();
        drop(state);
        let parameter = Parameter { home: self.home.clone(), index };
        if let Some(data) = data {
            parameter.plain()?.write(&data)?;
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
        self.home.gpu.outdate_programs();
    }

    /// Gives back the memory that is kept for parameters to come, which is up to as much again. Optimizers and snapshots do this when they
    /// are made: what they keep has this layout.
    ///
    /// # Errors
    /// Out of memory.
    pub fn compact(&self) -> Result<()> {
        let mut state = lock(&self.home);
        let State { values, statistics, revision, .. } = &mut *state;
        let before = *revision;
        for chunk in values.iter_mut().chain(statistics).filter(|c| c.used < c.tensor.numel()) {
            chunk.tensor = resized(&self.home.gpu, &chunk.tensor, chunk.used)?;
            *revision += 1;
        }
        if *revision != before {
            self.home.gpu.outdate_programs();
            self.home.gpu.trim();
        }
        Ok(())
    }

    /// A copy whose values cannot be watched: build the same model from it for a teacher or a target network. Its layout is
    /// this one's, so an average moves it in one dispatch.
    ///
    /// # Errors
    /// Out of memory.
    pub fn snapshot(&self) -> Result<Parameters> {
        self.compact()?;
        let copy = Self::home(&self.home.gpu, self.home.seed, false);
        let state = lock(&self.home);
        let mut target = lock(&copy.home);
        let duplicate = |chunks: &[Chunk]| -> Result<Vec<Chunk>> {
            let copy = |chunk: &Chunk| {
                let tensor = Tensor::empty(&self.home.gpu, chunk.tensor.shape(), DType::F32)?;
                tensor.copy_from(&chunk.tensor)?;
                Ok(Chunk { tensor, used: chunk.used })
            };
            chunks.iter().map(copy).collect()
        };
        target.values = duplicate(&state.values)?;
        target.statistics = duplicate(&state.statistics)?;
        for entry in &state.entries {
            let slot = entry.slot.clone();
            let origin = leaf(&slot.name, &Spec::f32(slot.shape.clone()));
            target.entries.push(Entry { slot, version: Arc::default(), origin });
        }
        target.by_name = state.by_name.clone();
        for (at, name, counter) in &state.counters {
            target.counters.push((*at, name.clone(), Arc::new(AtomicU64::new(counter.load(Ordering::Relaxed)))));
        }
        drop(target);
        Ok(copy)
    }

    /// Takes all values and statistics of the home that this is a snapshot of.
    pub(crate) fn copy_from(&self, source: &Parameters) -> Result<()> {
        let chunks = |home: &Parameters| home.values().into_iter().chain(home.statistics());
        chunks(self).zip(chunks(source)).try_for_each(|(to, from)| to.copy_from(&from))?;
        self.take_counters(source);
        self.raise_versions(true);
        Ok(())
    }

    /// Takes the counters of the home that this is a snapshot of.
    pub(crate) fn take_counters(&self, source: &Parameters) {
        let of = |home: &Home| lock(home).counters.iter().map(|(_, _, counter)| counter.clone()).collect::<Vec<_>>();
        let pairs: Vec<_> = of(&self.home).into_iter().zip(of(&source.home)).collect();
        self.home.gpu.each_run(move || {
            for (to, from) in &pairs {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        });
    }

    /// Says that a kernel has written all values in place, and the `statistics` as well.
    pub(crate) fn raise_versions(&self, statistics: bool) {
        let written = |e: &&Entry| statistics || e.slot.role != Role::Statistic;
        let versions: Vec<_> = lock(&self.home).entries.iter().filter(written).map(|e| e.version.clone()).collect();
        self.home.gpu.each_run(move || {
            for version in &versions {
                version.fetch_add(1, Ordering::AcqRel);
            }
        });
    }

    /// One more optimizer step was taken.
    pub(crate) fn advance(&self) {
        let step = self.home.step.clone();
        self.home.gpu.each_run(move || {
            step.fetch_add(1, Ordering::Relaxed);
        });
    }
}

fn reserve(gpu: &Gpu, chunks: &mut Vec<Chunk>, elements: usize, limit: usize, name: &str) -> Result<(usize, usize)> {
    if chunks.last().is_none_or(|c| c.used + elements > limit) {
        chunks.push(Chunk { tensor: Tensor::zeros(gpu, [elements], DType::F32)?, used: 0 });
    }
    let index = chunks.len() - 1;
    let Some(chunk) = chunks.last_mut() else { return Err(Error::argument(name, "no chunk")) };
    let needed = chunk.used + elements;
    if needed > chunk.tensor.numel() {
        chunk.tensor = resized(gpu, &chunk.tensor, needed.next_power_of_two().min(limit))?;
    }
    let start = chunk.used;
    chunk.used = needed;
    Ok((index, start))
}

/// A tensor of `elements` that begins with those of `tensor`, as many as fit, and ends with zeros.
pub(crate) fn resized(gpu: &Gpu, tensor: &Tensor, elements: usize) -> Result<Tensor> {
    let fresh = Tensor::zeros(gpu, [elements], DType::F32)?;
    let kept = tensor.numel().min(elements);
    fresh.slot(0, [kept], Arc::default()).copy_from(&tensor.slot(0, [kept], Arc::default()))?;
    Ok(fresh)
}

/// A stable hash of a name (FNV-1a, 32 bits).
fn fnv1a(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Parameter {
    /// The contents as a layer in this mode sees them: watched in training and frozen mode, unless the parameter itself is
    /// frozen, a statistic, or part of a snapshot.
    ///
    /// # Errors
    /// [`Error::Argument`] where the home has no such slot.
    pub fn tensor(&self, mode: Mode) -> Result<Tensor> {
        let state = lock(&self.home);
        let Some(entry) = state.entries.get(self.index) else { return Err(Error::argument("parameter", "it belongs to no home")) };
        let chunks = if entry.slot.role == Role::Statistic { &state.statistics } else { &state.values };
        let Some(chunk) = chunks.get(entry.slot.chunk) else { return Err(Error::argument(&entry.slot.name, "its chunk is missing")) };
        let view = chunk.tensor.slot(entry.slot.start, entry.slot.shape.clone(), entry.version.clone());
        let watch = self.home.trainable && mode != Mode::Eval && !entry.slot.frozen && entry.slot.role != Role::Statistic;
        Ok(if watch { view.with_origin(entry.origin.clone()) } else { view })
    }

    /// The contents, unwatched.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn plain(&self) -> Result<Tensor> {
        self.tensor(Mode::Eval)
    }

    /// The slot's description.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn slot(&self) -> Result<ParameterSlot> {
        let state = lock(&self.home);
        state.entries.get(self.index).map(|e| e.slot.clone()).ok_or_else(|| Error::argument("parameter", "it belongs to no home"))
    }

    /// The identity that gradients are looked up by.
    pub(crate) fn key(&self) -> Option<usize> {
        let state = lock(&self.home);
        state.entries.get(self.index).map(|e| Arc::as_ptr(&e.origin.node).cast::<()>() as usize)
    }
}

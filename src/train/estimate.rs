//! What a network needs of a device's memory, known beforehand: the work itself is run on a dry
//! device ([`Gpu::dry`]), so there is no formula that layers, schedules or optimizers could fall
//! out of step with.

use super::Trainer;
use crate::capture::Capture;
use crate::error::Result;
use crate::gpu::{Gpu, MemoryUse, PlannedLaunch};
use crate::nn::{Mode, Module, Parameters, Summary};
use crate::optim::{Optimizer, OptimizerOptions, Rule};
use crate::tensor::{Spec, Tensor};

/// Device memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Weights and running statistics, as they are kept.
    pub parameters: u64,
    /// What the optimizer keeps from step to step: its state, and the gradients in one piece.
    pub optimizer: u64,
    /// The most in live tensors at any time: [`MemoryUse::peak`].
    pub live: u64,
    /// What the device has to hold for it, with buffers kept for reuse: [`MemoryUse::held`].
    pub held: u64,
}

impl Estimate {
    fn of(gpu: &Gpu, parameters: u64, optimizer: u64) -> Self {
        let memory = gpu.memory();
        Self { parameters, optimizer, live: memory.peak, held: memory.held }
    }
}

/// A supervised step on a device that runs nothing.
struct Supervised<M> {
    model: M,
    optimizer: Box<dyn Optimizer>,
    batch: (Tensor, Tensor),
    /// Bytes of weights and statistics, and of the optimizer's state.
    bytes: [u64; 2],
}

impl<M: Module> Supervised<M> {
    fn new(gpu: &Gpu, build: impl FnOnce(&Parameters) -> Result<M>, input: Spec, optimizer: &str) -> Result<Self> {
        let params = Parameters::new(gpu, 0);
        let model = build(&params)?;
        let classes = model.summarize(&input.shape, &mut Summary::default())?.last();
        params.compact()?;
        let parameters = gpu.memory().in_use;
        let optimizer = Rule::named(optimizer)?.build(&params, OptimizerOptions::default())?;
        let states = gpu.memory().in_use - parameters;
        let range = (0, i32::try_from(classes.saturating_sub(1)).unwrap_or(i32::MAX));
        let labels = Tensor::from_slice(gpu, &vec![0i32; input.shape.dim(0)], [input.shape.dim(0)])?.with_range(Some(range))?;
        let batch = (Tensor::empty(gpu, input.shape, input.dtype)?, labels);
        Ok(Self { model, optimizer, batch, bytes: [parameters, states] })
    }

    fn step(model: &M, optimizer: &mut dyn Optimizer, (input, labels): &(Tensor, Tensor)) -> Result<Tensor> {
        let loss = model.forward(input, Mode::Train)?.cross_entropy(labels, 0.0)?;
        optimizer.step_with(&loss.backward()?, 0.1.into())?;
        Ok(loss)
    }
}

/// The memory of supervised training: the model that `build` makes, on batches of `input`
/// ([`InputShape::batch`](crate::tensor::InputShape::batch), on the device), with cross entropy and
/// the optimizer that [`Rule::named`] knows as `optimizer`; the first step, which is run as it is,
/// and captured ones behind it.
///
/// # Errors
/// Those of `build` and of a step: shapes that do not fit, an unknown optimizer, a limit of the
/// adapter.
pub fn training_memory<M: Module>(
    gpu: &Gpu,
    build: impl FnOnce(&Parameters) -> Result<M>,
    input: Spec,
    optimizer: &str,
) -> Result<Estimate> {
    let gpu = gpu.dry()?;
    let Supervised { model, mut optimizer, batch, bytes: [parameters, states] } = Supervised::new(&gpu, build, input, optimizer)?;
    let mut step = Capture::new(&gpu);
    for _ in 0..3 {
        step.run(&batch, |batch| Supervised::step(&model, &mut *optimizer, batch))?;
    }
    Ok(Estimate::of(&gpu, parameters, states))
}

/// The launches of one step of supervised training, as of [`training_memory`], after a first one.
///
/// # Errors
/// As [`training_memory`].
pub fn training_launches<M: Module>(
    gpu: &Gpu,
    build: impl FnOnce(&Parameters) -> Result<M>,
    input: Spec,
    optimizer: &str,
) -> Result<Vec<PlannedLaunch>> {
    let gpu = gpu.planning()?;
    let Supervised { model, mut optimizer, batch, .. } = Supervised::new(&gpu, build, input, optimizer)?;
    Supervised::step(&model, &mut *optimizer, &batch)?;
    gpu.take_plan()?;
    Supervised::step(&model, &mut *optimizer, &batch)?;
    gpu.take_plan()
}

/// The memory of the model that `build` makes answering for batches of `input`
/// ([`InputShape::batch`](crate::tensor::InputShape::batch), on the device), its parameters compact
/// ([`Parameters::compact`]).
///
/// # Errors
/// Those of `build` and of the model; a limit of the adapter.
pub fn inference_memory<M: Module>(gpu: &Gpu, build: impl FnOnce(&Parameters) -> Result<M>, input: Spec) -> Result<Estimate> {
    let gpu = gpu.dry()?;
    let params = Parameters::new(&gpu, 0);
    let model = build(&params)?;
    params.compact()?;
    let parameters = gpu.memory().in_use;
    let input = Tensor::empty(&gpu, input.shape, input.dtype)?;
    for _ in 0..2 {
        model.forward(&input, Mode::Eval)?;
    }
    Ok(Estimate::of(&gpu, parameters, 0))
}

/// The memory of the run that `make` makes ready: its method, augmentation, optimizer, averages.
///
/// # Errors
/// Those of `make` and of a step.
pub fn run_memory(gpu: &Gpu, make: impl FnOnce(&Gpu) -> Result<Trainer>) -> Result<MemoryUse> {
    let gpu = gpu.dry()?;
    make(&gpu)?.measure_steps(2)?;
    Ok(gpu.memory())
}

/// The launches of one step of the run that `make` makes ready, after a first one.
///
/// # Errors
/// As [`run_memory`].
pub fn run_launches(gpu: &Gpu, make: impl FnOnce(&Gpu) -> Result<Trainer>) -> Result<Vec<PlannedLaunch>> {
    let gpu = gpu.planning()?;
    let mut trainer = make(&gpu)?;
    trainer.measure_steps(0)?;
    gpu.take_plan()?;
    trainer.measure_steps(0)?;
    gpu.take_plan()
}

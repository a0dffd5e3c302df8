//! A step that is recorded once and run again from then on (design.md, decision 9).

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Program};
use crate::ops::exactly;
use crate::tensor::{Spec, Tensor};

/// Programs that are kept: one for each kind of inputs, the last ones used.
const KEPT: usize = 4;

/// What a captured step takes: something that consists of tensors, such as `(images, labels)`.
pub trait Inputs: Sized {
    /// The tensors, always in the same order.
    fn tensors(&self) -> Vec<Tensor>;

    /// Another of the same kind, made of `tensors`.
    ///
    /// # Errors
    /// Where they are not as many.
    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self>;
}

impl Inputs for Tensor {
    fn tensors(&self) -> Vec<Tensor> {
        vec![self.clone()]
    }

    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self> {
        let [tensor] = exactly("capture", tensors)?;
        Ok(tensor.clone())
    }
}

impl Inputs for Vec<Tensor> {
    fn tensors(&self) -> Vec<Tensor> {
        self.clone()
    }

    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self> {
        Ok(tensors.to_vec())
    }
}

impl<const N: usize> Inputs for [Tensor; N] {
    fn tensors(&self) -> Vec<Tensor> {
        self.to_vec()
    }

    fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self> {
        exactly("capture", tensors).cloned()
    }
}

/// A tuple's tensors are those of its parts, one part after the other.
macro_rules! tuple {
    ($($part:ident $index:tt),+) => {
        impl<$($part: Inputs),+> Inputs for ($($part,)+) {
            fn tensors(&self) -> Vec<Tensor> {
                [$(self.$index.tensors()),+].concat()
            }

            fn with_tensors(&self, tensors: &[Tensor]) -> Result<Self> {
                let mut rest = tensors;
                let made = ($({
                    let count = self.$index.tensors().len();
                    let (own, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                    rest = others;
                    self.$index.with_tensors(own)?
                },)+);
                let [] = exactly("capture", rest)?;
                Ok(made)
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);

struct Captured<T> {
    inputs: Vec<Tensor>,
    output: T,
    program: Program,
}

/// A step that is run as it is at first (what is made on the way, say an optimizer's state, then
/// exists), recorded the second time, and from then on replayed: the host does no shape work, no
/// allocation and no tape any more. The bits are those of the step itself.
///
/// Inputs of another shape are another program; frozen parameters and changed learning-rate
/// multipliers are noticed. Everything else that the step takes from outside is what it was when it
/// was recorded: numbers that vary are [`Scalar`](crate::gpu::Scalar)s, tensors that vary are
/// inputs.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use wgrad::gpu::{Gpu, ScalarCell};
/// use wgrad::nn::{Linear, Mode, Module, Parameters};
/// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
/// use wgrad::tensor::{DType, Tensor};
/// use wgrad::capture::Capture;
///
/// let gpu = Gpu::new()?;
/// let params = Parameters::new(&gpu, 0);
/// let model = Linear::new(&params, "model", 2, 1)?;
/// let mut optimizer = Sgd::new(&params, SgdOptions::default())?;
/// let (mut step, rate) = (Capture::new(&gpu), ScalarCell::new(0.1f32));
/// for i in 0..5 {
///     rate.set(0.1 / (i + 1) as f32);
///     let batch = (Tensor::full(&gpu, [8, 2], i as f32, DType::F32)?, Tensor::full(&gpu, [8, 1], 1.0, DType::F32)?);
///     let loss = step.run(&batch, |(x, y)| {
///         let loss = model.forward(x, Mode::Train)?.mse_loss(y)?;
///         optimizer.step(&loss.backward()?, &rate)?;
///         Ok(loss)
///     })?;
///     assert!(loss.item()?.is_finite()); // overwritten by the next run
/// }
/// assert!(step.program().is_some_and(|program| program.dispatches() > 3));
/// # Ok(())
/// # }
/// ```
pub struct Capture<T> {
    gpu: Gpu,
    captured: Vec<Captured<T>>,
    /// What has been run once, and when: a parameter that is frozen since is something that a step
    /// must do once more (an optimizer's tables follow) before it can be recorded.
    seen: Vec<Vec<Spec>>,
    generation: u64,
    eager: bool,
}

impl<T: Clone> Capture<T> {
    /// Nothing recorded yet. Where the device traces non-finite numbers, which it reads after each
    /// operator, steps are never recorded.
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            gpu: gpu.clone(),
            captured: Vec::new(),
            seen: Vec::new(),
            generation: gpu.generation(),
            eager: gpu.options().trace_non_finite,
        }
    }

    /// One that never records: for comparisons.
    pub fn eager(gpu: &Gpu) -> Self {
        Self { eager: true, ..Self::new(gpu) }
    }

    /// One step on `inputs`. What it returns belongs to the program: the next run overwrites it, so
    /// read it (or begin to, by [`Tensor::read_later`]) before.
    ///
    /// # Errors
    /// Those of `work`, which may neither upload nor read back; [`Error::Argument`] for inputs
    /// whose integers leave the range that the program's operators were told.
    pub fn run<I: Inputs>(&mut self, inputs: &I, work: impl FnOnce(&I) -> Result<T>) -> Result<T> {
        self.run_by(inputs, work, |program, _| program.replay())
    }

    /// As [`Self::run`]; where the step is replayed, `at_mark` is given what it returns and the number
    /// of each mark that `work` has set ([`Gpu::mark`]), when all before it is submitted.
    ///
    /// # Errors
    /// As [`Self::run`]; those of `at_mark`.
    pub fn run_in_parts<I: Inputs>(
        &mut self,
        inputs: &I,
        work: impl FnOnce(&I) -> Result<T>,
        mut at_mark: impl FnMut(&T, usize) -> Result<()>,
    ) -> Result<T> {
        self.run_by(inputs, work, |program, output| program.replay_in_parts(|number| at_mark(output, number)))
    }

    fn run_by<I: Inputs>(
        &mut self,
        inputs: &I,
        work: impl FnOnce(&I) -> Result<T>,
        replay: impl FnOnce(&Program, &T) -> Result<()>,
    ) -> Result<T> {
        if self.stage(inputs)?
            && let Some(captured) = self.captured.last()
        {
            replay(&captured.program, &captured.output)?;
            return Ok(captured.output.clone());
        }
        let tensors = inputs.tensors();
        let specs: Vec<Spec> = tensors.iter().map(|t| t.spec().clone()).collect();
        if self.generation != self.gpu.generation() {
            self.seen.clear();
        }
        if self.eager || !self.seen.contains(&specs) {
            self.seen.retain(|s| *s != specs);
            self.seen.push(specs);
            if self.seen.len() > KEPT {
                self.seen.remove(0);
            }
            let output = work(inputs);
            self.generation = self.gpu.generation();
            return output;
        }
        let own = tensors.iter().map(Tensor::copy).collect::<Result<Vec<_>>>()?;
        let own_inputs = inputs.with_tensors(&own)?;
        let (output, program) = self.gpu.capture(|| work(&own_inputs))?;
        if !program.is_current() {
            return Err(Error::argument("capture", "the step added or froze parameters; do that before it"));
        }
        if self.captured.len() >= KEPT {
            self.captured.remove(0);
        }
        self.captured.push(Captured { inputs: own, output: output.clone(), program });
        Ok(output)
    }

    /// Copies `inputs` to where the program that was recorded for their kind takes them, so that
    /// [`Self::program`] does a step with them; false where none was recorded yet.
    ///
    /// # Errors
    /// A lost device or an earlier driver error.
    pub fn stage<I: Inputs>(&mut self, inputs: &I) -> Result<bool> {
        let tensors = inputs.tensors();
        self.captured.retain(|c| c.program.is_current());
        let Some(at) = self.captured.iter().position(|c| fits(&c.inputs, &tensors)) else { return Ok(false) };
        let captured = self.captured.remove(at);
        for (own, given) in captured.inputs.iter().zip(&tensors) {
            own.copy_from(given)?;
        }
        self.captured.push(captured);
        Ok(true)
    }

    /// The program that was run or staged last, once there is one.
    pub fn program(&self) -> Option<&Program> {
        self.captured.last().map(|c| &c.program)
    }
}

/// Whether a program made for `own` inputs takes `given` ones.
fn fits(own: &[Tensor], given: &[Tensor]) -> bool {
    own.len() == given.len()
        && own.iter().zip(given).all(|(own, given)| {
            let (known, new) = (own.spec().range, given.spec().range);
            let inside = known.is_none_or(|(low, high)| new.is_some_and(|(least, most)| least >= low && most <= high));
            own.shape() == given.shape() && own.dtype() == given.dtype() && inside
        })
}

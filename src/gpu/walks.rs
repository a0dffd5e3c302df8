//! Rounds of loops: software drivers leave an invocation's loops after so many, without a word. The
//! crate's own kernels declare theirs ([`Launch::walk`](super::Launch::walk)); those from outside
//! are counted there, and in tests all are. In tests with bounds checks, own kernels report by the
//! same word that an index lay outside of its binding. Text that counts has a private counter that every round
//! of a loop raises, and reports it to a word of its own where the entry point returns.

use std::collections::HashMap;
use std::sync::Arc;

use naga::{Block, Expression, Function, GlobalVariable, Handle, Module, Span, Statement};

use super::capabilities::SOFTWARE_ROUNDS;
use super::kernel::Pipeline;
use super::poison::FILL;
use super::template::OUTSIDE;
use super::waiting::{Answer, Polled, unmapped};
use super::{Gpu, lock};
use crate::error::{Error, Result};

/// Rounds of a loop whose body runs `times` times and has `inside` rounds of loops itself: each
/// time costs a round, and so does leaving.
pub fn rounds(times: usize, inside: usize) -> usize {
    inside.saturating_add(1).saturating_mul(times).saturating_add(1)
}

/// Which kernels count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// None: the driver has no limit.
    Nothing,
    /// Those from outside the crate.
    Outside,
    /// All, to be compared with what they declare.
    All,
}

fn any_loop(block: &Block, known: &HashMap<Handle<Function>, bool>) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Loop { .. } => true,
        Statement::Block(inner) => any_loop(inner, known),
        Statement::If { accept, reject, .. } => any_loop(accept, known) || any_loop(reject, known),
        Statement::Switch { cases, .. } => cases.iter().any(|case| any_loop(&case.body, known)),
        Statement::Call { function, .. } => known.get(function).copied().unwrap_or(true),
        _ => false,
    })
}

/// The entry points that can reach a loop.
pub(super) fn looping(module: &Module) -> Vec<String> {
    // Functions stand before those that call them.
    let mut known = HashMap::new();
    for (handle, function) in module.functions.iter() {
        known.insert(handle, any_loop(&function.body, &known));
    }
    module.entry_points.iter().filter(|entry| any_loop(&entry.function.body, &known)).map(|entry| entry.name.clone()).collect()
}

/// The variables of a module that counts.
#[derive(Clone, Copy)]
struct Variables {
    counter: Handle<GlobalVariable>,
    word: Handle<GlobalVariable>,
    /// Not 0 where an index lay outside of its binding, if the text notes that.
    outside: Option<Handle<GlobalVariable>>,
}

/// What a word holds beside the rounds: an index lay outside of its binding.
const OUTSIDE_BIT: u32 = 31;

/// Makes every loop count its rounds, and every entry point report them to a word at the first
/// binding of `group`, with what guarded accessors noted.
pub(super) fn instrument(module: &mut Module, group: u32) {
    let noted = module.global_variables.iter().find(|(_, variable)| variable.name.as_deref() == Some(OUTSIDE));
    let outside = noted.map(|(handle, _)| handle);
    let unsigned = naga::TypeInner::Scalar(naga::Scalar::U32);
    let unsigned = module.types.insert(naga::Type { name: None, inner: unsigned }, Span::UNDEFINED);
    let atomic = naga::TypeInner::Atomic(naga::Scalar::U32);
    let atomic = module.types.insert(naga::Type { name: None, inner: atomic }, Span::UNDEFINED);
    let mut variable = |name: &str, space, binding, ty| {
        let variable = GlobalVariable {
            name: Some(name.into()),
            space,
            binding,
            ty,
            init: None,
            memory_decorations: naga::MemoryDecorations::empty(),
        };
        module.global_variables.append(variable, Span::UNDEFINED)
    };
    let binding = Some(naga::ResourceBinding { group, binding: 0 });
    let access = naga::StorageAccess::LOAD | naga::StorageAccess::STORE;
    let variables = Variables {
        counter: variable("rounds_of_loops", naga::AddressSpace::Private, None, unsigned),
        word: variable("most_rounds_of_loops", naga::AddressSpace::Storage { access }, binding, atomic),
        outside,
    };
    let entries = module.entry_points.iter_mut().map(|entry| (&mut entry.function, true));
    // What fills workgroup memory for tests is no walk of the kernel's.
    let functions = module.functions.iter_mut().map(|(_, function)| (function, false)).filter(|(f, _)| f.name.as_deref() != Some(FILL));
    for (function, is_entry) in functions.chain(entries) {
        let mut body = std::mem::take(&mut function.body);
        raise(&mut body, function, variables.counter);
        if is_entry {
            body = reporting(body, function, variables);
            if !matches!(body.last(), Some(Statement::Return { .. })) {
                body.append(&mut report(function, variables));
            }
        }
        function.body = body;
    }
}

fn emit(function: &Function, first: usize, block: &mut Block) {
    block.push(Statement::Emit(function.expressions.range_from(first)), Span::UNDEFINED);
}

/// `counter = counter + 1` at the start of each loop's body.
fn raise(block: &mut Block, function: &mut Function, counter: Handle<GlobalVariable>) {
    for (statement, _) in block.span_iter_mut() {
        match statement {
            Statement::Loop { body, continuing, .. } => {
                raise(body, function, counter);
                raise(continuing, function, counter);
                let mut add = |e| function.expressions.append(e, Span::UNDEFINED);
                let pointer = add(Expression::GlobalVariable(counter));
                let right = add(Expression::Literal(naga::Literal::U32(1)));
                let left = add(Expression::Load { pointer });
                let value = add(Expression::Binary { op: naga::BinaryOperator::Add, left, right });
                let mut first = Block::new();
                emit(function, left.index(), &mut first);
                first.push(Statement::Store { pointer, value }, Span::UNDEFINED);
                body.splice(0..0, first);
            }
            Statement::Block(inner) => raise(inner, function, counter),
            Statement::If { accept, reject, .. } => {
                raise(accept, function, counter);
                raise(reject, function, counter);
            }
            Statement::Switch { cases, .. } => cases.iter_mut().for_each(|case| raise(&mut case.body, function, counter)),
            _ => {}
        }
    }
}

/// `block` with a report before each return.
fn reporting(block: Block, function: &mut Function, variables: Variables) -> Block {
    let mut whole = Block::new();
    for (mut statement, span) in block.span_into_iter() {
        let mut inside = |block: &mut Block| *block = reporting(std::mem::take(block), function, variables);
        match &mut statement {
            Statement::Return { .. } => whole.append(&mut report(function, variables)),
            Statement::Block(inner) => inside(inner),
            Statement::If { accept, reject, .. } => {
                inside(accept);
                inside(reject);
            }
            Statement::Loop { body, .. } => inside(body),
            Statement::Switch { cases, .. } => cases.iter_mut().for_each(|case| inside(&mut case.body)),
            _ => {}
        }
        whole.push(statement, span);
    }
    whole
}

/// `if (counter > word) { atomicMax(&word, counter) }`: most invocations walk equally far, so few
/// of them write.
fn report(function: &mut Function, Variables { counter, word, outside }: Variables) -> Block {
    let mut add = |e| function.expressions.append(e, Span::UNDEFINED);
    let from = add(Expression::GlobalVariable(counter));
    let pointer = add(Expression::GlobalVariable(word));
    let noted = outside.map(|variable| add(Expression::GlobalVariable(variable)));
    let bit = add(Expression::Literal(naga::Literal::U32(OUTSIDE_BIT)));
    let counted = add(Expression::Load { pointer: from });
    let value = match noted {
        None => counted,
        Some(pointer) => {
            let left = add(Expression::Load { pointer });
            let right = add(Expression::Binary { op: naga::BinaryOperator::ShiftLeft, left, right: bit });
            add(Expression::Binary { op: naga::BinaryOperator::InclusiveOr, left: counted, right })
        }
    };
    let most = add(Expression::Load { pointer });
    let condition = add(Expression::Binary { op: naga::BinaryOperator::Greater, left: value, right: most });
    let mut block = Block::new();
    emit(function, counted.index(), &mut block);
    let atomic = Statement::Atomic { pointer, fun: naga::AtomicFunction::Max, value, result: None };
    block.push(Statement::If { condition, accept: Block::from_vec(vec![atomic]), reject: Block::new() }, Span::UNDEFINED);
    block
}

/// Words in one buffer.
const WORDS: usize = 256;

struct Slot {
    kernel: Arc<str>,
    declared: Option<usize>,
    group: wgpu::BindGroup,
}

/// The words that kernels report to: one for each kernel and walk that it declares.
#[derive(Default)]
pub(crate) struct Walks {
    places: HashMap<(Arc<str>, Option<usize>), usize>,
    slots: Vec<Slot>,
    buffers: Vec<wgpu::Buffer>,
}

impl Walks {
    fn group(&mut self, gpu: &Gpu, pipeline: &Pipeline, declared: Option<usize>) -> Option<wgpu::BindGroup> {
        let key = (pipeline.label.clone(), declared);
        if let Some(slot) = self.places.get(&key).and_then(|at| self.slots.get(*at)) {
            return Some(slot.group.clone());
        }
        let device = gpu.device();
        let stride = u64::from(device.limits().min_storage_buffer_offset_alignment.max(4));
        if self.slots.len().is_multiple_of(WORDS) {
            self.buffers.push(device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("rounds of loops"),
                size: WORDS as u64 * stride,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }));
        }
        let offset = (self.slots.len() % WORDS) as u64 * stride;
        let words = wgpu::BufferBinding { buffer: self.buffers.last()?, offset, size: std::num::NonZeroU64::new(4) };
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("rounds of loops"),
            layout: &gpu.kernels().rounds_layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(words) }],
        });
        self.places.insert(key, self.slots.len());
        self.slots.push(Slot { kernel: pipeline.label.clone(), declared, group: group.clone() });
        Some(group)
    }
}

impl Slot {
    /// What is wrong with having walked so far.
    fn judge(&self, word: u32, software: bool) -> Option<Error> {
        let walked = (word & !(1 << OUTSIDE_BIT)) as usize;
        let message = match self.declared {
            _ if word >> OUTSIDE_BIT != 0 => "an invocation reads or writes outside of a binding".into(),
            Some(declared) if walked > declared => format!("an invocation walked {walked} rounds of loops, its launch declares {declared}"),
            None if software && walked >= SOFTWARE_ROUNDS => format!(
                "left its loops after {SOFTWARE_ROUNDS} rounds, as software drivers do: the results are short; share the walk among \
                 invocations or launches, or use a GPU"
            ),
            _ => return None,
        };
        Some(Error::Driver { operator: self.kernel.to_string(), message })
    }
}

impl Gpu {
    /// What a launch binds to be counted.
    pub(super) fn words(&self, pipeline: &Pipeline, declared: Option<usize>) -> Option<wgpu::BindGroup> {
        lock(&self.inner.walks).group(self, pipeline, declared)
    }

    /// Looks at what has been counted since the last look; a fault becomes the device's error.
    pub(super) async fn check_walks(&self, polled: Polled) -> Result<()> {
        if !std::mem::take(&mut self.recorder().counted) {
            return Ok(());
        }
        let (copies, submission) = self.copied_walks();
        let software = !self.capabilities().may_walk(usize::MAX);
        for (part, (buffer, answer)) in copies.into_iter().enumerate() {
            self.answered(&answer, Some(submission.clone()), polled).await?;
            let data = buffer.get_mapped_range(..).map_err(unmapped)?.to_vec();
            let walks = lock(&self.inner.walks);
            let slots = walks.slots.iter().skip(part * WORDS);
            for (slot, word) in slots.zip(data.chunks_exact(data.len() / WORDS)) {
                let word = word.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
                if let Some(error) = slot.judge(word, software) {
                    self.inner.health.fail(error);
                }
            }
        }
        self.check()
    }

    /// Copies of all words on their way to the host, and the submission that carries them.
    fn copied_walks(&self) -> (Vec<(wgpu::Buffer, Arc<Answer>)>, wgpu::SubmissionIndex) {
        let walks = lock(&self.inner.walks);
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("rounds of loops") });
        let copies: Vec<wgpu::Buffer> = walks.buffers.iter().map(|words| copy(self.device(), &mut encoder, words)).collect();
        let submission = self.inner.queue.submit([encoder.finish()]);
        let asked = |buffer: wgpu::Buffer| {
            let answer = Answer::to_mapping(&buffer);
            (buffer, answer)
        };
        (copies.into_iter().map(asked).collect(), submission)
    }
}

/// A copy of `words` that the host can map.
fn copy(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, words: &wgpu::Buffer) -> wgpu::Buffer {
    let size = words.size();
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let copy = device.create_buffer(&wgpu::BufferDescriptor { label: Some("rounds of loops"), size, usage, mapped_at_creation: false });
    encoder.copy_buffer_to_buffer(words, 0, &copy, 0, size);
    copy
}

#[cfg(test)]
mod tests {
    use super::super::{GpuOptions, Kernel, Launch};
    use super::*;
    use crate::tensor::{DType, Tensor};

    const TEXT: &str = r#"{{ inout(0, "y") }} {{ params("n: u32") }}
        fn more() { for (var i = 0u; i < p.n; i++) { store_y(0u, load_y(0u) + 1.0); } }
        @compute @workgroup_size(1) fn run() { more(); }"#;

    /// A launch of a kernel of the crate that walks `n` rounds and says `declared`.
    fn walk(gpu: &Gpu, n: usize, declared: Option<usize>) -> Result<Vec<f32>> {
        let kernel = Kernel::embedded("test/walk", TEXT);
        let y = Tensor::zeros(gpu, [1], DType::F32)?;
        let launch = Launch::new(gpu, &kernel, "run").write(&y).params(crate::params![n]);
        declared.into_iter().fold(launch, Launch::walk).groups(1)?;
        y.to_vec()
    }

    #[test]
    fn a_kernel_of_the_crate_says_how_far_it_walks_and_is_counted() {
        let gpu = || Gpu::with(GpuOptions { poison: true, ..GpuOptions::from_env().unwrap() }).unwrap();
        let device = gpu();
        let undeclared = walk(&device, 3, None).unwrap_err();
        assert!(matches!(&undeclared, Error::Shader { .. }) && undeclared.to_string().contains("Launch::walk"), "{undeclared}");
        assert_eq!(walk(&device, 3, Some(rounds(3, 0))).unwrap(), [3.0]);
        let short = walk(&device, 3, Some(3)).unwrap_err();
        assert!(short.to_string().contains("walked 4 rounds of loops, its launch declares 3"), "{short}");
    }

    #[test]
    fn an_index_outside_of_its_binding_is_an_error_where_accessors_are_guarded() {
        let text = r#"{{ input(0, "x", width=4) }} {{ output(1, "y") }} {{ params("at: u32") }}
            @compute @workgroup_size(1) fn run() { store_y(0u, load_x(p.at)); }"#;
        let kernel = Kernel::embedded("test/outside", text);
        for webgpu_limits in [false, true] {
            let options = GpuOptions { poison: true, checked: true, webgpu_limits, ..GpuOptions::from_env().unwrap() };
            let read = |at: u32| {
                let gpu = Gpu::with(options.clone()).unwrap();
                let (x, y) = (Tensor::full(&gpu, [4], 3.0, DType::F32)?, Tensor::zeros(&gpu, [1], DType::F32)?);
                Launch::new(&gpu, &kernel, "run").read(&x).write(&y).params(crate::params![at]).groups(1)?;
                y.to_vec::<f32>()
            };
            assert_eq!(read(3).unwrap(), [3.0]);
            let error = read(u32::MAX).unwrap_err().to_string();
            assert!(error.contains("test/outside:run") && error.contains("outside of a binding"), "{error}");
        }
    }

    #[test]
    fn rounds_of_nested_loops_multiply_and_do_not_overflow() {
        assert_eq!((rounds(0, 7), rounds(3, 0), rounds(2, rounds(3, 0))), (1, 4, 11));
        assert_eq!(rounds(usize::MAX, usize::MAX), usize::MAX);
    }
}

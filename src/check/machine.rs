//! Statements, of all invocations of a workgroup together: each is done by those that are active.

use std::collections::HashMap;

use naga::valid::FunctionInfo;
use naga::{Block, Expression, Function, Handle, Module, Span, Statement, SwitchValue};

use super::Options;
use super::memory::{Shared, store};
use super::report::{Finding, FindingKind};
use super::value::Column;
use crate::error::{Error, Result};
use crate::gpu::source::Source;

/// Rounds that every driver grants an invocation.
const GRANTED: u64 = 65_535;
/// Different findings that are kept.
const KEPT: usize = 64;

/// Which invocations do something.
pub(super) type Mask = Vec<bool>;

/// A function under way.
pub(super) struct Frame<'s> {
    pub function: &'s Function,
    pub info: &'s FunctionInfo,
    pub values: Vec<Option<Column>>,
    pub arguments: Vec<Column>,
    /// The place of its first variable among all.
    pub first_local: usize,
    returned: Mask,
    result: Option<Column>,
    broken: Mask,
    continued: Mask,
}

/// Bytes of a variable that each invocation has for itself.
pub(super) struct Own {
    pub bytes: Vec<u8>,
    /// Bytes of one.
    pub size: usize,
}

/// Where a variable's bytes are.
pub(super) enum Memory {
    Shared(Shared),
    Own(Own),
    /// Parameters, which are only read.
    Constant(Vec<u8>),
}

/// What is found once: a kind, and one or two places in the text.
type Seen = (FindingKind, [Option<(usize, usize)>; 2]);

pub(super) struct Machine<'s> {
    pub source: &'s Source,
    pub options: Options,
    pub entry: usize,
    pub grid: [u32; 3],
    pub size: [u32; 3],
    pub lanes: usize,
    pub group: [u32; 3],
    pub group_number: u32,
    /// Of the memory of workgroups and of buffers.
    pub epochs: [u32; 2],
    pub globals: Vec<Memory>,
    pub locals: Vec<Own>,
    pub frames: Vec<Frame<'s>>,
    pub rounds: Vec<u64>,
    pub most_rounds: u64,
    pub findings: Vec<Finding>,
    pub seen: HashMap<Seen, usize>,
    pub buffers: Vec<(String, usize)>,
}

impl<'s> Machine<'s> {
    /// Runs a function; what it returns.
    pub fn call(
        &mut self,
        function: &'s Function,
        info: &'s FunctionInfo,
        arguments: Vec<Column>,
        active: &Mask,
    ) -> Result<Option<Column>> {
        let module = &self.source.module;
        let first_local = self.locals.len();
        for (_, variable) in function.local_variables.iter() {
            let size = self.bytes_of(&module.types[variable.ty].inner)?;
            self.locals.push(Own { bytes: vec![0; size * self.lanes], size });
        }
        self.frames.push(Frame {
            function,
            info,
            values: vec![None; function.expressions.len()],
            arguments,
            first_local,
            returned: vec![false; self.lanes],
            result: None,
            broken: vec![false; self.lanes],
            continued: vec![false; self.lanes],
        });
        for (handle, variable) in function.local_variables.iter() {
            if let Some(init) = variable.init {
                let value = self.value(init)?;
                let leaves = self.leaves(&module.types[variable.ty].inner)?;
                if let Some(own) = self.locals.get_mut(first_local + handle.index()) {
                    for lane in 0..self.lanes {
                        for ((offset, scalar), bits) in leaves.iter().zip(value.lane(lane)) {
                            store(&mut own.bytes, lane * own.size + *offset as usize, *scalar, *bits);
                        }
                    }
                }
            }
        }
        let mut active = active.clone();
        self.block(&function.body, &mut active)?;
        self.locals.truncate(first_local);
        Ok(self.frames.pop().and_then(|frame| frame.result))
    }

    pub fn frame(&mut self) -> Result<&mut Frame<'s>> {
        let name = self.source.name().to_string();
        self.frames.last_mut().ok_or_else(|| Error::shader(name, "no function is under way"))
    }

    /// Does the statements of a block; invocations that leave it are no longer active behind it.
    fn block(&mut self, block: &'s Block, active: &mut Mask) -> Result<()> {
        for (statement, span) in block.span_iter() {
            if !active.iter().any(|a| *a) {
                return Ok(());
            }
            self.statement(statement, *span, active)?;
        }
        Ok(())
    }

    fn leave(&mut self, active: &mut Mask, into: impl for<'f> Fn(&'f mut Frame<'s>) -> &'f mut Mask) -> Result<()> {
        let mask = into(self.frame()?);
        mask.iter_mut().zip(active.iter_mut()).for_each(|(to, from)| *to |= std::mem::take(from));
        Ok(())
    }

    fn statement(&mut self, statement: &'s Statement, span: Span, active: &mut Mask) -> Result<()> {
        match statement {
            Statement::Emit(range) => {
                for expression in range.clone() {
                    self.emit(expression, active)?;
                }
            }
            Statement::Block(block) => self.block(block, active)?,
            Statement::If { condition, accept, reject } => {
                let condition = self.value(*condition)?;
                let truth = |wanted: bool| -> Mask {
                    active.iter().enumerate().map(|(lane, active)| *active && (condition.first(lane) != 0) == wanted).collect()
                };
                let [mut yes, mut no] = [truth(true), truth(false)];
                self.block(accept, &mut yes)?;
                self.block(reject, &mut no)?;
                active.iter_mut().zip(yes.iter().zip(&no)).for_each(|(active, (yes, no))| *active = *yes || *no);
            }
            Statement::Switch { selector, cases } => {
                let selector = self.value(*selector)?;
                let matches = |value: &SwitchValue, lane: usize| match value {
                    SwitchValue::I32(value) => selector.first(lane) == *value as u32,
                    SwitchValue::U32(value) => selector.first(lane) == *value,
                    SwitchValue::Default => false,
                };
                let default = cases.iter().position(|case| case.value == SwitchValue::Default);
                let chosen: Vec<Option<usize>> =
                    (0..self.lanes).map(|lane| cases.iter().position(|case| matches(&case.value, lane)).or(default)).collect();
                let lanes = self.lanes;
                let broken = std::mem::replace(&mut self.frame()?.broken, vec![false; lanes]);
                let (mut through, mut done): (Mask, Mask) = (vec![false; self.lanes], vec![false; self.lanes]);
                for (number, case) in cases.iter().enumerate() {
                    let mut mask: Mask = (0..self.lanes)
                        .map(|lane| {
                            let here = active.get(lane).copied().unwrap_or(false) && chosen.get(lane).copied().flatten() == Some(number);
                            here || through.get(lane).copied().unwrap_or(false)
                        })
                        .collect();
                    self.block(&case.body, &mut mask)?;
                    if case.fall_through {
                        through = mask;
                    } else {
                        done.iter_mut().zip(&mask).for_each(|(done, mask)| *done |= mask);
                        through = vec![false; self.lanes];
                    }
                }
                let left = std::mem::replace(&mut self.frame()?.broken, broken);
                let none = |lane: usize| chosen.get(lane).copied().flatten().is_none();
                for (lane, active) in active.iter_mut().enumerate() {
                    let get = |mask: &Mask| mask.get(lane).copied().unwrap_or(false);
                    *active = get(&done) || get(&left) || (*active && none(lane));
                }
            }
            Statement::Loop { body, continuing, break_if } => self.loops(body, continuing, *break_if, span, active)?,
            Statement::Break => self.leave(active, |frame| &mut frame.broken)?,
            Statement::Continue => self.leave(active, |frame| &mut frame.continued)?,
            Statement::Kill => self.leave(active, |frame| &mut frame.returned)?,
            Statement::Return { value } => {
                if let Some(value) = value {
                    let found = self.value(*value)?;
                    let frame = self.frame()?;
                    match &mut frame.result {
                        None => frame.result = Some(found),
                        Some(result) => {
                            active.iter().enumerate().filter(|(_, a)| **a).for_each(|(lane, _)| result.set(lane, found.lane(lane)))
                        }
                    }
                }
                self.leave(active, |frame| &mut frame.returned)?;
            }
            Statement::ControlBarrier(barrier) => {
                if barrier.contains(naga::Barrier::WORK_GROUP) || barrier.contains(naga::Barrier::STORAGE) {
                    self.arrive(active, span);
                }
                if barrier.contains(naga::Barrier::WORK_GROUP) {
                    self.epochs[0] += 1;
                }
                if barrier.contains(naga::Barrier::STORAGE) {
                    self.epochs[1] += 1;
                }
            }
            Statement::MemoryBarrier(_) => {}
            Statement::Store { pointer, value } => {
                let (pointer, value) = (*pointer, self.value(*value)?);
                self.write(pointer, &value, span, active, false)?;
            }
            Statement::Atomic { pointer, fun, value, result } => self.atomic(*pointer, fun, *value, *result, span, active)?,
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.arrive(active, span);
                self.epochs[0] += 1;
                let found = self.read(*pointer, span, active, false)?;
                self.epochs[0] += 1;
                self.put(*result, found)?;
            }
            Statement::Call { function, arguments, result } => {
                let arguments = arguments.iter().map(|argument| self.value(*argument)).collect::<Result<Vec<_>>>()?;
                let found = self.call(&self.source.module.functions[*function], &self.source.info[*function], arguments, active)?;
                if let (Some(result), Some(found)) = (result, found) {
                    self.put(*result, found)?;
                }
            }
            Statement::SubgroupBallot { result, predicate } => self.ballot(*result, *predicate, span, active)?,
            Statement::SubgroupGather { mode, argument, result } => self.gather(mode, *argument, *result, span, active)?,
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                self.collective(*op, *collective_op, *argument, *result, span, active)?;
            }
            _ => return Err(self.unknown("textures, cooperative matrices and rays")),
        }
        Ok(())
    }

    fn loops(
        &mut self,
        body: &'s Block,
        continuing: &'s Block,
        break_if: Option<Handle<Expression>>,
        span: Span,
        active: &mut Mask,
    ) -> Result<()> {
        let outer = {
            let lanes = self.lanes;
            let frame = self.frame()?;
            [std::mem::replace(&mut frame.broken, vec![false; lanes]), std::mem::replace(&mut frame.continued, vec![false; lanes])]
        };
        let mut looping = active.clone();
        let mut left: Mask = vec![false; self.lanes];
        while looping.iter().any(|a| *a) {
            let mut longest = 0;
            for (rounds, _) in self.rounds.iter_mut().zip(&looping).filter(|(_, looping)| **looping) {
                *rounds += 1;
                longest = longest.max(*rounds);
            }
            if longest == GRANTED {
                self.find(
                    FindingKind::Rounds,
                    || format!("an invocation walks more than {GRANTED} rounds of loops, which some drivers end without a word"),
                    &[span],
                );
            }
            if longest > self.options.most_rounds {
                let message =
                    format!("an invocation has walked {longest} rounds of loops and is given up{}", self.source.place(span, "here"));
                return Err(Error::shader(self.source.name(), message));
            }
            self.block(body, &mut looping)?;
            let lanes = self.lanes;
            let continued = std::mem::replace(&mut self.frame()?.continued, vec![false; lanes]);
            looping.iter_mut().zip(continued).for_each(|(looping, continued)| *looping |= continued);
            self.block(continuing, &mut looping)?;
            if let Some(condition) = break_if.filter(|_| looping.iter().any(|a| *a)) {
                let condition = self.value(condition)?;
                for (lane, looping) in looping.iter_mut().enumerate() {
                    if *looping && condition.first(lane) != 0 {
                        *looping = false;
                        left.iter_mut().skip(lane).take(1).for_each(|left| *left = true);
                    }
                }
            }
        }
        let frame = self.frame()?;
        let [broken, continued] = outer;
        frame.continued = continued;
        let ended = std::mem::replace(&mut frame.broken, broken);
        active.iter_mut().zip(left.iter().zip(&ended)).for_each(|(active, (left, ended))| *active = *left || *ended);
        Ok(())
    }

    /// All invocations of the workgroup come to a barrier.
    fn arrive(&mut self, active: &Mask, span: Span) {
        let missing = active.iter().filter(|a| !**a).count();
        if missing > 0 {
            let first = active.iter().position(|a| !*a).unwrap_or(0);
            let all = self.lanes;
            self.find(
                FindingKind::DivergentBarrier,
                || format!("{missing} of {all} invocations do not come to it, invocation {first} among them"),
                &[span],
            );
        }
    }

    /// Notes what is wrong, once for each place.
    pub fn find(&mut self, kind: FindingKind, message: impl FnOnce() -> String, spans: &[Span]) {
        let at = |index: usize| spans.get(index).and_then(|span| span.to_range()).map(|range| (range.start, range.end));
        // Two places in whichever order are the same.
        let key = (kind, [at(0).min(at(1)), at(0).max(at(1))]);
        if let Some(finding) = self.seen.get(&key).and_then(|index| self.findings.get_mut(*index)) {
            finding.count += 1;
            return;
        }
        if self.findings.len() == KEPT {
            return;
        }
        let places = spans.iter().zip(["here", "and here"]).map(|(span, label)| self.source.place(*span, label)).collect();
        self.seen.insert(key, self.findings.len());
        self.findings.push(Finding { kind, message: message(), places, count: 1 });
    }

    /// Keeps the result of a statement.
    pub fn put(&mut self, expression: Handle<Expression>, found: Column) -> Result<()> {
        let slot = self.frame()?.values.get_mut(expression.index());
        slot.into_iter().for_each(|slot| *slot = Some(found.clone()));
        Ok(())
    }

    pub fn grid(&self) -> [u32; 3] {
        self.grid
    }

    pub fn module(&self) -> &'s Module {
        &self.source.module
    }
}

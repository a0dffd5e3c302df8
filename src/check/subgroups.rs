//! What invocations of a subgroup tell each other.

use naga::{
    BinaryOperator, CollectiveOperation, Expression, GatherMode, Handle, MathFunction, Scalar, ScalarKind, Span, SubgroupOperation,
    TypeInner,
};

use super::arithmetic;
use super::machine::{Machine, Mask};
use super::report::FindingKind;
use super::value::Column;
use crate::error::Result;

impl Machine<'_> {
    /// Whether all of each subgroup come to it, or none.
    fn gathered(&mut self, active: &Mask, span: Span) {
        let size = self.options.subgroup_size as usize;
        let torn = active.chunks(size).position(|part| part.iter().any(|a| *a) && !part.iter().all(|a| *a));
        if let Some(subgroup) = torn {
            self.find(FindingKind::DivergentSubgroup, || format!("some invocations of subgroup {subgroup} do not come to it"), &[span]);
        }
    }

    /// The active invocations of the subgroup that `lane` belongs to.
    fn mates(&self, lane: usize, active: &Mask) -> Vec<usize> {
        let size = self.options.subgroup_size as usize;
        let first = lane / size * size;
        (first..(first + size).min(self.lanes)).filter(|mate| active.get(*mate).copied().unwrap_or(false)).collect()
    }

    pub fn ballot(&mut self, result: Handle<Expression>, predicate: Option<Handle<Expression>>, span: Span, active: &Mask) -> Result<()> {
        self.gathered(active, span);
        let predicate = predicate.map(|predicate| self.value(predicate)).transpose()?;
        let size = self.options.subgroup_size as usize;
        let mut found = Column::zeros(4, self.lanes);
        for lane in 0..self.lanes {
            let mut words = [0u32; 4];
            for mate in self.mates(lane, active) {
                let (bit, vote) = (mate % size, predicate.as_ref().is_none_or(|predicate| predicate.first(mate) != 0));
                words.iter_mut().skip(bit / 32).take(usize::from(vote)).for_each(|word| *word |= 1 << (bit % 32));
            }
            found.set(lane, &words);
        }
        self.put(result, found)
    }

    pub fn gather(
        &mut self,
        mode: &GatherMode,
        argument: Handle<Expression>,
        result: Handle<Expression>,
        span: Span,
        active: &Mask,
    ) -> Result<()> {
        self.gathered(active, span);
        let value = self.value(argument)?;
        let index = match mode {
            GatherMode::Broadcast(index)
            | GatherMode::Shuffle(index)
            | GatherMode::ShuffleDown(index)
            | GatherMode::ShuffleUp(index)
            | GatherMode::ShuffleXor(index) => Some(self.value(*index)?),
            GatherMode::BroadcastFirst => None,
            _ => return Err(self.unknown("operations of quads")),
        };
        let size = self.options.subgroup_size as usize;
        let mut found = value.clone();
        for lane in (0..self.lanes).filter(|lane| active.get(*lane).copied().unwrap_or(false)) {
            let (first, own) = (lane / size * size, lane % size);
            let given = index.as_ref().map_or(0, |index| index.first(lane) as usize);
            let from = match mode {
                GatherMode::BroadcastFirst => self.mates(lane, active).first().map_or(own, |mate| mate % size),
                GatherMode::ShuffleDown(_) => own + given,
                GatherMode::ShuffleUp(_) => own.wrapping_sub(given),
                GatherMode::ShuffleXor(_) => own ^ given,
                _ => given,
            };
            // From beyond the subgroup comes anything; here it is one's own.
            if from < size {
                found.set(lane, value.lane(first + from));
            }
        }
        self.put(result, found)
    }

    pub fn collective(
        &mut self,
        op: SubgroupOperation,
        kind: CollectiveOperation,
        argument: Handle<Expression>,
        result: Handle<Expression>,
        span: Span,
        active: &Mask,
    ) -> Result<()> {
        self.gathered(active, span);
        let value = self.value(argument)?;
        let scalar = match self.type_of(argument)? {
            TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => scalar,
            _ => return Err(self.unknown("subgroup operations of such types")),
        };
        let mut found = value.clone();
        for lane in (0..self.lanes).filter(|lane| active.get(*lane).copied().unwrap_or(false)) {
            let mates: Vec<usize> = self
                .mates(lane, active)
                .into_iter()
                .filter(|mate| match kind {
                    CollectiveOperation::Reduce => true,
                    CollectiveOperation::InclusiveScan => *mate <= lane,
                    CollectiveOperation::ExclusiveScan => *mate < lane,
                })
                .collect();
            let row: Vec<u32> = (0..value.lane(lane).len())
                .map(|i| {
                    let values: Vec<u32> = mates.iter().filter_map(|mate| value.lane(*mate).get(i).copied()).collect();
                    joined(op, scalar, &values)
                })
                .collect();
            found.set(lane, &row);
        }
        self.put(result, found)
    }
}

/// Values joined one after the other; those of none are the operation's neutral one.
fn joined(op: SubgroupOperation, scalar: Scalar, values: &[u32]) -> u32 {
    use SubgroupOperation as Op;
    let one = if scalar.kind == ScalarKind::Float { arithmetic::of_float(scalar, 1.0) } else { 1 };
    let join = |a: u32, b: u32| match op {
        Op::All | Op::And => a & b,
        Op::Any | Op::Or => a | b,
        Op::Xor => a ^ b,
        Op::Add => arithmetic::binary(BinaryOperator::Add, scalar, a, b).0,
        Op::Mul => arithmetic::binary(BinaryOperator::Multiply, scalar, a, b).0,
        Op::Min => arithmetic::math(MathFunction::Min, scalar, [a, b, 0]).map_or(a, |(value, _)| value),
        Op::Max => arithmetic::math(MathFunction::Max, scalar, [a, b, 0]).map_or(a, |(value, _)| value),
    };
    let neutral = match op {
        Op::All => 1,
        Op::And => u32::MAX,
        Op::Mul => one,
        _ => 0,
    };
    values.iter().copied().reduce(join).unwrap_or(neutral)
}

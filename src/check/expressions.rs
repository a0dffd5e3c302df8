//! Expressions: a value for each active invocation.

use naga::{
    Arena, BinaryOperator, Binding, BuiltIn, Expression, FunctionArgument, Handle, Literal, RelationalFunction, Scalar, Span, TypeInner,
};

use super::arithmetic::{self, Outcome};
use super::machine::{Machine, Mask, Memory};
use super::report::FindingKind;
use super::value::{Column, Root, column_stride, components, shown};
use crate::error::Result;

impl<'s> Machine<'s> {
    /// The type of an expression of the function under way.
    pub fn type_of(&mut self, expression: Handle<Expression>) -> Result<TypeInner> {
        let module = self.module();
        Ok(self.frame()?.info[expression].ty.inner_with(&module.types).clone())
    }

    /// The type that a pointer leads to.
    pub fn pointee(&mut self, pointer: Handle<Expression>) -> Result<TypeInner> {
        let module = self.module();
        match self.type_of(pointer)? {
            TypeInner::Pointer { base, .. } => Ok(module.types[base].inner.clone()),
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => Ok(TypeInner::Vector { size, scalar }),
            TypeInner::ValuePointer { size: None, scalar, .. } => Ok(TypeInner::Scalar(scalar)),
            _ => Err(self.unknown("such pointers")),
        }
    }

    /// The type of its numbers; of a pointer that of what it leads to.
    fn scalar_of(&mut self, expression: Handle<Expression>) -> Result<Scalar> {
        match self.type_of(expression)? {
            TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } | TypeInner::Matrix { scalar, .. } | TypeInner::Atomic(scalar) => {
                Ok(scalar)
            }
            _ => Err(self.unknown("operators of such types")),
        }
    }

    fn span_of(&mut self, expression: Handle<Expression>) -> Result<Span> {
        Ok(self.frame()?.function.expressions.get_span(expression))
    }

    /// Computes an expression where the text comes to it.
    pub fn emit(&mut self, expression: Handle<Expression>, active: &Mask) -> Result<()> {
        let found = self.evaluate(expression, active)?;
        self.put(expression, found)
    }

    /// The value of an expression that was come to, or that needs no coming to.
    pub fn value(&mut self, expression: Handle<Expression>) -> Result<Column> {
        if let Some(found) = self.frame()?.values.get(expression.index()).cloned().flatten() {
            return Ok(found);
        }
        let all = vec![true; self.lanes];
        self.evaluate(expression, &all)
    }

    /// The same value in every invocation.
    pub fn splat(&self, values: &[u32]) -> Column {
        Column::Data { width: values.len(), data: values.repeat(self.lanes) }
    }

    /// The numbers of an expression that is the same always.
    pub fn constant(&self, arena: &Arena<Expression>, expression: Handle<Expression>) -> Result<Vec<u32>> {
        let module = self.module();
        Ok(match &arena[expression] {
            Expression::Literal(literal) => vec![self.literal(*literal)?],
            Expression::Constant(constant) => self.constant(&module.global_expressions, module.constants[*constant].init)?,
            Expression::ZeroValue(ty) => vec![0; self.leaves(&module.types[*ty].inner)?.len()],
            Expression::Compose { components, .. } => {
                components.iter().map(|part| self.constant(arena, *part)).collect::<Result<Vec<_>>>()?.concat()
            }
            Expression::Splat { size, value } => self.constant(arena, *value)?.repeat(components(*size) as usize),
            _ => return Err(self.unknown("such constants")),
        })
    }

    fn literal(&self, literal: Literal) -> Result<u32> {
        Ok(match literal {
            Literal::F32(value) => value.to_bits(),
            Literal::F16(value) => u32::from(value.to_bits()),
            Literal::U32(value) => value,
            Literal::I32(value) => value as u32,
            Literal::Bool(value) => u32::from(value),
            _ => return Err(self.unknown("numbers of such types")),
        })
    }

    /// What an entry point is given.
    pub fn argument(&self, argument: &FunctionArgument) -> Result<Column> {
        let Some(Binding::BuiltIn(built_in)) = &argument.binding else { return Err(self.unknown("such arguments of entry points")) };
        let [x, y, _] = self.size;
        let local = |lane: usize| {
            let lane = lane as u32;
            [lane % x, lane / x % y, lane / (x * y)]
        };
        let subgroup = self.options.subgroup_size;
        let of = |lane: usize| -> Option<Vec<u32>> {
            let index = lane as u32;
            Some(match built_in {
                BuiltIn::GlobalInvocationId => {
                    let axis = |axis: usize| self.group.get(axis)?.checked_mul(*self.size.get(axis)?)?.checked_add(*local(lane).get(axis)?);
                    vec![axis(0)?, axis(1)?, axis(2)?]
                }
                BuiltIn::LocalInvocationId => local(lane).to_vec(),
                BuiltIn::LocalInvocationIndex => vec![index],
                BuiltIn::WorkGroupId => self.group.to_vec(),
                BuiltIn::NumWorkGroups => self.grid().to_vec(),
                BuiltIn::WorkGroupSize => self.size.to_vec(),
                BuiltIn::SubgroupSize => vec![subgroup],
                BuiltIn::SubgroupInvocationId => vec![index % subgroup],
                BuiltIn::SubgroupId => vec![index / subgroup],
                BuiltIn::NumSubgroups => vec![(self.lanes as u32).div_ceil(subgroup)],
                _ => return None,
            })
        };
        let rows = (0..self.lanes).map(of).collect::<Option<Vec<_>>>().ok_or_else(|| self.unknown("such arguments of entry points"))?;
        Ok(Column::Data { width: rows.first().map_or(1, Vec::len), data: rows.concat() })
    }

    /// A number for each component of each active invocation, from those of `from`.
    pub fn each(
        &mut self,
        span: Span,
        active: &Mask,
        from: &[&Column],
        scalar: Scalar,
        compute: impl Fn(&[u32]) -> Option<Outcome>,
    ) -> Result<Column> {
        let widths = |column: &Column| if let Column::Data { width, .. } = column { *width } else { 0 };
        let width = from.iter().map(|column| widths(column)).max().unwrap_or(1);
        let mut found = Column::zeros(width, self.lanes);
        for lane in (0..self.lanes).filter(|lane| active.get(*lane).copied().unwrap_or(false)) {
            let mut values = Vec::with_capacity(width);
            for i in 0..width {
                // A scalar beside vectors is the same for all components.
                let arguments: Vec<u32> =
                    from.iter().map(|column| column.lane(lane).get(i).copied().unwrap_or_else(|| column.first(lane))).collect();
                let (value, wrong) = compute(&arguments).ok_or_else(|| self.unknown("some built-in functions"))?;
                if let Some(kind) = wrong {
                    let shown: Vec<String> = arguments.iter().map(|bits| shown(scalar, *bits)).collect();
                    self.find(kind, || format!("of {} in invocation {lane}", shown.join(", ")), &[span]);
                }
                values.push(value);
            }
            found.set(lane, &values);
        }
        Ok(found)
    }

    #[allow(clippy::too_many_lines)]
    fn evaluate(&mut self, expression: Handle<Expression>, active: &Mask) -> Result<Column> {
        let function = self.frame()?.function;
        let span = self.span_of(expression)?;
        match &function.expressions[expression] {
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => {
                let values = self.constant(&function.expressions, expression)?;
                Ok(self.splat(&values))
            }
            Expression::FunctionArgument(index) => {
                let found = self.frame()?.arguments.get(*index as usize).cloned();
                found.ok_or_else(|| self.unknown("such arguments"))
            }
            Expression::GlobalVariable(handle) => {
                Ok(Column::Pointer { root: Root::Global(handle.index()), offsets: vec![Some(0); self.lanes] })
            }
            Expression::LocalVariable(handle) => {
                let root = Root::Local(self.frame()?.first_local + handle.index());
                Ok(Column::Pointer { root, offsets: vec![Some(0); self.lanes] })
            }
            Expression::Load { pointer } => {
                let atomic = matches!(self.pointee(*pointer)?, TypeInner::Atomic(_));
                self.read(*pointer, span, active, atomic)
            }
            Expression::Compose { components, .. } => {
                let parts = components.iter().map(|part| self.value(*part)).collect::<Result<Vec<_>>>()?;
                let rows: Vec<Vec<u32>> =
                    (0..self.lanes).map(|lane| parts.iter().flat_map(|part| part.lane(lane)).copied().collect()).collect();
                Ok(Column::Data { width: rows.first().map_or(0, Vec::len), data: rows.concat() })
            }
            Expression::Splat { size, value } => {
                let value = self.value(*value)?;
                let count = components(*size) as usize;
                Ok(Column::Data { width: count, data: (0..self.lanes).flat_map(|lane| vec![value.first(lane); count]).collect() })
            }
            Expression::Swizzle { size, vector, pattern } => {
                let vector = self.value(*vector)?;
                let count = components(*size) as usize;
                let row = |lane: usize| {
                    pattern.iter().take(count).map(|c| vector.lane(lane).get(*c as usize).copied().unwrap_or(0)).collect::<Vec<_>>()
                };
                Ok(Column::Data { width: count, data: (0..self.lanes).flat_map(row).collect() })
            }
            Expression::Access { base, index } => {
                let index = self.value(*index)?;
                let indices: Vec<u32> = (0..self.lanes).map(|lane| index.first(lane)).collect();
                self.part(*base, &indices, span, active)
            }
            Expression::AccessIndex { base, index } => self.part(*base, &vec![*index; self.lanes], span, active),
            Expression::Unary { op, expr } => {
                let (scalar, value) = (self.scalar_of(*expr)?, self.value(*expr)?);
                self.each(span, active, &[&value], scalar, |bits| Some((arithmetic::unary(*op, scalar, *bits.first()?), None)))
            }
            Expression::Binary { op, left, right } => {
                let (left_type, right_type) = (self.type_of(*left)?, self.type_of(*right)?);
                let (a, b) = (self.value(*left)?, self.value(*right)?);
                let matrices = matches!(left_type, TypeInner::Matrix { .. }) || matches!(right_type, TypeInner::Matrix { .. });
                let scalars = matches!(left_type, TypeInner::Scalar(_)) || matches!(right_type, TypeInner::Scalar(_));
                if matrices && *op == BinaryOperator::Multiply && !scalars {
                    return self.product(&left_type, &right_type, &a, &b);
                }
                let scalar = self.scalar_of(*left)?;
                self.each(span, active, &[&a, &b], scalar, |bits| match bits {
                    [a, b] => Some(arithmetic::binary(*op, scalar, *a, *b)),
                    _ => None,
                })
            }
            Expression::Select { condition, accept, reject } => {
                let (condition, accept, reject) = (self.value(*condition)?, self.value(*accept)?, self.value(*reject)?);
                if let (Column::Pointer { .. }, _) | (_, Column::Pointer { .. }) = (&accept, &reject) {
                    return Err(self.unknown("chosen pointers"));
                }
                let scalar = Scalar::U32;
                self.each(span, active, &[&condition, &accept, &reject], scalar, |bits| match bits {
                    [condition, accept, reject] => Some((if *condition != 0 { *accept } else { *reject }, None)),
                    _ => None,
                })
            }
            Expression::Relational { fun, argument } => {
                let value = self.value(*argument)?;
                let truth = |bits: &[u32]| match fun {
                    RelationalFunction::All => bits.iter().all(|bit| *bit != 0),
                    RelationalFunction::Any => bits.iter().any(|bit| *bit != 0),
                    _ => false,
                };
                if !matches!(fun, RelationalFunction::All | RelationalFunction::Any) {
                    return Err(self.unknown("isNan and isInf"));
                }
                Ok(Column::Data { width: 1, data: (0..self.lanes).map(|lane| u32::from(truth(value.lane(lane)))).collect() })
            }
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let arguments = [Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten();
                let columns = arguments.map(|argument| self.value(argument)).collect::<Result<Vec<_>>>()?;
                let scalar = self.scalar_of(*arg)?;
                self.function(*fun, scalar, &columns, span, active)
            }
            Expression::As { expr, kind, convert } => {
                let (from, value) = (self.scalar_of(*expr)?, self.value(*expr)?);
                let to = Scalar { kind: *kind, width: convert.unwrap_or(from.width) };
                if to.width > 4 {
                    return Err(self.unknown("64-bit numbers"));
                }
                let bitcast = convert.is_none();
                self.each(span, active, &[&value], from, |bits| {
                    let bits = *bits.first()?;
                    Some(if bitcast { (bits, None) } else { arithmetic::convert(from, to, bits) })
                })
            }
            Expression::ArrayLength(array) => {
                let Column::Pointer { root: Root::Global(index), offsets } = self.value(*array)? else {
                    return Err(self.unknown("such arrays"));
                };
                let TypeInner::Array { stride, .. } = self.pointee(*array)? else { return Err(self.unknown("such arrays")) };
                let bytes = match self.globals.get(index) {
                    Some(Memory::Shared(shared)) => shared.bytes.len() as u32,
                    _ => 0,
                };
                let length = |offset: &Option<u32>| bytes.saturating_sub(offset.unwrap_or(0)) / stride.max(1);
                Ok(Column::Data { width: 1, data: offsets.iter().map(length).collect() })
            }
            _ => Err(self.unknown("textures, cooperative matrices and derivatives")),
        }
    }

    /// A part of something: of a value, or a pointer to a part of what a pointer leads to.
    fn part(&mut self, base: Handle<Expression>, indices: &[u32], span: Span, active: &Mask) -> Result<Column> {
        let module = self.module();
        let value = self.value(base)?;
        let is_pointer = matches!(value, Column::Pointer { .. });
        let whole = if is_pointer { self.pointee(base)? } else { self.type_of(base)? };
        // How many parts there are, the bytes from one to the next, and the numbers of one.
        let members = |members: &[naga::StructMember]| {
            members.iter().map(|member| self.leaves(&module.types[member.ty].inner).map(|l| l.len())).collect::<Result<Vec<_>>>()
        };
        let (count, stride, width) = match &whole {
            TypeInner::Vector { size, scalar } => (components(*size), u32::from(scalar.width), 1),
            TypeInner::Matrix { columns, rows, scalar } => {
                (components(*columns), column_stride(*rows, *scalar), components(*rows) as usize)
            }
            TypeInner::Array { base: element, size, stride } => {
                let count = match size {
                    naga::ArraySize::Constant(count) => count.get(),
                    _ => match &value {
                        Column::Pointer { root: Root::Global(index), .. } => match self.globals.get(*index) {
                            Some(Memory::Shared(shared)) => shared.bytes.len() as u32 / (*stride).max(1),
                            _ => 0,
                        },
                        _ => 0,
                    },
                };
                let width = if is_pointer { 0 } else { self.leaves(&module.types[*element].inner)?.len() };
                (count, *stride, width)
            }
            TypeInner::Struct { members: list, .. } => {
                let index = indices.first().copied().unwrap_or(0) as usize;
                let Some(member) = list.get(index) else { return Err(self.unknown("such structures")) };
                if let Column::Pointer { root, offsets } = value {
                    let offsets = offsets.into_iter().map(|offset| offset?.checked_add(member.offset)).collect();
                    return Ok(Column::Pointer { root, offsets });
                }
                let widths = members(list)?;
                let (first, width) = (widths.iter().take(index).sum::<usize>(), widths.get(index).copied().unwrap_or(0));
                let row = |lane: usize| value.lane(lane).get(first..first + width).unwrap_or_default().to_vec();
                return Ok(Column::Data { width, data: (0..self.lanes).flat_map(row).collect() });
            }
            _ => return Err(self.unknown("parts of such types")),
        };
        let mut inside = vec![true; self.lanes];
        for (lane, index) in indices.iter().enumerate() {
            if *index >= count {
                inside.iter_mut().skip(lane).take(1).for_each(|inside| *inside = false);
                if active.get(lane).copied().unwrap_or(false) {
                    let name = match &value {
                        Column::Pointer { root: Root::Global(global), .. } => self.global_name(*global),
                        _ => "a variable".into(),
                    };
                    let index = *index;
                    self.find(
                        FindingKind::OutOfBounds,
                        || format!("index {} of {count} of {name}, in invocation {lane}", index as i32),
                        &[span],
                    );
                }
            }
        }
        let inside = |lane: usize| inside.get(lane).copied().unwrap_or(false);
        if let Column::Pointer { root, offsets } = value {
            let part = |(lane, (offset, index)): (usize, (Option<u32>, &u32))| {
                offset?.checked_add(index.checked_mul(stride)?).filter(|_| inside(lane))
            };
            return Ok(Column::Pointer { root, offsets: offsets.into_iter().zip(indices).enumerate().map(part).collect() });
        }
        let mut found = Column::zeros(width, self.lanes);
        for (lane, index) in indices.iter().enumerate().filter(|(lane, _)| inside(*lane)) {
            let first = *index as usize * width;
            found.set(lane, value.lane(lane).get(first..first + width).unwrap_or_default());
        }
        Ok(found)
    }
}

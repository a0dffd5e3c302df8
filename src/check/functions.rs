//! Products of matrices, built-in functions, atomic operations.

use naga::{AtomicFunction, BinaryOperator, Expression, Handle, MathFunction, Scalar, ScalarKind, Span, TypeInner};

use super::arithmetic;
use super::machine::{Machine, Mask};
use super::value::{Column, components};
use crate::error::Result;

impl Machine<'_> {
    /// A product with a matrix, whose columns lie one behind the other.
    pub fn product(&self, left: &TypeInner, right: &TypeInner, a: &Column, b: &Column) -> Result<Column> {
        let sizes = |inner: &TypeInner, is_left: bool| match inner {
            TypeInner::Matrix { columns, rows, scalar } => Some((components(*rows) as usize, components(*columns) as usize, *scalar)),
            // A row on the left, a column on the right.
            TypeInner::Vector { size, scalar } if is_left => Some((1, components(*size) as usize, *scalar)),
            TypeInner::Vector { size, scalar } => Some((components(*size) as usize, 1, *scalar)),
            _ => None,
        };
        let unknown = || self.unknown("such products");
        let (rows, inner, scalar) = sizes(left, true).ok_or_else(unknown)?;
        let (_, columns, _) = sizes(right, false).ok_or_else(unknown)?;
        let mut found = Column::zeros(rows * columns, self.lanes);
        for lane in 0..self.lanes {
            let number = |column: &Column, at: usize| arithmetic::float(scalar, column.lane(lane).get(at).copied().unwrap_or(0));
            let entry = |at: usize| {
                let (column, row) = (at / rows, at % rows);
                let sum: f64 = (0..inner).map(|k| number(a, k * rows + row) * number(b, column * inner + k)).sum();
                arithmetic::of_float(scalar, sum)
            };
            found.set(lane, &(0..rows * columns).map(entry).collect::<Vec<_>>());
        }
        Ok(found)
    }

    /// A built-in function.
    pub fn function(&mut self, fun: MathFunction, scalar: Scalar, columns: &[Column], span: Span, active: &Mask) -> Result<Column> {
        let number = |bits: &u32| arithmetic::float(scalar, *bits);
        let whole = |lane: usize| -> Option<Vec<u32>> {
            let row = |at: usize| columns.get(at).map_or(&[][..], |column| column.lane(lane));
            let dot = |a: &[u32], b: &[u32]| a.iter().zip(b).map(|(a, b)| number(a) * number(b)).sum::<f64>();
            let float = |value: f64| vec![arithmetic::of_float(scalar, value)];
            Some(match fun {
                MathFunction::Dot if scalar.kind == ScalarKind::Float => float(dot(row(0), row(1))),
                MathFunction::Dot => vec![row(0).iter().zip(row(1)).fold(0u32, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)))],
                MathFunction::Length => float(dot(row(0), row(0)).sqrt()),
                MathFunction::Distance => {
                    float(row(0).iter().zip(row(1)).map(|(a, b)| (number(a) - number(b)).powi(2)).sum::<f64>().sqrt())
                }
                MathFunction::Normalize => {
                    let length = dot(row(0), row(0)).sqrt();
                    row(0).iter().map(|bits| arithmetic::of_float(scalar, number(bits) / length)).collect()
                }
                MathFunction::Cross => {
                    let (a, b) = (row(0), row(1));
                    let entry = |i: usize, j: usize| Some(number(a.get(i)?) * number(b.get(j)?) - number(a.get(j)?) * number(b.get(i)?));
                    [(1, 2), (2, 0), (0, 1)]
                        .into_iter()
                        .map(|(i, j)| Some(arithmetic::of_float(scalar, entry(i, j)?)))
                        .collect::<Option<_>>()?
                }
                MathFunction::InsertBits => {
                    let (offset, count) = (columns.get(2)?.first(lane).min(32), columns.get(3)?.first(lane));
                    let count = count.min(32 - offset);
                    let mask = if count == 32 { u32::MAX } else { ((1 << count) - 1u32).checked_shl(offset).unwrap_or(0) };
                    let put = |(a, b): (&u32, &u32)| (a & !mask) | (b.checked_shl(offset).unwrap_or(0) & mask);
                    row(0).iter().zip(row(1)).map(put).collect()
                }
                _ => arithmetic::unpack(fun, columns.first()?.first(lane))
                    .or_else(|| arithmetic::pack(fun, row(0)).map(|bits| vec![bits]))?,
            })
        };
        let rows: Option<Vec<Vec<u32>>> = (0..self.lanes).map(whole).collect();
        if let Some(rows) = rows {
            return Ok(Column::Data { width: rows.first().map_or(0, Vec::len), data: rows.concat() });
        }
        let from: Vec<&Column> = columns.iter().collect();
        self.each(span, active, &from, scalar, |bits| {
            let at = |index: usize| bits.get(index).copied().unwrap_or(0);
            arithmetic::math(fun, scalar, [at(0), at(1), at(2)])
        })
    }

    /// An operation that nothing comes between.
    pub fn atomic(
        &mut self,
        pointer: Handle<Expression>,
        fun: &AtomicFunction,
        value: Handle<Expression>,
        result: Option<Handle<Expression>>,
        span: Span,
        active: &Mask,
    ) -> Result<()> {
        let pointee = self.pointee(pointer)?;
        let scalar = self.leaves(&pointee)?.first().map_or(Scalar::U32, |(_, scalar)| *scalar);
        let value = self.value(value)?;
        let compare = match fun {
            AtomicFunction::Exchange { compare: Some(compare) } => Some(self.value(*compare)?),
            _ => None,
        };
        let mut found = Column::zeros(if compare.is_some() { 2 } else { 1 }, self.lanes);
        // One invocation after the other: whichever order it is, each sees what those before it left.
        for lane in (0..self.lanes).filter(|lane| active.get(*lane).copied().unwrap_or(false)) {
            let alone: Mask = (0..self.lanes).map(|other| other == lane).collect();
            let old = self.read(pointer, span, &alone, true)?.first(lane);
            let new = value.first(lane);
            let binary = |op| arithmetic::binary(op, scalar, old, new).0;
            let least = arithmetic::math(MathFunction::Min, scalar, [old, new, 0]).map_or(old, |(value, _)| value);
            let most = arithmetic::math(MathFunction::Max, scalar, [old, new, 0]).map_or(old, |(value, _)| value);
            let same = compare.as_ref().is_none_or(|compare| compare.first(lane) == old);
            let next = match fun {
                AtomicFunction::Add => binary(BinaryOperator::Add),
                AtomicFunction::Subtract => binary(BinaryOperator::Subtract),
                AtomicFunction::And => old & new,
                AtomicFunction::ExclusiveOr => old ^ new,
                AtomicFunction::InclusiveOr => old | new,
                AtomicFunction::Min => least,
                AtomicFunction::Max => most,
                AtomicFunction::Exchange { .. } => {
                    if same {
                        new
                    } else {
                        old
                    }
                }
            };
            let column = self.splat(&[next]);
            self.write(pointer, &column, span, &alone, true)?;
            found.set(lane, &[old, u32::from(same)]);
        }
        result.map_or(Ok(()), |result| self.put(result, found))
    }
}

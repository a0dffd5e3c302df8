//! The values of an expression in all invocations of a workgroup.

use naga::{ArraySize, Module, Scalar, ScalarKind, TypeInner, VectorSize};

/// What a pointer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Root {
    /// A global variable by its place.
    Global(usize),
    /// A variable of a function under way.
    Local(usize),
}

/// A column of values, one an invocation.
#[derive(Debug, Clone)]
pub(super) enum Column {
    /// Scalars as their bits, `width` of them an invocation.
    Data { width: usize, data: Vec<u32> },
    /// Pointers to the same variable: a byte in it for each invocation, `None` where it lies outside.
    Pointer { root: Root, offsets: Vec<Option<u32>> },
}

impl Column {
    pub fn zeros(width: usize, lanes: usize) -> Self {
        Self::Data { width, data: vec![0; width * lanes] }
    }

    /// The scalars of one invocation.
    pub fn lane(&self, lane: usize) -> &[u32] {
        match self {
            Self::Data { width, data } => data.get(lane * width..(lane + 1) * width).unwrap_or_default(),
            Self::Pointer { .. } => &[],
        }
    }

    pub fn set(&mut self, lane: usize, values: &[u32]) {
        if let Self::Data { width, data } = self
            && let Some(to) = data.get_mut(lane * *width..(lane + 1) * *width)
        {
            to.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        }
    }

    /// The first scalar of one invocation.
    pub fn first(&self, lane: usize) -> u32 {
        self.lane(lane).first().copied().unwrap_or(0)
    }
}

/// Components of a vector.
pub(super) fn components(size: VectorSize) -> u32 {
    size as u8 as u32
}

/// Bytes from a column of a matrix to the next.
pub(super) fn column_stride(rows: VectorSize, scalar: Scalar) -> u32 {
    let rows = if rows == VectorSize::Bi { 2 } else { 4 };
    rows * u32::from(scalar.width)
}

/// Where the scalars of a type lie, in the order of their values; `None` for a type without a size.
pub(super) fn leaves(module: &Module, inner: &TypeInner) -> Option<Vec<(u32, Scalar)>> {
    let mut found = Vec::new();
    add_leaves(module, inner, 0, &mut found)?;
    Some(found)
}

fn add_leaves(module: &Module, inner: &TypeInner, base: u32, found: &mut Vec<(u32, Scalar)>) -> Option<()> {
    let of = |handle| module.types.get_handle(handle).ok().map(|ty| &ty.inner);
    match inner {
        TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => found.push((base, *scalar)),
        TypeInner::Vector { size, scalar } => {
            found.extend((0..components(*size)).map(|i| (base + i * u32::from(scalar.width), *scalar)));
        }
        TypeInner::Matrix { columns, rows, scalar } => {
            for column in 0..components(*columns) {
                let base = base + column * column_stride(*rows, *scalar);
                found.extend((0..components(*rows)).map(|row| (base + row * u32::from(scalar.width), *scalar)));
            }
        }
        TypeInner::Array { base: element, size: ArraySize::Constant(count), stride } => {
            for i in 0..count.get() {
                add_leaves(module, of(*element)?, base + i * stride, found)?;
            }
        }
        TypeInner::Struct { members, .. } => {
            for member in members {
                add_leaves(module, of(member.ty)?, base + member.offset, found)?;
            }
        }
        _ => return None,
    }
    Some(())
}

/// How a value is shown.
pub(super) fn shown(scalar: Scalar, bits: u32) -> String {
    match scalar.kind {
        ScalarKind::Float => format!("{:e}", super::arithmetic::float(scalar, bits)),
        ScalarKind::Sint => (bits as i32).to_string(),
        ScalarKind::Bool => (bits != 0).to_string(),
        _ => bits.to_string(),
    }
}

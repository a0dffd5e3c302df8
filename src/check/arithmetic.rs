//! Operators and functions of single numbers, and where they have no meaning.
//!
//! Floats are computed in float64 and rounded once, which for `+ - * /` and the root is what f32 and
//! f16 give by themselves; other functions are right to the last bit where devices may differ.

use half::f16;
use naga::{BinaryOperator, MathFunction, Scalar, ScalarKind, UnaryOperator};

use super::report::FindingKind;

/// Bits of a result, and what is wrong with it.
pub(super) type Outcome = (u32, Option<FindingKind>);

/// The number that bits mean.
pub(super) fn float(scalar: Scalar, bits: u32) -> f64 {
    match (scalar.kind, scalar.width) {
        (ScalarKind::Float, 2) => f64::from(f16::from_bits(bits as u16)),
        (ScalarKind::Float, _) => f64::from(f32::from_bits(bits)),
        (ScalarKind::Sint, _) => f64::from(bits as i32),
        _ => f64::from(bits),
    }
}

/// The bits of a float.
pub(super) fn of_float(scalar: Scalar, value: f64) -> u32 {
    if scalar.width == 2 { u32::from(f16::from_f64(value).to_bits()) } else { (value as f32).to_bits() }
}

/// A float that came of others: NaN is wrong where all of those are finite.
fn made(scalar: Scalar, value: f64, from: &[f64]) -> Outcome {
    let strange = value.is_nan() && from.iter().all(|v| v.is_finite());
    (of_float(scalar, value), strange.then_some(FindingKind::NotANumber))
}

pub(super) fn unary(op: UnaryOperator, scalar: Scalar, bits: u32) -> u32 {
    match (op, scalar.kind) {
        (UnaryOperator::Negate, ScalarKind::Float) => of_float(scalar, -float(scalar, bits)),
        (UnaryOperator::Negate, _) => bits.wrapping_neg(),
        (UnaryOperator::LogicalNot, _) => u32::from(bits == 0),
        (UnaryOperator::BitwiseNot, ScalarKind::Bool) => u32::from(bits == 0),
        (UnaryOperator::BitwiseNot, _) => !bits,
    }
}

pub(super) fn binary(op: BinaryOperator, scalar: Scalar, a: u32, b: u32) -> Outcome {
    use BinaryOperator as Op;
    if scalar.kind == ScalarKind::Float {
        let (x, y) = (float(scalar, a), float(scalar, b));
        let truth = |value: bool| (u32::from(value), None);
        return match op {
            Op::Add => made(scalar, x + y, &[x, y]),
            Op::Subtract => made(scalar, x - y, &[x, y]),
            Op::Multiply => made(scalar, x * y, &[x, y]),
            Op::Divide => made(scalar, x / y, &[x, y]),
            Op::Modulo => made(scalar, x % y, &[x, y]),
            Op::Equal => truth(x == y),
            Op::NotEqual => truth(x != y),
            Op::Less => truth(x < y),
            Op::LessEqual => truth(x <= y),
            Op::Greater => truth(x > y),
            Op::GreaterEqual => truth(x >= y),
            _ => (0, None),
        };
    }
    let signed = scalar.kind == ScalarKind::Sint;
    let (x, y) = (a as i32, b as i32);
    let order = if signed { x.cmp(&y) } else { a.cmp(&b) };
    let value = match op {
        Op::Add => a.wrapping_add(b),
        Op::Subtract => a.wrapping_sub(b),
        Op::Multiply => a.wrapping_mul(b),
        Op::Divide | Op::Modulo => {
            // What WGSL gives there: the dividend, and 0 as a rest.
            let rest = matches!(op, Op::Modulo);
            let without = if rest { 0 } else { a };
            return match (signed, b) {
                (_, 0) => (without, Some(FindingKind::Division)),
                (true, _) => match if rest { x.checked_rem(y) } else { x.checked_div(y) } {
                    Some(value) => (value as u32, None),
                    None => (without, Some(FindingKind::Division)),
                },
                (false, _) => (if rest { a % b } else { a / b }, None),
            };
        }
        Op::Equal => u32::from(a == b),
        Op::NotEqual => u32::from(a != b),
        Op::Less => u32::from(order.is_lt()),
        Op::LessEqual => u32::from(order.is_le()),
        Op::Greater => u32::from(order.is_gt()),
        Op::GreaterEqual => u32::from(order.is_ge()),
        Op::And | Op::LogicalAnd => a & b,
        Op::InclusiveOr | Op::LogicalOr => a | b,
        Op::ExclusiveOr => a ^ b,
        Op::ShiftLeft => return (a.wrapping_shl(b), (b >= 32).then_some(FindingKind::Shift)),
        Op::ShiftRight => {
            let value = if signed { x.wrapping_shr(b) as u32 } else { a.wrapping_shr(b) };
            return (value, (b >= 32).then_some(FindingKind::Shift));
        }
    };
    (value, None)
}

/// A number as one of another type.
pub(super) fn convert(from: Scalar, to: Scalar, bits: u32) -> Outcome {
    match (from.kind, to.kind) {
        (_, ScalarKind::Bool) => (u32::from(float(from, bits) != 0.0), None),
        (_, ScalarKind::Float) => (of_float(to, float(from, bits)), None),
        (ScalarKind::Float, kind) => {
            let value = float(from, bits).trunc();
            // Casts of Rust keep to the range, as WGSL's do.
            let (result, range) = if kind == ScalarKind::Sint {
                (value as i32 as u32, -2_147_483_648.0..=2_147_483_647.0)
            } else {
                (value as u32, 0.0..=4_294_967_295.0)
            };
            (result, (!range.contains(&value)).then_some(FindingKind::Conversion))
        }
        _ => (bits, None),
    }
}

/// A function of one to three numbers of a type; `None` for one that is not known.
pub(super) fn math(fun: MathFunction, scalar: Scalar, arguments: [u32; 3]) -> Option<Outcome> {
    use MathFunction as Fun;
    let [a, b, c] = arguments;
    if scalar.kind != ScalarKind::Float {
        return whole(fun, scalar, arguments).map(|value| (value, None));
    }
    let [x, y, z] = arguments.map(|bits| float(scalar, bits));
    let one = |value: f64| Some(made(scalar, value, &[x]));
    let two = |value: f64| Some(made(scalar, value, &[x, y]));
    let three = |value: f64| Some(made(scalar, value, &[x, y, z]));
    match fun {
        // Of NaN WGSL's min and max give either.
        Fun::Min => Some((if y < x || x.is_nan() { b } else { a }, None)),
        Fun::Max => Some((if y > x || x.is_nan() { b } else { a }, None)),
        Fun::Clamp => Some((of_float(scalar, x.max(y).min(z)), None)),
        Fun::Saturate => Some((of_float(scalar, x.clamp(0.0, 1.0)), None)),
        Fun::Abs => one(x.abs()),
        Fun::Cos => one(x.cos()),
        Fun::Cosh => one(x.cosh()),
        Fun::Sin => one(x.sin()),
        Fun::Sinh => one(x.sinh()),
        Fun::Tan => one(x.tan()),
        Fun::Tanh => one(x.tanh()),
        Fun::Acos => one(x.acos()),
        Fun::Asin => one(x.asin()),
        Fun::Atan => one(x.atan()),
        Fun::Atan2 => two(x.atan2(y)),
        Fun::Asinh => one(x.asinh()),
        Fun::Acosh => one(x.acosh()),
        Fun::Atanh => one(x.atanh()),
        Fun::Radians => one(x.to_radians()),
        Fun::Degrees => one(x.to_degrees()),
        Fun::Ceil => one(x.ceil()),
        Fun::Floor => one(x.floor()),
        Fun::Round => one(x.round_ties_even()),
        Fun::Fract => one(x - x.floor()),
        Fun::Trunc => one(x.trunc()),
        Fun::Exp => one(x.exp()),
        Fun::Exp2 => one(x.exp2()),
        Fun::Log => one(x.ln()),
        Fun::Log2 => one(x.log2()),
        Fun::Pow => two(x.powf(y)),
        Fun::Sqrt => one(x.sqrt()),
        Fun::InverseSqrt => one(1.0 / x.sqrt()),
        Fun::Sign => one(if x == 0.0 || x.is_nan() { x } else { x.signum() }),
        Fun::Fma => three(x.mul_add(y, z)),
        Fun::Mix => three(x * (1.0 - z) + y * z),
        Fun::Step => two(if x <= y { 1.0 } else { 0.0 }),
        Fun::SmoothStep => {
            let t = ((z - x) / (y - x)).clamp(0.0, 1.0);
            three(t * t * (3.0 - 2.0 * t))
        }
        Fun::QuantizeToF16 => one(f64::from(f16::from_f64(x))),
        // The exponent is a whole number.
        Fun::Ldexp => Some(made(scalar, x * f64::from(b as i32).exp2(), &[x])),
        _ => {
            let _ = c;
            None
        }
    }
}

fn whole(fun: MathFunction, scalar: Scalar, [a, b, c]: [u32; 3]) -> Option<u32> {
    use MathFunction as Fun;
    let signed = scalar.kind == ScalarKind::Sint;
    let less = |a: u32, b: u32| if signed { (a as i32) < b as i32 } else { a < b };
    let bits = |offset: u32, count: u32| {
        let offset = offset.min(32);
        let count = count.min(32 - offset);
        (offset, count, if count == 32 { u32::MAX } else { (1 << count) - 1 })
    };
    Some(match fun {
        Fun::Abs => {
            if signed {
                (a as i32).wrapping_abs() as u32
            } else {
                a
            }
        }
        Fun::Min => {
            if less(b, a) {
                b
            } else {
                a
            }
        }
        Fun::Max => {
            if less(a, b) {
                b
            } else {
                a
            }
        }
        Fun::Clamp => {
            let low = if less(a, b) { b } else { a };
            if less(c, low) { c } else { low }
        }
        Fun::Sign => (a as i32).signum() as u32,
        Fun::CountTrailingZeros => a.trailing_zeros(),
        Fun::CountLeadingZeros => a.leading_zeros(),
        Fun::CountOneBits => a.count_ones(),
        Fun::ReverseBits => a.reverse_bits(),
        Fun::FirstTrailingBit => {
            if a == 0 {
                u32::MAX
            } else {
                a.trailing_zeros()
            }
        }
        Fun::FirstLeadingBit => match if signed && (a as i32) < 0 { !a } else { a } {
            0 => u32::MAX,
            rest => 31 - rest.leading_zeros(),
        },
        Fun::ExtractBits => {
            let (offset, count, mask) = bits(b, c);
            let value = a.checked_shr(offset).unwrap_or(0) & mask;
            let sign = signed && count > 0 && count < 32 && value >> (count - 1) == 1;
            if sign { value | !mask } else { value }
        }
        _ => return None,
    })
}

/// Four or two numbers from the bits of one.
pub(super) fn unpack(fun: MathFunction, bits: u32) -> Option<Vec<u32>> {
    use MathFunction as Fun;
    let bytes = bits.to_le_bytes();
    let halves = [bits as u16, (bits >> 16) as u16];
    Some(match fun {
        Fun::Unpack4x8unorm => bytes.map(|b| (f32::from(b) / 255.0).to_bits()).to_vec(),
        Fun::Unpack4x8snorm => bytes.map(|b| (f32::from(b as i8) / 127.0).max(-1.0).to_bits()).to_vec(),
        Fun::Unpack2x16unorm => halves.map(|h| (f32::from(h) / 65535.0).to_bits()).to_vec(),
        Fun::Unpack2x16snorm => halves.map(|h| (f32::from(h as i16) / 32767.0).max(-1.0).to_bits()).to_vec(),
        Fun::Unpack2x16float => halves.map(|h| f32::from(f16::from_bits(h)).to_bits()).to_vec(),
        Fun::Unpack4xI8 => bytes.map(|b| i32::from(b as i8) as u32).to_vec(),
        Fun::Unpack4xU8 => bytes.map(u32::from).to_vec(),
        _ => return None,
    })
}

/// One number of the bits of four or two.
pub(super) fn pack(fun: MathFunction, values: &[u32]) -> Option<u32> {
    use MathFunction as Fun;
    let floats = values.iter().map(|bits| f32::from_bits(*bits));
    let joined = |parts: Vec<u32>, width: u32| parts.into_iter().rev().fold(0u32, |all, part| (all << width) | part);
    Some(match fun {
        Fun::Pack4x8unorm => joined(floats.map(|v| (v.clamp(0.0, 1.0) * 255.0 + 0.5).floor() as u32).collect(), 8),
        Fun::Pack4x8snorm => joined(floats.map(|v| (v.clamp(-1.0, 1.0) * 127.0 + 0.5).floor() as i8 as u8 as u32).collect(), 8),
        Fun::Pack2x16unorm => joined(floats.map(|v| (v.clamp(0.0, 1.0) * 65535.0 + 0.5).floor() as u32).collect(), 16),
        Fun::Pack2x16snorm => joined(floats.map(|v| (v.clamp(-1.0, 1.0) * 32767.0 + 0.5).floor() as i16 as u16 as u32).collect(), 16),
        Fun::Pack2x16float => joined(floats.map(|v| u32::from(f16::from_f32(v).to_bits())).collect(), 16),
        Fun::Pack4xI8 | Fun::Pack4xU8 => joined(values.iter().map(|v| v & 0xff).collect(), 8),
        _ => return None,
    })
}

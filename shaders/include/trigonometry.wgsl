// sin and cos to 1.3 units in the last place, for every number. Vulkan grants drivers an absolute error of 2^-11 between -pi and pi, and
// nothing beyond, and they make use of it.
//
// An angle is brought into a quarter of a turn around 0, from which it is told by which of four quarters it was in: exactly, since what counts
// of a number m 2^s (m whole) in turns is the part of m 2^s / 2 pi behind the point, which is m times the bits of 1 / 2 pi from bit s on (Payne
// and Hanek 1983). 64 bits of it are made: no f32 comes nearer to a whole number of quarters than 2^-30 of one, so half of them are left.
// Polynomials: least largest error, 4e-9 and 1e-10, found by this project.

// The radians beyond `quarter` quarters of a turn, as a sum of two numbers.
struct Angle { quarter: u32, high: f32, low: f32 }

// So many quarters of a turn and a part of one, also a sum of two.
fn quarters(quarter: u32, high: f32, low: f32) -> Angle {
    return Angle(quarter, high * 1.5707964, high * -4.371139e-8 + low * 1.5707964);
}

// The upper half of a * b, where a is below 2^24.
fn upper_half(a: u32, b: u32) -> u32 {
    let across = (a & 0xffffu) * (b >> 16u);
    let carry = (a >> 16u) * (b & 0xffffu) + (((a & 0xffffu) * (b & 0xffffu)) >> 16u) + (across & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (across >> 16u) + (carry >> 16u);
}

// The angle of a number's magnitude.
fn angle_of(x: f32) -> Angle {
    let bits = bitcast<u32>(x) & 0x7fffffffu;
    let exponent = bits >> 23u;
    if (abs(x) <= 0.785398 || exponent == 0xffu) {
        return Angle(0u, abs(x), 0.0);
    }
    let first = exponent - 118u;
    let word = first / 32u;
    let shift = first % 32u;
    // Four words from `word` on of 32 zeros, then 1 / 2 pi; an array with an index would lie in memory.
    var turn = vec4<u32>(0u, 0x28be60dbu, 0x9391054au, 0x7f09d5f4u);
    turn = select(turn, vec4<u32>(0x28be60dbu, 0x9391054au, 0x7f09d5f4u, 0x7d4d3770u), word == 1u);
    turn = select(turn, vec4<u32>(0x9391054au, 0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u), word == 2u);
    turn = select(turn, vec4<u32>(0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u, 0x4f10e410u), word == 3u);
    turn = select(turn, vec4<u32>(0x7d4d3770u, 0x36d8a566u, 0x4f10e410u, 0x7f9458eau), word == 4u);
    // A shift by 32 is a shift by 0 in WGSL, so it goes by 1 and 31.
    let a = (turn.x << shift) | ((turn.y >> 1u) >> (31u - shift));
    let b = (turn.y << shift) | ((turn.z >> 1u) >> (31u - shift));
    let c = (turn.z << shift) | ((turn.w >> 1u) >> (31u - shift));
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    let rest = upper_half(mantissa, c);
    let low = mantissa * b + rest;
    let high = mantissa * a + upper_half(mantissa, b) + select(0u, 1u, low < rest);
    // To the nearest quarter: what is left is signed, 64 bits of which 62 are behind the point.
    let quarter = (high + 0x20000000u) >> 30u;
    let signed_high = high - (quarter << 30u);
    let negative = (signed_high >> 31u) == 1u;
    let left = select(signed_high, ~signed_high + select(0u, 1u, low == 0u), negative);
    let right = select(low, 0u - low, negative);
    // Its first 32 bits from the highest 1 on: 24 in one number, 8 in the other.
    let short = left == 0u;
    let upper = select(left, right, short);
    let zeros = countLeadingZeros(upper) & 31u;
    let top = (upper << zeros) | select((right >> 1u) >> (31u - zeros), 0u, short);
    let unit = bitcast<f32>((97u - zeros - select(0u, 32u, short)) << 23u);
    let factor = select(1.0, -1.0, negative);
    return quarters(quarter, factor * (f32(top >> 8u) * (unit * 256.0)), factor * (f32(top & 0xffu) * unit));
}

// sin of an angle, `more` quarters of a turn further: cos is one further.
fn sine_of(angle: Angle, more: u32) -> f32 {
    let y = angle.high;
    let z = y * y;
    let s = y + (y * z * (-0.16666655 + z * (0.00833216 + z * -0.00019515217)) + angle.low * (1.0 - 0.5 * z));
    let c = 1.0 - (0.5 * z - (z * z * (0.041666646 + z * (-0.0013887315 + z * 2.443308e-5)) - y * angle.low));
    let quarter = angle.quarter + more;
    let value = select(s, c, (quarter & 1u) == 1u);
    return select(value, -value, (quarter & 2u) == 2u);
}

// NaN of what is not finite, by its bits.
fn unless_endless(x: f32, value: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return select(value, bitcast<f32>(bits | 0x7fc00000u), (bits & 0x7f800000u) == 0x7f800000u);
}

fn sine(x: f32) -> f32 {
    let value = sine_of(angle_of(x), 0u);
    return unless_endless(x, bitcast<f32>(bitcast<u32>(value) ^ (bitcast<u32>(x) & 0x80000000u)));
}

fn cosine(x: f32) -> f32 {
    return unless_endless(x, sine_of(angle_of(x), 1u));
}

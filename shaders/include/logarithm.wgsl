// The natural logarithm to about a unit in the last place, also near 1, where Vulkan grants drivers an absolute error of 2^-21: there
// log(1 - 2^-24) may be above 0, or 8 times what it should be.
//
// x = 2^k (1 + f) with 1 + f between the roots of 1/2 and 2. With s = f / (2 + f), log(1 + f) = 2 atanh(s) = f - f^2 / 2 + s (f^2 / 2 + r), where
// r is the rest of the series of atanh: f is exact, so its first term has no rounding (Tang 1990). log 2 is a number of 9 bits, which k
// multiplies exactly, and the rest.
fn logarithm(x: f32) -> f32 {
    // Below the smallest normal number there are no digits to take apart.
    let small = x < 1.1754944e-38;
    let bits = bitcast<u32>(select(x, x * 8388608.0, small));
    let k = bitcast<i32>(bits - 0x3f3504f3u) >> 23u;
    let f = bitcast<f32>(bits - (bitcast<u32>(k) << 23u)) - 1.0;
    let exponent = f32(k - select(0, 23, small));
    let s = f / (2.0 + f);
    let z = s * s;
    let r = z * (0.6666667 + z * (0.4 + z * (0.2857143 + z * 0.2222222)));
    let half = 0.5 * f * f;
    let value = exponent * 0.693359375 + (f - (half - (s * (half + r) + exponent * -2.1219444e-4)));
    let own = bitcast<u32>(x);
    let magnitude = own & 0x7fffffffu;
    // 0 gives -infinity, what is below NaN; infinity and NaN stay.
    let below = select(bitcast<f32>(0x7fc00000u | own), bitcast<f32>(0xff800000u | (own & 0x007fffffu)), magnitude == 0u);
    let edge = select(below, x, magnitude >= 0x7f800000u && (own >> 31u) == 0u);
    return select(value, edge, magnitude == 0u || magnitude >= 0x7f800000u || (own >> 31u) == 1u);
}

// Sums of squares that neither overflow nor vanish (the idea of BLAS's nrm2: Blue 1978): beside the plain sum those of the values times 2^-80
// and times 2^96. Powers of two are exact, so whichever sum is taken has the bits of the plain one as long as that one can be held.

fn power(exponent: i32) -> f32 {
    return bitcast<f32>(u32(exponent + 127) << 23u);
}

// x * 2^exponent, in two steps because the power itself may be beyond f32.
fn scaled(x: f32, exponent: i32) -> f32 {
    let half = exponent / 2;
    return x * power(half) * power(exponent - half);
}

// All exponent bits: NaN or infinite. A comparison of floats may be optimised away.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

fn squares_of(x: vec4<f32>) -> vec3<f32> {
    let large = x * power(-80);
    let small = x * power(96);
    return vec3<f32>(dot(x, x), dot(large, large), dot(small, small));
}

// (m, e) with m 4^e the sum: e is 0 where the plain sum is a number that lost nothing, else 80 or -96.
fn settled(sum: vec3<f32>) -> vec2<f32> {
    if (!is_finite(sum.x)) {
        return vec2<f32>(sum.y, 80.0);
    }
    return select(vec2<f32>(sum.x, 0.0), vec2<f32>(sum.z, -96.0), sum.x < power(-70));
}

// What a settled sum adds to three others.
fn unsettled(m: f32, e: f32) -> vec3<f32> {
    if (e == 0.0) {
        return vec3<f32>(m, scaled(m, -160), scaled(m, 192));
    }
    // The plain sum is infinite, or so small that the large one is nothing.
    return select(vec3<f32>(scaled(m, -192), 0.0, m), vec3<f32>(scaled(m, 160), m, scaled(m, 160)), e > 0.0);
}

// min(1, largest / (norm + 1e-6)) with norm = m 2^e, as two factors: the first is too small for f32 where a norm is beyond it.
fn shortening(largest: f32, m: f32, e: i32) -> vec2<f32> {
    if (e <= 0) {
        return vec2<f32>(min(1.0, largest / (scaled(m, e) + 1e-6)), 1.0);
    }
    let part = largest / m;
    if (part >= power(e)) {
        return vec2<f32>(1.0);
    }
    return select(vec2<f32>(power(-e), part), vec2<f32>(part * power(-e), 1.0), part >= power(e - 60));
}

// Images resampled to another size. With the ratio num / den of input to output along an axis, output o lies at
//     nearest:             floor(o num / den)
//     between pixels, at   s = (o + 1/2) num / den - 1/2, or o num / den where the centres of the corners' pixels are aligned;
//     bilinear:            with s at least 0, (1 - f) x[floor s] + f x[floor s + 1], f = s - floor s, the last pixel repeated;
//     bicubic (CUBIC):     Keys' kernel with a = -0.75 (Keys 1981) of the four pixels around s, pixels at the edges repeated.
// Positions are whole-number divisions, so no rounding can choose another pixel.
//
// x: [N, H, W, C], y: [N, OH, OW, C]; VEC = 4 counts vec4s along C. A thread owns an element of what is written. The gradient has no atomics: each
// element of dx sums weight * dy over the outputs that read it, found by inverting the position and testing a little to both sides.
{% include "grid.wgsl" %}
{% set wide = "4" if VEC == 4 else "" %}
{% set float = "vec4<f32>" if VEC == 4 else "f32" %}
{{ input(0, "x", width=VEC) }}
{{ output(1, "y", width=VEC) }}
{{ params("n: u32, h: u32, w: u32, oh: u32, ow: u32, c: u32, num_h: u32, den_h: u32, num_w: u32, den_w: u32, between: u32, aligned: u32") }}
{% include "window.wgsl" %}

// 2 den (s + 1/2 - 1/2 where aligned): the numerator of the position between pixels, and what is to be taken off it.
fn numerator(o: u32, num: u32) -> u32 {
    return (2u * o + select(1u, 0u, p.aligned != 0u)) * num;
}

fn offset(den: u32) -> u32 {
    return select(den, 0u, p.aligned != 0u);
}

{% if CUBIC %}
// How many pixels to each side of a position count.
const REACH = 2u;

// The pixel before a position, and the weights of that before it, itself and the two behind.
struct Taps {
    first: i32,
    weights: vec4<f32>,
}

fn taps(o: u32, num: u32, den: u32) -> Taps {
    // Two pixels more, so that it is not negative.
    let s = numerator(o, num) + 4u * den - offset(den);
    let i = s / (2u * den);
    let f = f32(s - i * 2u * den) / f32(2u * den);
    let g = 1.0 - f;
    let a = -0.75;
    return Taps(i32(i) - 2, vec4<f32>(
        ((a * (f + 1.0) - 5.0 * a) * (f + 1.0) + 8.0 * a) * (f + 1.0) - 4.0 * a,
        ((a + 2.0) * f - (a + 3.0)) * f * f + 1.0,
        ((a + 2.0) * g - (a + 3.0)) * g * g + 1.0,
        ((a * (g + 1.0) - 5.0 * a) * (g + 1.0) + 8.0 * a) * (g + 1.0) - 4.0 * a,
    ));
}

// The pixels of an axis of `size` that the weights belong to.
fn places(first: i32, size: u32) -> vec4<u32> {
    return vec4<u32>(clamp(vec4<i32>(first) + vec4<i32>(-1, 0, 1, 2), vec4<i32>(0), vec4<i32>(i32(size) - 1)));
}

// How much of element i output o reads.
fn weight(i: u32, o: u32, num: u32, den: u32, size: u32) -> f32 {
    let t = taps(o, num, den);
    return dot(select(vec4<f32>(0.0), t.weights, places(t.first, size) == vec4<u32>(i)), vec4<f32>(1.0));
}
{% else %}
const REACH = 1u;

// The two elements, of `size`, that output o reads, and the share of the second.
struct Taps {
    first: u32,
    second: u32,
    share: f32,
}

fn taps(o: u32, num: u32, den: u32, size: u32) -> Taps {
    if (p.between == 0u) {
        let i = min(o * num / den, size - 1u);
        return Taps(i, i, 0.0);
    }
    let off = offset(den);
    let s = max(numerator(o, num), off) - off;
    let i = min(s / (2u * den), size - 1u);
    return Taps(i, min(i + 1u, size - 1u), f32(s - i * 2u * den) / f32(2u * den));
}

// How much of element i output o reads.
fn weight(i: u32, o: u32, num: u32, den: u32, size: u32) -> f32 {
    let t = taps(o, num, den, size);
    return select(0.0, 1.0 - t.share, t.first == i) + select(0.0, t.share, t.second == i);
}
{% endif %}

// Outputs first..last that may read element i: those with i - REACH < s < i + REACH, and one more at each end; all beyond the edges.
fn readers(i: u32, num: u32, den: u32, size: u32, count: u32) -> vec2<u32> {
    var range = vec2<u32>(0u, count);
    if (num == 0u) {
        return range;
    }
    let middle = 2u * den * i + offset(den);
    let reach = 2u * den * REACH;
    if (middle > reach) {
        range.x = max((middle - reach) / (2u * num), 1u) - 1u;
    }
    if (i + 1u < size) {
        range.y = min((middle + reach) / (2u * num) + 2u, count);
    }
    return range;
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let at = pixel(i, p.oh, p.ow);
{% if CUBIC %}
    let r = taps(at.row, p.num_h, p.den_h);
    let q = taps(at.column, p.num_w, p.den_w);
    let rows = (at.image * p.h + places(r.first, p.h)) * p.w;
    let columns = places(q.first, p.w);
    var v = {{ float }}(0.0);
    {% for row in ["x", "y", "z", "w"] %}
    v += r.weights.{{ row }} * (
        {% for column in ["x", "y", "z", "w"] %}
        q.weights.{{ column }} * load{{ wide }}_x((rows.{{ row }} + columns.{{ column }}) * p.c + at.channel){{ ");" if loop.last else " +" }}
        {% endfor %}
    {% endfor %}
{% else %}
    let r = taps(at.row, p.num_h, p.den_h, p.h);
    let q = taps(at.column, p.num_w, p.den_w, p.w);
    let upper = (at.image * p.h + r.first) * p.w;
    var v = load{{ wide }}_x((upper + q.first) * p.c + at.channel);
    if (p.between != 0u) {
        let lower = (at.image * p.h + r.second) * p.w;
        let upper_right = load{{ wide }}_x((upper + q.second) * p.c + at.channel);
        let lower_left = load{{ wide }}_x((lower + q.first) * p.c + at.channel);
        let lower_right = load{{ wide }}_x((lower + q.second) * p.c + at.channel);
        v = (1.0 - r.share) * ((1.0 - q.share) * v + q.share * upper_right) + r.share * ((1.0 - q.share) * lower_left + q.share * lower_right);
    }
{% endif %}
    store{{ wide }}_y(i, v);
}

// Here x is dy and y is dx.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let at = pixel(i, p.h, p.w);
    let rows = readers(at.row, p.num_h, p.den_h, p.h, p.oh);
    let columns = readers(at.column, p.num_w, p.den_w, p.w, p.ow);
    var sum = {{ float }}(0.0);
    for (var r = rows.x; r < rows.y; r += 1u) {
        let weight_r = weight(at.row, r, p.num_h, p.den_h, p.h);
        if (weight_r != 0.0) {
            for (var q = columns.x; q < columns.y; q += 1u) {
                let share = weight_r * weight(at.column, q, p.num_w, p.den_w, p.w);
                if (share != 0.0) {
                    sum += share * load{{ wide }}_x(((at.image * p.oh + r) * p.ow + q) * p.c + at.channel);
                }
            }
        }
    }
    store{{ wide }}_y(i, sum);
}

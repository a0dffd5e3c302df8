// Images resampled to another size, with the centres of the corners' pixels not aligned (PyTorch's align_corners = false). With the ratio
// num / den of input to output along an axis, output o lies at
//     nearest:   floor(o num / den)
//     bilinear:  s = max(0, (o + 1/2) num / den - 1/2): (1 - f) x[floor s] + f x[floor s + 1], f = s - floor s, the last pixel repeated.
// Positions are whole-number divisions, so no rounding can choose another pixel.
//
// x: [N, H, W, C], y: [N, OH, OW, C]; VEC = 4 counts vec4s along C. A thread owns an element of what is written. The gradient has no atomics: each
// element of dx sums weight * dy over the outputs that read it, found by inverting the position and testing a little to both sides.
{% include "grid.wgsl" %}
{% set wide = "4" if VEC == 4 else "" %}
{% set float = "vec4<f32>" if VEC == 4 else "f32" %}
{{ input(0, "x", width=VEC) }}
{{ output(1, "y", width=VEC) }}
{{ params("n: u32, h: u32, w: u32, oh: u32, ow: u32, c: u32, num_h: u32, den_h: u32, num_w: u32, den_w: u32, bilinear: u32") }}
{% include "window.wgsl" %}

// The two elements, of `size`, that output o reads, and the share of the second.
struct Taps {
    first: u32,
    second: u32,
    share: f32,
}

fn taps(o: u32, num: u32, den: u32, size: u32) -> Taps {
    if (p.bilinear == 0u) {
        let i = min(o * num / den, size - 1u);
        return Taps(i, i, 0.0);
    }
    let s = max((2u * o + 1u) * num, den) - den;
    let i = min(s / (2u * den), size - 1u);
    return Taps(i, min(i + 1u, size - 1u), f32(s - i * 2u * den) / f32(2u * den));
}

// How much of element i output o reads.
fn weight(i: u32, o: u32, num: u32, den: u32, size: u32) -> f32 {
    let t = taps(o, num, den, size);
    return select(0.0, 1.0 - t.share, t.first == i) + select(0.0, t.share, t.second == i);
}

// Outputs first..last that may read element i: those with i - 1 < s < i + 1, and one more at each end; all beyond the edges.
fn readers(i: u32, num: u32, den: u32, size: u32, count: u32) -> vec2<u32> {
    var range = vec2<u32>(0u, count);
    if (i > 0u) {
        range.x = max(den * (2u * i - 1u) / (2u * num), 1u) - 1u;
    }
    if (i + 1u < size) {
        range.y = min(den * (2u * i + 3u) / (2u * num) + 2u, count);
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
    let r = taps(at.row, p.num_h, p.den_h, p.h);
    let q = taps(at.column, p.num_w, p.den_w, p.w);
    let upper = (at.image * p.h + r.first) * p.w;
    var v = load{{ wide }}_x((upper + q.first) * p.c + at.channel);
    if (p.bilinear != 0u) {
        let lower = (at.image * p.h + r.second) * p.w;
        let upper_right = load{{ wide }}_x((upper + q.second) * p.c + at.channel);
        let lower_left = load{{ wide }}_x((lower + q.first) * p.c + at.channel);
        let lower_right = load{{ wide }}_x((lower + q.second) * p.c + at.channel);
        v = (1.0 - r.share) * ((1.0 - q.share) * v + q.share * upper_right) + r.share * ((1.0 - q.share) * lower_left + q.share * lower_right);
    }
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

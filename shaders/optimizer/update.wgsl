// One optimizer step over a slab that holds all parameters, in place; PyTorch's rules.
//
// values, gradients and states [4 * n4]; blocks of 64 elements belong to a segment (a parameter): segments [n / 64]. table [count] of
// (learning-rate multiplier, weight decay, active, 1 where LARS leaves the gradient as it is). scalars: (lr, ..).
// control: (norm, factor of the gradients, 1 where the step is taken, factor of the decays, second factor of the gradients, 1 - beta1^t,
// 1 - beta2^t). Values and states of a step not taken, or of a segment that is not active, are not written; their gradients may be anything. A segment outside the table gives NaN.
// A thread owns one vec4.
//
// sgd:     g += decay w; b = a b + g; w -= lr b (nesterov: lr (g + a b)); without momentum w -= lr g.        a momentum, b nesterov
// adam:    g += decay w, or w -= lr decay w first (c = 1: AdamW); m, v = moving averages of g, g^2;          a beta1, b beta2, d eps
//          w -= lr / correction1 * m / (sqrt(v) / sqrt(correction2) + eps)
// lars:    g += decay w; v = a v + trust g, trust = b |w| / |g| (1 where either is 0); w -= lr v              a momentum, b eta
//          c = 1: trust is min(trust / lr, 1), so that lr is the most by which a layer moves (LARC)
//          norms [count, 4]: (x, y, s, t) with |w| = x 2^s, |g| = y 2^t
// rmsprop: g += decay w; s = a s + (1 - a) g^2; b = c b + g / (sqrt(s) + eps); w -= lr b                      a alpha, c momentum, d eps
{% include "grid.wgsl" %}
{% if RULE == "lars" %}
{% include "squares.wgsl" %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("f32") }}
{% endif %}
{{ inout(0, "values", type="f32", width=4) }}
{{ input(1, "gradients", type="f32", width=4) }}
{{ input(2, "segments", type="i32") }}
{{ input(3, "table", type="f32", width=4) }}
{{ input(4, "scalars", type="f32") }}
{{ input(5, "control", type="f32") }}
{% if STATES > 0 %}
{{ inout(6, "first", type="f32", width=4) }}
{% endif %}
{% if RULE == "lars" %}
{{ input(7, "norms", type="f32", width=4) }}
{% elif STATES > 1 %}
{{ inout(7, "second", type="f32", width=4) }}
{% endif %}
{{ params("n4: u32, count: u32, a: f32, b: f32, c: f32, d: f32") }}

@compute @workgroup_size(64)
fn update(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n4 || load_control(2u) == 0.0) {
        return;
    }
    let segment = u32(load_segments(i >> 4u));
    if (segment >= p.count) {
        store4_values(i, vec4<f32>(bitcast<f32>(0x7fc00000u | (segment & 0u))));
        return;
    }
    let row = load4_table(segment);
    if (row.z == 0.0) {
        return;
    }
    let lr = load_scalars(0u) * row.x;
    let decay = load_control(3u) * row.y;
    var w = load4_values(i);
    var g = load4_gradients(i) * load_control(1u) * load_control(4u);
{% if RULE == "adam" %}
    if (p.c != 0.0) {
        w *= 1.0 - lr * decay;
    } else {
        g += decay * w;
    }
    let m = p.a * load4_first(i) + (1.0 - p.a) * g;
    let v = p.b * load4_second(i) + (1.0 - p.b) * g * g;
    w -= lr / load_control(5u) * m / (sqrt(v) / sqrt(load_control(6u)) + p.d);
    store4_first(i, m);
    store4_second(i, v);
{% else %}
    g += decay * w;
{% if RULE == "sgd" and STATES == 0 %}
    w -= lr * g;
{% elif RULE == "sgd" %}
    let b = p.a * load4_first(i) + g;
    store4_first(i, b);
    if (p.b != 0.0) {
        w -= lr * (g + p.a * b);
    } else {
        w -= lr * b;
    }
{% elif RULE == "lars" %}
    let norms = load4_norms(segment);
    var trust = vec2<f32>(1.0);
    // Not above 0: a norm that is NaN is no 0.
    if (row.w == 0.0 && !(norms.x == 0.0 || norms.y == 0.0)) {
        let exponent = i32(norms.z - norms.w);
        trust = vec2<f32>(p.b * norms.x / norms.y * power(exponent / 2), power(exponent - exponent / 2));
        let rate = trust.x * trust.y;
        if (p.c != 0.0 && rate >= lr && !is_nan(rate)) {
            trust = vec2<f32>(1.0);
        } else if (p.c != 0.0) {
            trust.x /= lr;
        }
    }
    let v = p.a * load4_first(i) + trust.x * g * trust.y;
    store4_first(i, v);
    w -= lr * v;
{% else %}
    let s = p.a * load4_first(i) + (1.0 - p.a) * g * g;
    store4_first(i, s);
    let b = p.c * load4_second(i) + g / (sqrt(s) + p.d);
    store4_second(i, b);
    w -= lr * b;
{% endif %}
{% endif %}
    store4_values(i, w);
}

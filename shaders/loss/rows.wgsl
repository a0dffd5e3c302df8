// Losses of rows of logits x [n, columns]: cross entropy with labels (KIND "hard", Szegedy et al. 2016 for smoothing) or with
// probabilities q ("soft"), and distillation ("distill", Hinton et al. 2015). With p = softmax(x), m the row's maximum and
// l = sum exp(x - m), so that log p = x - m - log l:
//
//     hard      -(1 - s) log p[target] - s / columns * sum log p                dx = p - s / columns - (1 - s) [j = target]
//     soft      -sum q log p                                                    dx = p sum q - q
//     distill   T^2 sum t (log t - log p), t and p softmaxes of (.) / T         dx = T (p - t)
//
// A high temperature makes t and p nearly equal: differences of their logarithms, and of them, are mostly rounding. So distillation works with
// u = log t - log p of each column: its loss is T^2 sum t (u + e^-u - 1), whose terms are all positive and are u^2 / 2 where u is small (the
// sum of t (e^-u - 1) is 0), and dx = T t (e^-u - 1). u is the difference of the logits less one number a row, r = log of the ratio of the two
// sums of exponentials, from the sum of their differences.
//
// Step "loss" reads a row twice (maximum, then sums relative to it; distillation once more) and writes `rows` [k][n]: the loss, and what the gradient needs:
// hard: weight (0 where ignored), m, log l; soft: m, log l, sum q; distill: m, r, teacher's m, 1 / its sum. Step "gradient"
// writes dx * cotangent * inverse, where inverse is 1 / rows that count (shaders/loss/mean.wgsl adds the losses and finds it). Step
// "correct" writes 1 for a row whose first largest logit is the target's, else 0. A label outside 0..columns makes its row NaN.
//
// x is a matrix of V: vec4s where columns are a multiple of 4 (WIDTH 4; p.columns counts them), else single values. p.lanes threads
// share a row, 1 on software drivers (no barriers), up to 256 on GPUs, which combine by a tree in workgroup memory (TREE).
{% include "grid.wgsl" %}
{% set load = "load4_" if WIDTH == 4 else "load_" %}
{% set store = "store4_" if WIDTH == 4 else "store_" %}
alias V = {{ "vec4<f32>" if WIDTH == 4 else "f32" }};
alias U = {{ "vec4<u32>" if WIDTH == 4 else "u32" }};
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("vec4<f32>" if WIDTH == 4 else "f32", "_v") }}
{% include "logarithm.wgsl" %}
const LANES = {{ LANES }}u;
{{ input(0, "x", width=WIDTH) }}
{% if KIND == "hard" %}
{{ input(1, "target_", type="i32") }}
{% else %}
{{ input(1, "other", width=WIDTH) }}
{% endif %}
{% if STEP == "gradient" %}
{{ input(2, "rows", type="f32") }}
{{ input(3, "inverse", type="f32") }}
{{ input(4, "cotangent", type="f32") }}
{{ output(5, "dx", width=WIDTH) }}
{% else %}
{{ output(2, "rows", type="f32") }}
{% endif %}
{{ params("n: u32, columns: u32, lanes: u32, constant: f32, ignore: i32, ignores: u32") }}

{% if WIDTH == 4 %}
fn total(v: V) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn largest(v: V) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn index(j: u32) -> U {
    return U(4u * j) + U(0u, 1u, 2u, 3u);
}
{% else %}
fn total(v: V) -> f32 {
    return v;
}

fn largest(v: V) -> f32 {
    return v;
}

fn index(j: u32) -> U {
    return j;
}
{% endif %}

// A constant NaN would be a shader error.
fn nan() -> f32 {
    var bits = 0x7fc00000u;
    return bitcast<f32>(bits);
}

{% if TREE %}
var<workgroup> shared_values: array<f32, LANES>;

// The sum over the lanes of a row, in all of them. All lanes of the workgroup must call.
fn over_row(value: f32, lane: u32, part: u32) -> f32 {
    shared_values[lane] = value;
    workgroupBarrier();
    for (var half = p.lanes / 2u; half > 0u; half /= 2u) {
        if (part < half) {
            shared_values[lane] += shared_values[lane + half];
        }
        workgroupBarrier();
    }
    let result = shared_values[lane - part];
    workgroupBarrier();
    return result;
}

// The maximum, likewise.
fn max_over_row(value: f32, lane: u32, part: u32) -> f32 {
    shared_values[lane] = value;
    workgroupBarrier();
    for (var half = p.lanes / 2u; half > 0u; half /= 2u) {
        if (part < half) {
            shared_values[lane] = max(shared_values[lane], shared_values[lane + half]);
        }
        workgroupBarrier();
    }
    let result = shared_values[lane - part];
    workgroupBarrier();
    return result;
}
{% else %}
fn over_row(value: f32, lane: u32, part: u32) -> f32 {
    return value;
}

fn max_over_row(value: f32, lane: u32, part: u32) -> f32 {
    return value;
}
{% endif %}
{# Rows beyond the last read the last and store nothing. #}
{% macro place() %}
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let wanted = group * (LANES / p.lanes) + lane / p.lanes;
    let part = lane % p.lanes;
    let row = min(wanted, p.n - 1u);
    let base = row * p.columns;
{% endmacro %}
{% if KIND == "distill" %}
// e^v - 1 - v, to full precision where |v| <= 1/2.
fn rest(v: V) -> V {
    var series = V(1.0 / 3628800.0);
{% for factorial in [362880, 40320, 5040, 720, 120, 24, 6, 2] %}
    series = fma(series, v, V(1.0 / {{ factorial }}.0));
{% endfor %}
    return v * v * series;
}

// e^b (e^(a - b) - 1) = e^a - e^b.
fn difference(a: V, b: V) -> V {
    let v = a - b;
    return select(exp(a) - exp(b), exp(b) * (v + rest(v)), abs(v) < V(0.5));
}

// log(1 + x), to full precision where |x| <= 1/2.
fn log_1p(x: f32) -> f32 {
    let s = x / (2.0 + x);
    var series = 0.0;
{% for odd in [15, 13, 11, 9, 7, 5, 3, 1] %}
    series = fma(series, s * s, 1.0 / {{ odd }}.0);
{% endfor %}
    return 2.0 * s * series;
}
{% endif %}
{% set arguments = "@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32" %}

{% if STEP == "loss" %}
@compute @workgroup_size(LANES)
fn loss({{ arguments }}) {
{{ place() }}
    var high = V(-3.4028234e38);
{% if KIND == "distill" %}
    var other_high = V(-3.4028234e38);
{% endif %}
    for (var j = part; j < p.columns; j += p.lanes) {
        high = max(high, {{ load }}x(base + j));
{% if KIND == "distill" %}
        other_high = max(other_high, {{ load }}other(base + j));
{% endif %}
    }
    let m = max_over_row(largest(high), lane, part);
{% if KIND == "distill" %}
    let other_m = max_over_row(largest(other_high), lane, part);
    let scale = 1.0 / p.constant;
{% endif %}
    var exps = V(0.0);
    var sums = V(0.0);
    var weights = V(0.0);
    for (var j = part; j < p.columns; j += p.lanes) {
{% if KIND == "distill" %}
        let d = ({{ load }}x(base + j) - V(m)) * scale;
        let t = ({{ load }}other(base + j) - V(other_m)) * scale;
        exps += exp(d);
        weights += exp(t);
        sums += difference(d, t);
{% else %}
        let d = {{ load }}x(base + j) - V(m);
        exps += exp(d);
{% if KIND == "soft" %}
        let q = {{ load }}other(base + j);
        weights += q;
        sums = fma(q, d, sums);
{% else %}
        sums += d;
{% endif %}
{% endif %}
    }
    let l = over_row(total(exps), lane, part);
    let sum = over_row(total(sums), lane, part);
{% if KIND != "hard" %}
    let weight = over_row(total(weights), lane, part);
{% endif %}
{% if KIND == "distill" %}
    let ratio = select(logarithm(l / weight), log_1p(sum / weight), abs(sum / weight) < 0.5);
    var terms = V(0.0);
    for (var j = part; j < p.columns; j += p.lanes) {
        let d = ({{ load }}x(base + j) - V(m)) * scale;
        let t = ({{ load }}other(base + j) - V(other_m)) * scale;
        let e = exp(t);
        let u = (t - d) + V(ratio);
        // A teacher's 0 brings the student's probability alone; 0 times an infinite logarithm is NaN, as in PyTorch.
        let nothing = select(V(0.0), V(nan()), abs(d) > V(3.4028234e38));
        let far = select(e * (u - V(1.0)), nothing, e == V(0.0)) + exp(d - V(ratio));
        terms += select(far, e * rest(-u), abs(u) < V(0.5));
    }
    let divergence = over_row(total(terms), lane, part) / weight;
{% endif %}
    if (part > 0u || wanted >= p.n) {
        return;
    }
{% if KIND == "hard" %}
    let label = load_target_(row);
    let count = p.columns * {{ WIDTH }}u;
    let ignored = p.ignores != 0u && label == p.ignore;
    let valid = label >= 0 && label < i32(count);
    let hit = load_x(row * count + select(0u, u32(label), valid)) - m;
    let uniform_part = select(0.0, p.constant / f32(count) * sum, p.constant > 0.0);
    let value = logarithm(l) - (1.0 - p.constant) * hit - uniform_part;
    store_rows(row, select(select(nan(), value, valid), 0.0, ignored));
    store_rows(p.n + row, select(1.0, 0.0, ignored));
    store_rows(2u * p.n + row, m);
    store_rows(3u * p.n + row, logarithm(l));
{% elif KIND == "soft" %}
    store_rows(row, weight * logarithm(l) - sum);
    store_rows(p.n + row, m);
    store_rows(2u * p.n + row, logarithm(l));
    store_rows(3u * p.n + row, weight);
{% else %}
    store_rows(row, p.constant * p.constant * divergence);
    store_rows(p.n + row, m);
    store_rows(2u * p.n + row, ratio);
    store_rows(3u * p.n + row, other_m);
    store_rows(4u * p.n + row, 1.0 / weight);
{% endif %}
}
{% endif %}

{% if STEP == "gradient" %}
@compute @workgroup_size(LANES)
fn gradient({{ arguments }}) {
{{ place() }}
    if (wanted >= p.n) {
        return;
    }
    let scale = load_cotangent(0u) * load_inverse(0u);
{% if KIND == "hard" %}
    let m = load_rows(2u * p.n + row);
    let log_l = load_rows(3u * p.n + row);
    let label = load_target_(row);
    let count = p.columns * {{ WIDTH }}u;
    let ignored = p.ignores != 0u && label == p.ignore;
    let valid = label >= 0 && label < i32(count);
    let factor = select(nan(), scale, valid);
    let flat = V(p.constant / f32(count));
    for (var j = part; j < p.columns; j += p.lanes) {
        let probability = exp({{ load }}x(base + j) - V(m) - V(log_l));
        let hot = select(V(0.0), V(1.0 - p.constant), index(j) == U(u32(label)));
        // A row of NaN has no gradient of 0, even where it is ignored.
        let nothing = select(V(0.0), probability, is_nan_v(probability));
        {{ store }}dx(base + j, select((probability - flat - hot) * factor, nothing, ignored));
    }
{% elif KIND == "soft" %}
    let m = load_rows(p.n + row);
    let log_l = load_rows(2u * p.n + row);
    let weight = load_rows(3u * p.n + row);
    for (var j = part; j < p.columns; j += p.lanes) {
        let probability = exp({{ load }}x(base + j) - V(m) - V(log_l));
        {{ store }}dx(base + j, (probability * weight - {{ load }}other(base + j)) * scale);
    }
{% else %}
    let m = load_rows(p.n + row);
    let ratio = V(load_rows(2u * p.n + row));
    let other_m = load_rows(3u * p.n + row);
    let rate = scale * p.constant * load_rows(4u * p.n + row);
    let cold = 1.0 / p.constant;
    for (var j = part; j < p.columns; j += p.lanes) {
        let d = ({{ load }}x(base + j) - V(m)) * cold - ratio;
        let t = ({{ load }}other(base + j) - V(other_m)) * cold;
        {{ store }}dx(base + j, difference(d, t) * rate);
    }
{% endif %}
}
{% endif %}

{% if STEP == "correct" %}
@compute @workgroup_size(LANES)
fn correct({{ arguments }}) {
{{ place() }}
    let label = load_target_(row);
    let count = p.columns * {{ WIDTH }}u;
    let valid = label >= 0 && label < i32(count);
    let wanted_index = select(0u, u32(label), valid);
    let hit = V(load_x(row * count + wanted_index));
    // Those before the target must be smaller, those after it not larger; comparisons with NaN fail.
    var failures = V(0.0);
    for (var j = part; j < p.columns; j += p.lanes) {
        let value = {{ load }}x(base + j);
        let passed = select(value <= hit, value < hit, index(j) < U(wanted_index));
        failures += select(V(1.0), V(0.0), passed);
    }
    let failed = over_row(total(failures), lane, part);
    if (part == 0u && wanted < p.n) {
        store_rows(row, select(nan(), select(0.0, 1.0, failed == 0.0), valid));
    }
}
{% endif %}

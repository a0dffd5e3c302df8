// Batch normalisation over all axes but the last (Ioffe and Szegedy 2015), with an optional residual and activation f:
//
//     xhat = (x - mean) / sqrt(var + eps)        z = weight * xhat + bias (+ residual)        y = f(z)
//
// x is a matrix [rows, columns] of V: vec4s of channels (WIDTH 4), or single channels where C is no multiple of 4 (WIDTH 1).
// Seven steps, each a variant (STEP) of this text:
//
//     statistics       x -> partials [slabs][2][C]: mean of a slab of rows less x[0], and M2 = sum of squared deviations
//     combine          partials -> affine, and the running statistics in place; Chan, Golub and LeVeque's pairwise update
//     frozen           running statistics -> affine
//     apply            x, affine -> y
//     sums             x, dy, affine -> partials [slabs][2][C]: sums of g and of g * (x - mean), where g = dy * f'(z) is recomputed
//     gradients        partials -> dweight, dbias, and the two coefficients [2][C] of dx
//     input_gradient   dx = a * g + e * (x - mean) + o, one pass; dresidual = g
//
// affine [5][C] is all that backward needs of a channel: mean, rest, inverse deviation 1 / sqrt(var + eps), a = weight * inverse,
// b = bias - a * (mean's rounding error); rest is that error times inverse, so (x - mean) * inverse - rest is xhat to full precision
// when the mean is thousands of deviations away. For that reason sums are taken of differences from a row of the data, too.
//
// Tiling. Reductions (statistics, sums, combine, gradients) with TREE (GPUs): 256 lanes = p.threads columns (a power of two) by
// 256 / p.threads rows of a slab, then a tree in workgroup memory. Otherwise (software drivers), and always in apply and
// input_gradient: a thread keeps its channels in registers and walks rows, those of a slab on software drivers, every p.step-th on
// GPUs; neither barriers nor workgroup memory. BLOCKS 1: a thread is one V of one slab, the V fastest. BLOCKS 2 to 4 (software
// drivers): a group of 8 lanes has a slab, and for each BLOCKS * 8 Vs of its rows in turn a lane owns BLOCKS of them, 8 apart, so that
// BLOCKS * 128 contiguous bytes are read of each row. The walk is wgrad's own, measured on llvmpipe; per-slab shifted sums combined
// pairwise are as in PyTorch's channels-last batch norm.
{% include "grid.wgsl" %}
{% set load = "load4_" if WIDTH == 4 else "load_" %}
{% set store = "store4_" if WIDTH == 4 else "store_" %}
{% set R = range(BLOCKS) %}
alias V = {{ "vec4<f32>" if WIDTH == 4 else "f32" }};
alias U = {{ "vec4<u32>" if WIDTH == 4 else "u32" }};
const LANES = {{ LANES }}u;
{# Which slab this thread works on, and which of its rows: part, part + parts, .. #}
{% macro place() %}
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
{% if TREE %}
    let blocks = (p.columns + p.threads - 1u) / p.threads;
    let slab = group / blocks;
    let c0 = (group % blocks) * p.threads + lane % p.threads;
    let part = lane / p.threads;
    let parts = LANES / p.threads;
{% else %}
    let id = group * LANES + lane;
    let slab = id / p.threads;
    if (slab >= p.slabs) {
        return;
    }
    let part = 0u;
    let parts = 1u;
{% if BLOCKS == 1 %}
    let c0 = id % p.threads;
{% endif %}
{% endif %}
{% if BLOCKS == 1 %}
    let k0 = min(c0, p.columns - 1u);
{% endif %}
{% endmacro %}
{# The channels c0, c1, .. (of p.columns) that this thread owns, all of them in turn where a group has all of a slab. Channels
   beyond the last read the last (k0, k1, ..) and store nothing. To be followed by close(). #}
{% macro channels() %}
{% if BLOCKS > 1 %}
    for (var block = 0u; block < p.columns; block += {{ 8 * BLOCKS }}u) {
{% for r in R %}
    let c{{ r }} = block + {{ 8 * r }}u + lane;
    let k{{ r }} = min(c{{ r }}, p.columns - 1u);
{% endfor %}
{% endif %}
{% endmacro %}
{% macro close() %}{% if BLOCKS > 1 %}    }{% endif %}{% endmacro %}
{# Before a slab is read in pieces of its rows, one access to each of its cache lines in order, eight at once: what is then read in
   pieces is near. #}
{% macro touch(names) %}
{% if BLOCKS > 1 %}
    if (p.columns > {{ 8 * BLOCKS }}u) {
        var touched = 0u;
        for (var i = {{ WIDTH }}u * first * p.columns + 16u * lane; i < {{ WIDTH }}u * end * p.columns; i += 128u) {
{% for name in names %}
            touched += bitcast<u32>(load_{{ name }}(i)) & 1u;
{% endfor %}
        }
        if (touched == 0xffffffffu) {
            return;
        }
    }
{% endif %}
{% endmacro %}
{# Sums each of `names` over the parts of the workgroup; the result is right where part is 0. #}
{% macro tree(names) %}
{% if TREE %}
{% for name in names %}
    shared_{{ name }}[lane] = {{ name }};
{% endfor %}
    workgroupBarrier();
    for (var half = parts / 2u; half > 0u; half /= 2u) {
        if (part < half) {
{% for name in names %}
            shared_{{ name }}[lane] += shared_{{ name }}[lane + half * p.threads];
{% endfor %}
        }
        workgroupBarrier();
    }
{% for name in names %}
    {{ name }} = shared_{{ name }}[lane];
{% endfor %}
{% endif %}
{% endmacro %}
{% if TREE %}
var<workgroup> shared_s0: array<V, LANES>;
var<workgroup> shared_q0: array<V, LANES>;
{% endif %}
{% set arguments = "@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32" %}
{# z of block r from xc = x - mean, and g = dy * f'(z). #}
{% macro upstream(r) %}
{% if ACTIVE %}
        let z{{ r }} = fma(xc{{ r }}, a{{ r }}, b{{ r }}){% if RESIDUAL %} + {{ load }}residual(at + k{{ r }}){% endif %};
        let g{{ r }} = {{ load }}dy(at + k{{ r }}) * derivative(z{{ r }});
{% else %}
        let g{{ r }} = {{ load }}dy(at + k{{ r }});
{% endif %}
{% endmacro %}

{% if STEP == "statistics" %}
{{ input(0, "x", width=WIDTH) }}
{{ output(1, "partials", type="f32", width=WIDTH) }}
{{ params("rows: u32, columns: u32, threads: u32, slabs: u32, slab_rows: u32") }}

@compute @workgroup_size(LANES)
fn statistics({{ arguments }}) {
{{ place() }}
    let first = slab * p.slab_rows;
    let end = min(first + p.slab_rows, p.rows);
{{ touch(["x"]) }}
{{ channels() }}
{% for r in R %}
    let shift{{ r }} = {{ load }}x(first * p.columns + k{{ r }});
    var s{{ r }} = V(0.0);
    var q{{ r }} = V(0.0);
{% endfor %}
    for (var row = first + part; row < end; row += parts) {
        let at = row * p.columns;
{% for r in R %}
        let d{{ r }} = {{ load }}x(at + k{{ r }}) - shift{{ r }};
        s{{ r }} += d{{ r }};
        q{{ r }} = fma(d{{ r }}, d{{ r }}, q{{ r }});
{% endfor %}
    }
{{ tree(["s0", "q0"]) }}
    let n = f32(end - first);
{% for r in R %}
    if (part == 0u && c{{ r }} < p.columns) {
        let m = s{{ r }} / n;
        {{ store }}partials(2u * slab * p.columns + c{{ r }}, (shift{{ r }} - {{ load }}x(c{{ r }})) + m);
        {{ store }}partials((2u * slab + 1u) * p.columns + c{{ r }}, max(q{{ r }} - s{{ r }} * m, V(0.0)));
    }
{% endfor %}
{{ close() }}
}
{% endif %}

{% if STEP == "combine" %}
{{ input(0, "partials", type="f32", width=WIDTH) }}
{{ input(1, "x", width=WIDTH) }}
{{ input(2, "weight", type="f32", width=WIDTH) }}
{{ input(3, "bias", type="f32", width=WIDTH) }}
{{ inout(4, "running_mean", type="f32", width=WIDTH) }}
{{ inout(5, "running_var", type="f32", width=WIDTH) }}
{{ output(6, "affine", type="f32", width=WIDTH) }}
{{ params("rows: u32, columns: u32, threads: u32, slabs: u32, slab_rows: u32, parts: u32, momentum: f32, eps: f32") }}

@compute @workgroup_size(LANES)
fn combine({{ arguments }}) {
{{ place() }}
    let shift = {{ load }}partials(k0);
    var s0 = V(0.0);
    var q0 = V(0.0);
    for (var i = part; i < p.parts; i += parts) {
        let n = f32(min(p.slab_rows, p.rows - i * p.slab_rows));
        let d = {{ load }}partials(2u * i * p.columns + k0) - shift;
        s0 += n * d;
        q0 += fma(n * d, d, {{ load }}partials((2u * i + 1u) * p.columns + k0));
    }
{{ tree(["s0", "q0"]) }}
    if (part > 0u || c0 >= p.columns) {
        return;
    }
    let n = f32(p.rows);
    let squares = max(q0 - s0 * (s0 / n), V(0.0));
    // mean + lost is origin + offset without rounding. The cleared bit keeps drivers from simplifying lost to 0.
    let origin = {{ load }}x(c0);
    let offset = shift + s0 / n;
    let mean = bitcast<V>(bitcast<U>(origin + offset) & U(0xfffffffeu));
    let lost = (origin - mean) + offset;
    let inverse = V(1.0) / sqrt(squares / n + V(p.eps));
    let a = {{ load }}weight(c0) * inverse;
    {{ store }}affine(c0, mean);
    {{ store }}affine(p.columns + c0, lost * inverse);
    {{ store }}affine(2u * p.columns + c0, inverse);
    {{ store }}affine(3u * p.columns + c0, a);
    {{ store }}affine(4u * p.columns + c0, {{ load }}bias(c0) - lost * a);
    {{ store }}running_mean(c0, mix({{ load }}running_mean(c0), mean, V(p.momentum)));
    {{ store }}running_var(c0, mix({{ load }}running_var(c0), squares / (n - 1.0), V(p.momentum)));
}
{% endif %}

{% if STEP == "frozen" %}
{{ input(0, "weight", type="f32", width=WIDTH) }}
{{ input(1, "bias", type="f32", width=WIDTH) }}
{{ input(2, "running_mean", type="f32", width=WIDTH) }}
{{ input(3, "running_var", type="f32", width=WIDTH) }}
{{ output(4, "affine", type="f32", width=WIDTH) }}
{{ params("columns: u32, threads: u32, slabs: u32, eps: f32") }}

@compute @workgroup_size(LANES)
fn frozen({{ arguments }}) {
{{ place() }}
    let inverse = V(1.0) / sqrt({{ load }}running_var(k0) + V(p.eps));
    {{ store }}affine(k0, {{ load }}running_mean(k0));
    {{ store }}affine(p.columns + k0, V(0.0));
    {{ store }}affine(2u * p.columns + k0, inverse);
    {{ store }}affine(3u * p.columns + k0, {{ load }}weight(k0) * inverse);
    {{ store }}affine(4u * p.columns + k0, {{ load }}bias(k0));
}
{% endif %}

{% if STEP == "apply" %}
{{ input(0, "x", width=WIDTH) }}
{{ input(1, "affine", type="f32", width=WIDTH) }}
{{ output(2, "y", width=WIDTH) }}
{% if RESIDUAL %}
{{ input(3, "residual", width=WIDTH) }}
{% endif %}
{{ params("rows: u32, columns: u32, threads: u32, slabs: u32, start: u32, step: u32, extent: u32") }}

fn activation(z: V) -> V {
    return {{ FORWARD }};
}

@compute @workgroup_size(LANES)
fn apply({{ arguments }}) {
{{ place() }}
    let first = slab * p.start;
    let end = min(first + p.extent, p.rows);
{{ touch(["x", "y"]) }}
{{ channels() }}
{% for r in R %}
    let mean{{ r }} = {{ load }}affine(k{{ r }});
    let a{{ r }} = {{ load }}affine(3u * p.columns + k{{ r }});
    let b{{ r }} = {{ load }}affine(4u * p.columns + k{{ r }});
{% endfor %}
    for (var row = first; row < end; row += p.step) {
        let at = row * p.columns;
{% for r in R %}
        let z{{ r }} = fma({{ load }}x(at + k{{ r }}) - mean{{ r }}, a{{ r }}, b{{ r }}){% if RESIDUAL %} + {{ load }}residual(at + k{{ r }}){% endif %};
        {% if BLOCKS > 1 %}if (c{{ r }} < p.columns) { {% endif %}
        {{ store }}y(at + k{{ r }}, activation(z{{ r }}));
        {% if BLOCKS > 1 %} } {% endif %}

{% endfor %}
    }
{{ close() }}
}
{% endif %}

{% if STEP == "sums" %}
{{ input(0, "x", width=WIDTH) }}
{{ input(1, "dy", width=WIDTH) }}
{{ input(2, "affine", type="f32", width=WIDTH) }}
{{ output(3, "partials", type="f32", width=WIDTH) }}
{% if ACTIVE and RESIDUAL %}
{{ input(4, "residual", width=WIDTH) }}
{% endif %}
{{ params("rows: u32, columns: u32, threads: u32, slabs: u32, slab_rows: u32") }}

fn derivative(z: V) -> V {
    return {{ DERIVATIVE }};
}

@compute @workgroup_size(LANES)
fn sums({{ arguments }}) {
{{ place() }}
    let first = slab * p.slab_rows;
    let end = min(first + p.slab_rows, p.rows);
{{ touch(["x", "dy"]) }}
{{ channels() }}
{% for r in R %}
    let mean{{ r }} = {{ load }}affine(k{{ r }});
{% if ACTIVE %}
    let a{{ r }} = {{ load }}affine(3u * p.columns + k{{ r }});
    let b{{ r }} = {{ load }}affine(4u * p.columns + k{{ r }});
{% endif %}
    var s{{ r }} = V(0.0);
    var q{{ r }} = V(0.0);
{% endfor %}
    for (var row = first + part; row < end; row += parts) {
        let at = row * p.columns;
{% for r in R %}
        let xc{{ r }} = {{ load }}x(at + k{{ r }}) - mean{{ r }};
{{ upstream(r) }}
        s{{ r }} += g{{ r }};
        q{{ r }} = fma(g{{ r }}, xc{{ r }}, q{{ r }});
{% endfor %}
    }
{{ tree(["s0", "q0"]) }}
{% for r in R %}
    if (part == 0u && c{{ r }} < p.columns) {
        {{ store }}partials(2u * slab * p.columns + c{{ r }}, s{{ r }});
        {{ store }}partials((2u * slab + 1u) * p.columns + c{{ r }}, q{{ r }});
    }
{% endfor %}
{{ close() }}
}
{% endif %}

{% if STEP == "gradients" %}
{{ input(0, "partials", type="f32", width=WIDTH) }}
{{ input(1, "affine", type="f32", width=WIDTH) }}
{{ output(2, "dweight", type="f32", width=WIDTH) }}
{{ output(3, "dbias", type="f32", width=WIDTH) }}
{{ output(4, "coefficients", type="f32", width=WIDTH) }}
{{ params("rows: u32, columns: u32, threads: u32, slabs: u32, parts: u32") }}

@compute @workgroup_size(LANES)
fn gradients({{ arguments }}) {
{{ place() }}
    var s0 = V(0.0);
    var q0 = V(0.0);
    for (var i = part; i < p.parts; i += parts) {
        s0 += {{ load }}partials(2u * i * p.columns + k0);
        q0 += {{ load }}partials((2u * i + 1u) * p.columns + k0);
    }
{{ tree(["s0", "q0"]) }}
    if (part > 0u || c0 >= p.columns) {
        return;
    }
    let n = f32(max(p.rows, 1u));
    let rest = {{ load }}affine(p.columns + c0);
    let inverse = {{ load }}affine(2u * p.columns + c0);
    let a = {{ load }}affine(3u * p.columns + c0);
    let dweight = fma(inverse, q0, -rest * s0);
    {{ store }}dweight(c0, dweight);
    {{ store }}dbias(c0, s0);
    {{ store }}coefficients(c0, -a * inverse * (dweight / n));
    {{ store }}coefficients(p.columns + c0, a * (fma(rest, dweight, -s0) / n));
}
{% endif %}

{% if STEP == "input_gradient" %}
{{ input(0, "dy", width=WIDTH) }}
{{ input(1, "affine", type="f32", width=WIDTH) }}
{{ input(2, "x", width=WIDTH) }}
{{ output(3, "dx", width=WIDTH) }}
{% if not FROZEN %}
{{ input(4, "coefficients", type="f32", width=WIDTH) }}
{% endif %}
{% if ACTIVE and RESIDUAL %}
{{ input(4 if FROZEN else 5, "residual", width=WIDTH) }}
{{ output(5 if FROZEN else 6, "dresidual", width=WIDTH) }}
{% endif %}
{{ params("rows: u32, columns: u32, threads: u32, slabs: u32, start: u32, step: u32, extent: u32") }}

fn derivative(z: V) -> V {
    return {{ DERIVATIVE }};
}

@compute @workgroup_size(LANES)
fn input_gradient({{ arguments }}) {
{{ place() }}
    let first = slab * p.start;
    let end = min(first + p.extent, p.rows);
{{ touch(["dy", "x", "dx"]) }}
{{ channels() }}
{% for r in R %}
    let a{{ r }} = {{ load }}affine(3u * p.columns + k{{ r }});
{% if ACTIVE or not FROZEN %}
    let mean{{ r }} = {{ load }}affine(k{{ r }});
{% endif %}
{% if ACTIVE %}
    let b{{ r }} = {{ load }}affine(4u * p.columns + k{{ r }});
{% endif %}
{% if not FROZEN %}
    let e{{ r }} = {{ load }}coefficients(k{{ r }});
    let o{{ r }} = {{ load }}coefficients(p.columns + k{{ r }});
{% endif %}
{% endfor %}
    for (var row = first; row < end; row += p.step) {
        let at = row * p.columns;
{% for r in R %}
{% if ACTIVE or not FROZEN %}
        let xc{{ r }} = {{ load }}x(at + k{{ r }}) - mean{{ r }};
{% endif %}
{{ upstream(r) }}
        {% if BLOCKS > 1 %}if (c{{ r }} < p.columns) { {% endif %}
{% if FROZEN %}
        {{ store }}dx(at + k{{ r }}, a{{ r }} * g{{ r }});
{% else %}
        {{ store }}dx(at + k{{ r }}, fma(a{{ r }}, g{{ r }}, fma(xc{{ r }}, e{{ r }}, o{{ r }})));
{% endif %}
{% if ACTIVE and RESIDUAL %}
        {{ store }}dresidual(at + k{{ r }}, g{{ r }});
{% endif %}
        {% if BLOCKS > 1 %} } {% endif %}

{% endfor %}
    }
{{ close() }}
}
{% endif %}

// Batch normalisation over all axes but the last (Ioffe and Szegedy 2015), with an optional residual and activation f:
//
//     xhat = (x - mean) / sqrt(var + eps)        z = weight * xhat + bias (+ residual)        y = f(z)
//
// x is a matrix [rows, columns] of V: vec4s of channels (WIDTH 4), or single channels where C is no multiple of 4 (WIDTH 1).
// Steps, each a variant (STEP) of this text; a small x takes one dispatch forward (normalize) and one backward (gradient), a large one three:
//
//     statistics       x -> partials [slabs][2][C]: mean of a slab of rows less its first row, and M2 = sum of squared deviations
//                      (PIECES: x is larger than a binding, so it is walked in pieces of whole slabs; their first rows [slabs][C] are kept for combine)
//     merge            partials -> the same of fewer slabs, where a convolution brought along those of many
//                      (where numbers are above 1e12, differences are in units of 2^72, which no square overflows, and M2 has a minus sign)
//     combine          partials -> affine, and the running statistics in place; Chan, Golub and LeVeque's pairwise update
//     (frozen.wgsl)    running statistics -> affine
//     apply            x, affine -> y
//     normalize        statistics of one slab, what combine does, and apply
//     sums             x, dy, affine -> partials [slabs][2][C]: sums of g and of g * (x - mean), where g = dy * f'(z) is recomputed
//     coefficients     partials -> dweight, dbias, and the two coefficients [2][C] of dx
//     input_gradient   dx = a * g + e * (x - mean) + o, one pass; dresidual = g
//     gradient         sums of one slab, what coefficients does, and input_gradient
//
// affine [5][C] is all that backward needs of a channel: mean, rest, inverse deviation 1 / sqrt(var + eps), a = weight * inverse,
// b = bias - a * (mean's rounding error); rest is that error times inverse, so (x - mean) * inverse - rest is xhat to full precision
// when the mean is thousands of deviations away. For that reason sums are taken of differences from a row of the data, too.
//
// Tiling. A workgroup owns p.chunk neighbouring columns of a slab of rows. Its LANES * BLOCKS slots (BLOCKS a lane) lie 2^p.shift along the
// columns, the others take further rows, so that neighbouring lanes read neighbouring vec4s and no lane idles where channels are few: a step
// of the walk is p.copies rows. Slots of one column are added by shuffles (SHUFFLE: a workgroup is one subgroup) or by a tree in workgroup
// memory, in a fixed order. ONE: the columns of a workgroup are no more than its lanes, so all blocks of a lane share their column.
// Per-slab shifted sums combined pairwise are as in PyTorch's channels-last batch norm; the walk is wgrad's own, measured on llvmpipe.
{% include "grid.wgsl" %}
{% set load = "load4_" if WIDTH == 4 else "load_" %}
{% set store = "store4_" if WIDTH == 4 else "store_" %}
{% set ONE = STEP in ["combine", "normalize", "coefficients", "gradient"] %}
{% set R = range(BLOCKS) %}
{# Blocks with columns of their own, and the block whose column block r has. #}
{% set OWN = range(1 if ONE else BLOCKS) %}
{% macro own(r) %}{{ 0 if ONE else r }}{% endmacro %}
alias V = {{ "vec4<f32>" if WIDTH == 4 else "f32" }};
alias U = {{ "vec4<u32>" if WIDTH == 4 else "u32" }};
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("vec4<f32>" if WIDTH == 4 else "f32", "_v") }}
{% set places = "rows: u32, columns: u32, chunk: u32, shift: u32, copies: u32, slab_rows: u32" %}
{% macro entry() %}
@compute @workgroup_size({{ LANES }})
fn {{ STEP }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin({{ "subgroup_invocation_id" if SHUFFLE else "local_invocation_index" }}) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let chunks = (p.columns + p.chunk - 1u) / p.chunk;
    let slab = group / chunks;
    let left = (group - slab * chunks) * p.chunk;
    let right = min(left + p.chunk, p.columns);
    let first = slab * p.slab_rows;
    let end = min(first + p.slab_rows, p.rows);
{% for r in R %}
    // Column c of row k of each step, for the rows before end; the result of a column belongs to the slot with k = 0 (mine).
    let k{{ r }} = (lane + {{ r * LANES }}u) >> p.shift;
    let c{{ r }} = left + ((lane + {{ r * LANES }}u) & ((1u << p.shift) - 1u));
    let end{{ r }} = select(0u, end - min(k{{ r }}, end), c{{ r }} < right);
    let at{{ r }} = k{{ r }} * p.columns + c{{ r }};
    let safe{{ r }} = min(c{{ r }}, p.columns - 1u);
    let mine{{ r }} = k{{ r }} == 0u && c{{ r }} < right;
{% endfor %}
{% endmacro %}
{# Sums of all slots of a column, in all of them (ONE) or in the first. #}
{% macro join(names) %}
{% if ONE %}
{% for r in R if r > 0 %}
{% for name in names %}
    {{ name }}0 += {{ name }}{{ r }};
{% endfor %}
{% endfor %}
{% else %}
{% for half in [2, 1] if half < BLOCKS %}
    if ((1u << p.shift) <= {{ LANES * half }}u) {
{% for r in range(half) %}
{% for name in names %}
        {{ name }}{{ r }} += {{ name }}{{ r + half }};
{% endfor %}
{% endfor %}
    }
{% endfor %}
{% endif %}
{% if SHUFFLE %}
    for (var half = {{ LANES // 2 }}u; half >= (1u << p.shift); half >>= 1u) {
{% for name in names %}
        {{ name }}0 += subgroupShuffleXor({{ name }}0, half);
{% endfor %}
    }
{% else %}
{% for name in names %}
    shared_{{ name }}[lane] = {{ name }}0;
{% endfor %}
    workgroupBarrier();
    for (var half = {{ LANES // 2 }}u; half >= (1u << p.shift); half >>= 1u) {
        if (lane < half) {
{% for name in names %}
            shared_{{ name }}[lane] += shared_{{ name }}[lane + half];
{% endfor %}
        }
        workgroupBarrier();
    }
{% for name in names %}
    {{ name }}0 = shared_{{ name }}[lane & ((1u << p.shift) - 1u)];
{% endfor %}
{% endif %}
{% endmacro %}
// The largest number.
const LARGEST: f32 = 3.4028234e38;

// A row that sums are taken relative to: 0 instead of infinity, so that the mean is infinite, and not NaN.
fn anchor(x: V) -> V {
    return select(x, V(0.0), abs(x) > V(LARGEST));
}

// What differences are multiplied by before they are squared: 1, or 2^-72 where numbers are so large that squares might overflow.
fn unit(x: V) -> V {
    return select(V(1.0), V(2.117582368135751e-22), abs(x) > V(1.0e12));
}
{% if not SHUFFLE %}
var<workgroup> shared_s: array<V, {{ LANES }}>;
var<workgroup> shared_q: array<V, {{ LANES }}>;
{% endif %}
{# The channel's numbers for block r, from affine. #}
{% macro channel(active=true) %}
{% for r in OWN %}
    let mean{{ r }} = {{ load }}affine(safe{{ r }});
{% if active %}
    let a{{ r }} = {{ load }}affine(3u * p.columns + safe{{ r }});
    let b{{ r }} = {{ load }}affine(4u * p.columns + safe{{ r }});
{% endif %}
{% endfor %}
{% endmacro %}
{# Walks the rows of the slab. #}
{% macro walk() %}
    for (var row = first; row < end; row += p.copies) {
        let at = row * p.columns;
{% for r in R %}
        if (row < end{{ r }}) {
            {{ caller(r) }}
        }
{% endfor %}
    }
{% endmacro %}
{# The same with sums s and q of each slot, of 16 steps first and then of those: no sum runs over many rows. #}
{% macro sums() %}
{% for r in R %}
    var all_s{{ r }} = V(0.0);
    var all_q{{ r }} = V(0.0);
{% endfor %}
    for (var block = first; block < end; block += 16u * p.copies) {
        let end_block = min(block + 16u * p.copies, end);
{% for r in R %}
        var s{{ r }} = V(0.0);
        var q{{ r }} = V(0.0);
{% endfor %}
        for (var row = block; row < end_block; row += p.copies) {
            let at = row * p.columns;
{% for r in R %}
            if (row < end{{ r }}) {
                {{ caller(r) }}
            }
{% endfor %}
        }
{% for r in R %}
        all_s{{ r }} += s{{ r }};
        all_q{{ r }} += q{{ r }};
{% endfor %}
    }
{% for r in R %}
    var s{{ r }} = all_s{{ r }};
    var q{{ r }} = all_q{{ r }};
{% endfor %}
{% endmacro %}
{# xc = x - mean, and g = dy * f'(z). #}
{% macro upstream(r) %}
            let xc = {{ load }}x(at + at{{ r }}) - mean{{ own(r) }};
{% if ACTIVE %}
            let z = fma(xc, a{{ own(r) }}, b{{ own(r) }}){% if RESIDUAL %} + {{ load }}residual(at + at{{ r }}){% endif %};
            let g = through({{ load }}dy(at + at{{ r }}), z);
{% else %}
            let g = {{ load }}dy(at + at{{ r }});
{% endif %}
{% endmacro %}

{% if STEP in ["statistics", "merge", "combine", "normalize", "apply"] %}
{% set PARTIAL = STEP in ["merge", "combine"] %}
{% if PARTIAL %}
{{ input(0, "partials", type="f32", width=WIDTH) }}
{% endif %}
{{ input(1 if PARTIAL else 0, "x", width=WIDTH) }}
{% if STEP == "merge" %}
{{ output(2, "merged", type="f32", width=WIDTH) }}
{% elif STEP == "statistics" %}
{{ output(1, "partials", type="f32", width=WIDTH) }}
{% if PIECES %}
{{ output(2, "firsts", width=WIDTH) }}
{% endif %}
{% elif STEP == "apply" %}
{{ input(1, "affine", type="f32", width=WIDTH) }}
{% else %}
{% set b = 2 if STEP == "combine" else 1 %}
{{ input(b, "weight", type="f32", width=WIDTH) }}
{{ input(b + 1, "bias", type="f32", width=WIDTH) }}
{{ inout(b + 2, "running_mean", type="f32", width=WIDTH) }}
{{ inout(b + 3, "running_var", type="f32", width=WIDTH) }}
{{ output(b + 4, "affine", type="f32", width=WIDTH) }}
{% endif %}
{% if STEP == "normalize" or STEP == "apply" %}
{% set b = 6 if STEP == "normalize" else 2 %}
{{ output(b, "y", width=WIDTH) }}
{% if RESIDUAL %}
{{ input(b + 1, "residual", width=WIDTH) }}
{% endif %}

fn activation(z: V) -> V {
    return {{ FORWARD }};
}
{% endif %}
{{ params(places ~ ", all_rows: u32, per_slab: u32, momentum: f32, eps: f32") }}

// M2 of n differences from their sum and that of their squares: NaN where the sum is not finite, infinite where only the squares are.
fn deviations(s: V, q: V, n: f32) -> V {
    let product = s * (s / n);
    return maximum_v(q - select(minimum_v(product, V(LARGEST)), product, abs(s) > V(LARGEST)), V(0.0));
}
{% if PARTIAL %}

// M2 of a slab in a unit: it is below 0 where it was stored in the small one.
fn squares_in(m2: V, unit_: V) -> V {
    let small = V(2.117582368135751e-22);
    return select(m2 * unit_ * unit_, select(-m2 / small / small, -m2, unit_ != V(1.0)), m2 < V(0.0));
}
{% endif %}

{{ entry() }}
{% if PARTIAL %}
{% set apart = "1u" if PIECES else "p.per_slab" %}
    // Slabs instead of rows; one of n rows has its mean, less its first row, and M2.
{% for r in OWN %}
    let origin{{ r }} = anchor({{ load }}x(first * {{ apart }} * p.columns + safe{{ r }}));
    let shift{{ r }} = {{ load }}partials(2u * first * p.columns + safe{{ r }});
    let unit{{ r }} = unit(origin{{ r }});
{% endfor %}
{% call(r) sums() %}
let n = f32(min(p.per_slab, p.all_rows - (row + k{{ r }}) * p.per_slab));
            let first{{ r }} = anchor({{ load }}x({{ apart }} * (at + k{{ r }} * p.columns) + c{{ r }}));
            let away = ((first{{ r }} - origin{{ own(r) }}) + {{ load }}partials(2u * at + k{{ r }} * p.columns + at{{ r }})) - shift{{ own(r) }};
            let d = away * unit{{ own(r) }};
            s{{ r }} += n * d;
            q{{ r }} += fma(n * d, d, squares_in({{ load }}partials(2u * at + (k{{ r }} + 1u) * p.columns + at{{ r }}), unit{{ own(r) }}));
{% endcall %}
{{ join(["s", "q"]) }}
{% elif STEP != "apply" %}
{% for r in OWN %}
    let shift{{ r }} = anchor({{ load }}x(first * p.columns + safe{{ r }}));
    let unit{{ r }} = unit(shift{{ r }});
{% endfor %}
{% call(r) sums() %}
let d = fma({{ load }}x(at + at{{ r }}), unit{{ own(r) }}, -shift{{ own(r) }} * unit{{ own(r) }});
            s{{ r }} += d;
            q{{ r }} = fma(d, d, q{{ r }});
{% endcall %}
{{ join(["s", "q"]) }}
{% endif %}
{% if STEP in ["statistics", "merge"] %}
{% set to, per_row = ("merged", "p.per_slab") if PARTIAL else ("partials", "1u") %}
    let n = f32(min(end * {{ per_row }}, p.all_rows) - first * {{ per_row }});
{% for r in R %}
    if (mine{{ r }}) {
        let m = s{{ r }} / n;
        let m2 = deviations(s{{ r }}, q{{ r }}, n);
        {{ store }}{{ to }}(2u * slab * p.columns + c{{ r }}, {{ "shift" ~ r ~ " + " if PARTIAL else "" }}m / unit{{ r }});
        {{ store }}{{ to }}((2u * slab + 1u) * p.columns + c{{ r }}, select(m2, -m2, unit{{ r }} != V(1.0)));
{% if PIECES and not PARTIAL %}
        {{ store }}firsts(slab * p.columns + c{{ r }}, shift{{ r }});
{% endif %}
    }
{% endfor %}
{% elif STEP == "apply" %}
{{ channel() }}
{% else %}
    let n = f32(p.all_rows);
    let squares = deviations(s0, q0, n);
    // mean + lost is origin + offset without rounding. The cleared bit keeps drivers from simplifying lost to 0.
{% if STEP == "combine" %}
    let origin = origin0;
    let offset = shift0 + s0 / n / unit0;
{% else %}
    let origin = shift0;
    let offset = s0 / n / unit0;
{% endif %}
    let mean0 = bitcast<V>(bitcast<U>(origin + offset) & U(0xfffffffeu));
    let lost = (origin - mean0) + offset;
    // Where all are equal eps is what there is, even if it is lost in that unit.
    let inverse = select(unit0 / sqrt(squares / n + V(p.eps) * unit0 * unit0), V(1.0) / sqrt(V(p.eps)), squares == V(0.0));
    let a0 = {{ load }}weight(safe0) * inverse;
    let b0 = {{ load }}bias(safe0) - select(lost * a0, V(0.0), abs(a0) > V(LARGEST));
    if (mine0) {
        {{ store }}affine(c0, mean0);
        {{ store }}affine(p.columns + c0, lost * inverse);
        {{ store }}affine(2u * p.columns + c0, inverse);
        {{ store }}affine(3u * p.columns + c0, a0);
        {{ store }}affine(4u * p.columns + c0, b0);
        {{ store }}running_mean(c0, mix({{ load }}running_mean(c0), mean0, V(p.momentum)));
        let kept = {{ load }}running_var(c0);
        let var_ = squares / (n - 1.0);
        let far = kept * (1.0 - p.momentum) + var_ * p.momentum / unit0 / unit0;
        {{ store }}running_var(c0, select(mix(kept, var_, V(p.momentum)), far, unit0 != V(1.0)));
    }
{% endif %}
{% if STEP == "normalize" or STEP == "apply" %}
{% call(r) walk() %}
let z = fma({{ load }}x(at + at{{ r }}) - mean{{ own(r) }}, a{{ own(r) }}, b{{ own(r) }}){% if RESIDUAL %} + {{ load }}residual(at + at{{ r }}){% endif %};
            {{ store }}y(at + at{{ r }}, activation(z));
{% endcall %}
{% endif %}
}

{% else %}
{% if STEP == "coefficients" %}
{{ input(0, "partials", type="f32", width=WIDTH) }}
{{ input(1, "affine", type="f32", width=WIDTH) }}
{% set b = 2 %}
{% else %}
{{ input(0, "x", width=WIDTH) }}
{{ input(1, "affine", type="f32", width=WIDTH) }}
{{ input(2, "dy", width=WIDTH) }}
{% set b = 3 %}
{% endif %}
{% if STEP == "sums" %}
{{ output(b, "partials", type="f32", width=WIDTH) }}
{% set b = b + 1 %}
{% elif STEP != "input_gradient" %}
{{ output(b, "dweight", type="f32", width=WIDTH) }}
{{ output(b + 1, "dbias", type="f32", width=WIDTH) }}
{% set b = b + 2 %}
{% endif %}
{% if STEP == "coefficients" %}
{{ output(b, "terms", type="f32", width=WIDTH) }}
{% elif STEP == "input_gradient" and not FROZEN %}
{{ input(b, "terms", type="f32", width=WIDTH) }}
{% set b = b + 1 %}
{% endif %}
{% if STEP == "input_gradient" or STEP == "gradient" %}
{{ output(b, "dx", width=WIDTH) }}
{% set b = b + 1 %}
{% endif %}
{% if STEP != "coefficients" and ACTIVE %}
{% if RESIDUAL %}
{{ input(b, "residual", width=WIDTH) }}
{% if STEP != "sums" %}
{{ output(b + 1, "dresidual", width=WIDTH) }}
{% endif %}
{% endif %}

// dy * f'(z)
fn through(dy: V, z: V) -> V {
    return {{ GRADIENT }};
}
{% endif %}
{{ params(places ~ ", all_rows: u32") }}

{{ entry() }}
{% if STEP == "coefficients" %}
{% call(r) sums() %}
s{{ r }} += {{ load }}partials(2u * at + k{{ r }} * p.columns + at{{ r }});
            q{{ r }} += {{ load }}partials(2u * at + (k{{ r }} + 1u) * p.columns + at{{ r }});
{% endcall %}
{{ join(["s", "q"]) }}
{% else %}
{{ channel(active=ACTIVE or STEP != "sums") }}
{% endif %}
{% if STEP == "sums" or STEP == "gradient" %}
{% call(r) sums() %}
{{ upstream(r) }}
            s{{ r }} += g;
            q{{ r }} = fma(g, xc, q{{ r }});
{% endcall %}
{{ join(["s", "q"]) }}
{% endif %}
{% if STEP == "sums" %}
{% for r in R %}
    if (mine{{ r }}) {
        {{ store }}partials(2u * slab * p.columns + c{{ r }}, s{{ r }});
        {{ store }}partials((2u * slab + 1u) * p.columns + c{{ r }}, q{{ r }});
    }
{% endfor %}
{% elif STEP != "input_gradient" %}
    let n = f32(max(p.all_rows, 1u));
    let rest = {{ load }}affine(p.columns + safe0);
    let inverse = {{ load }}affine(2u * p.columns + safe0);
{% if STEP == "coefficients" %}
    let a0 = {{ load }}affine(3u * p.columns + safe0);
{% endif %}
    let dweight = fma(inverse, q0, -rest * s0);
    let e0 = -a0 * inverse * (dweight / n);
    let o0 = a0 * (fma(rest, dweight, -s0) / n);
    if (mine0) {
        {{ store }}dweight(c0, dweight);
        {{ store }}dbias(c0, s0);
{% if STEP == "coefficients" %}
        {{ store }}terms(c0, e0);
        {{ store }}terms(p.columns + c0, o0);
{% endif %}
    }
{% elif not FROZEN %}
{% for r in OWN %}
    let e{{ r }} = {{ load }}terms(safe{{ r }});
    let o{{ r }} = {{ load }}terms(p.columns + safe{{ r }});
{% endfor %}
{% endif %}
{% if STEP == "input_gradient" or STEP == "gradient" %}
{% call(r) walk() %}
{{ upstream(r) }}
{% if FROZEN %}
            {{ store }}dx(at + at{{ r }}, a{{ own(r) }} * g);
{% else %}
            {{ store }}dx(at + at{{ r }}, fma(a{{ own(r) }}, g, fma(xc, e{{ own(r) }}, o{{ own(r) }})));
{% endif %}
{% if ACTIVE and RESIDUAL %}
            {{ store }}dresidual(at + at{{ r }}, g);
{% endif %}
{% endcall %}
{% endif %}
}
{% endif %}

// y[o] = finish(combine over r of map(x[base(o) + offset(r)])), combine being +, max or min, which keep NaN.
//
// The host folds neighbouring axes that are both kept or both reduced; up to three groups of either kind remain. Outputs are numbered
// row-major over the kept axes (sizes .., k1, k2; steps ks0, ks1, ks2), terms over the reduced ones (.., r1, r2; rs0, rs1, rs2).
// A long reduction is split: split s takes the terms s * chunk .. and writes element [s, o] of its result, a tensor of partials
// [splits, outputs] that the next launch reduces over its first axis; so no sum runs over many terms, and the bits repeat.
//
// VEC "rows":    V is four neighbouring terms (the innermost axis is reduced); lengths and steps count vec4s, terms from `elements` on are padding;
//     "columns": V is four neighbouring outputs (the innermost axis is kept); outputs and steps count vec4s;
//     "none":    V is one.
// TREE: a workgroup of 128 lanes owns a result and adds its lanes by a tree in workgroup memory; otherwise a thread owns it, without a barrier.
// BLOCK (columns, software drivers): a thread owns that many results, 8 apart, so that the 8 lanes which run together read a long piece of a row.
// map is an expression of x, of `other` (a second tensor like x) and `side` (a value per output); finish one of s, `side` and p.scale.
{% include "grid.wgsl" %}
{% from "lanes.wgsl" import join_lanes %}
{% from "nan.wgsl" import nan_kept %}
alias V = {{ "f32" if VEC == "none" else "vec4<f32>" }};
alias F = {{ "vec4<f32>" if VEC == "columns" else "f32" }};
{% set wide = 1 if VEC == "none" else 4 %}
{% set high = 4 if VEC == "columns" else 1 %}
{{ input(0, "source", type=X, width=wide) }}
{% set index = namespace(next=1) %}
{% if OTHER %}
{{ input(1, "second", type=X, width=wide) }}
{% set index.next = 2 %}
{% endif %}
{% if SIDE %}
{{ input(index.next, "aside", type=SIDE, width=high) }}
{% set index.next = index.next + 1 %}
{% endif %}
{{ output(index.next, "result", type=OUT, width=high) }}
{{ params("outputs: u32, splits: u32, chunk: u32, length: u32, elements: u32, scale: f32, k1: u32, k2: u32, ks0: u32, ks1: u32, ks2: u32, r1: u32, r2: u32, rs0: u32, rs1: u32, rs2: u32") }}
{% set load = "load_" if VEC == "none" else "load4_" %}
{% set joins = {"sum": "sum", "max": "maximum", "min": "minimum"}[COMBINE] %}
{% set identity = {"sum": "0.0", "max": "infinity(0xff800000u)", "min": "infinity(0x7f800000u)"}[COMBINE] %}
{{ nan_kept("f32" if VEC == "none" else "vec4<f32>", "_v") }}
{{ nan_kept("vec4<f32>" if VEC == "columns" else "f32", "_f") }}

// WGSL has no infinity as a constant.
fn infinity(bits: u32) -> f32 {
    return bitcast<f32>(bits);
}

fn combine(a: V, b: V) -> V {
    return {{ "a + b" if COMBINE == "sum" else joins ~ "_v(a, b)" }};
}

fn base(o: u32) -> u32 {
    {% if KEPT == 1 %}
    return o * p.ks2;
    {% else %}
    let q = o / p.k2;
    return (q / p.k1) * p.ks0 + (q % p.k1) * p.ks1 + (o % p.k2) * p.ks2;
    {% endif %}
}

fn offset(r: u32) -> u32 {
    {% if REDUCED == 1 %}
    return r * p.rs2;
    {% else %}
    let q = r / p.r2;
    return (q / p.r1) * p.rs0 + (q % p.r1) * p.rs1 + (r % p.r2) * p.rs2;
    {% endif %}
}

fn term(at: u32, r: u32, side: V) -> V {
    let i = at + offset(r);
    let x = {{ load }}source(i);
    {% if OTHER %}
    let other = {{ load }}second(i);
    {% endif %}
    {% if VEC == "rows" %}
    let inside = vec4<u32>(4u * r) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.elements);
    return select(V({{ identity }}), {{ MAP }}, inside);
    {% else %}
    return {{ MAP }};
    {% endif %}
}

fn finish(s: F, side: F) -> F {
    return {{ FINISH }};
}

// Four running results, so that a loop step is four terms.
fn run(at: u32, first: u32, last: u32, step: u32, side: V) -> V {
    {% for k in range(4) %}
    var v{{ k }} = V({{ identity }});
    {% endfor %}
    var r = first;
    while (r + 3u * step < last) {
        {% for k in range(4) %}
        v{{ k }} = combine(v{{ k }}, term(at, r + {{ k }}u * step, side));
        {% endfor %}
        r += 4u * step;
    }
    while (r < last) {
        v0 = combine(v0, term(at, r, side));
        r += step;
    }
    return combine(combine(v0, v1), combine(v2, v3));
}

fn fold(v: V) -> F {
    {% if VEC == "rows" %}
    {% if COMBINE == "sum" %}
    return (v.x + v.y) + (v.z + v.w);
    {% else %}
    return {{ joins }}_f({{ joins }}_f(v.x, v.y), {{ joins }}_f(v.z, v.w));
    {% endif %}
    {% else %}
    return v;
    {% endif %}
}

fn load_side(o: u32) -> F {
    {% if SIDE %}
    return {{ "load4_aside" if VEC == "columns" else "load_aside" }}(o);
    {% else %}
    return F(0.0);
    {% endif %}
}
{% if TREE %}

var<workgroup> scratch: array<f32, 128>;

@compute @workgroup_size(128)
fn reduce(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let o = group % p.outputs;
    let first = (group / p.outputs) * p.chunk;
    let side = load_side(o);
    scratch[lane] = fold(run(base(o), first + lane, min(first + p.chunk, p.length), 128u, V(side)));
{{ join_lanes("scratch", 128, "sum" if COMBINE == "sum" else joins ~ "_f") }}
    if (lane == 0u) {
        store_result(group, finish(scratch[0], side));
    }
}
{% elif BLOCK > 1 %}

@compute @workgroup_size(64)
fn reduce(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    let blocks = p.outputs / {{ BLOCK }}u;
    if (i >= blocks * p.splits) {
        return;
    }
    let g = i % blocks;
    let o = (g >> 3u) * {{ 8 * BLOCK }}u + (g & 7u);
    let first = (i / blocks) * p.chunk;
    let last = min(first + p.chunk, p.length);
    {% for k in range(BLOCK) %}
    let at{{ k }} = base(o + {{ 8 * k }}u);
    let side{{ k }} = load_side(o + {{ 8 * k }}u);
    var v{{ k }} = V({{ identity }});
    {% endfor %}
    for (var r = first; r < last; r += 1u) {
        {% for k in range(BLOCK) %}
        v{{ k }} = combine(v{{ k }}, term(at{{ k }}, r, side{{ k }}));
        {% endfor %}
    }
    let to = (i / blocks) * p.outputs + o;
    {% for k in range(BLOCK) %}
    store4_result(to + {{ 8 * k }}u, finish(v{{ k }}, side{{ k }}));
    {% endfor %}
}
{% else %}

@compute @workgroup_size(64)
fn reduce(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.outputs * p.splits) {
        return;
    }
    let o = i % p.outputs;
    let first = (i / p.outputs) * p.chunk;
    let side = load_side(o);
    let s = fold(run(base(o), first, min(first + p.chunk, p.length), 1u, V(side)));
    {{ "store4_result" if VEC == "columns" else "store_result" }}(i, finish(s, side));
}
{% endif %}

// y[o, k, i] = x[o, index[k], i]: rows of an axis by number (index_select), or of a table (embedding: one o).
//
// x: [outer, size, inner]; index: [count], i32; y: [outer, count, inner]; W = 4 counts vec4s along inner. A number outside 0..size gives `missing`
// (NaN; the least integer) and never a read. The gradient has no atomics: each element of dx walks the index list, in order, and
// sums the rows of dy that were taken from it; a long list in parts first..last (first a multiple of 4), each adding to what the ones before left.
{% include "grid.wgsl" %}
{% set BACKWARD = PASS == "backward" %}
{% set scalar = "i32" if T == "i32" else "f32" %}
{% set value = "vec4<" ~ scalar ~ ">" if W == 4 else scalar %}
{% set wide = "4" if W == 4 else "" %}
{{ input(0, "x", width=W) }}
{{ input(1, "index", type="i32", width=4 if BACKWARD else 1) }}
{{ output(2, "y", width=W) }}
{{ params("n: u32, size: u32, count: u32, inner: u32, missing: " ~ scalar ~ ", first: u32, last: u32") }}

{% if BACKWARD %}
// Here x is dy and y is dx.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.inner;
    let o = row / p.size;
    let d = i32(row - o * p.size);
    let start = o * p.count * p.inner + (i - row * p.inner);
    var sum = {{ value }}(0.0);
    if (p.first > 0u) {
        sum = load{{ wide }}_y(i);
    }
    for (var k = p.first; k < p.last; k += 4u) {
        let taken = load4_index(k >> 2u);
        {% for c in ["x", "y", "z", "w"] %}
        if (taken.{{ c }} == d && k + {{ loop.index0 }}u < p.count) {
            sum += load{{ wide }}_x(start + (k + {{ loop.index0 }}u) * p.inner);
        }
        {% endfor %}
    }
    store{{ wide }}_y(i, sum);
}
{% else %}
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.inner;
    let o = row / p.count;
    let d = load_index(row - o * p.count);
    var v = {{ value }}(p.missing);
    if (d >= 0 && d < i32(p.size)) {
        v = load{{ wide }}_x((o * p.size + u32(d)) * p.inner + (i - row * p.inner));
    }
    store{{ wide }}_y(i, v);
}
{% endif %}

// y[o, k, i] = x[o, index[k], i]: rows of an axis by number (index_select), or of a table (embedding: one o).
//
// x: [outer, size, inner]; index: [count], i32; y: [outer, count, inner]; W = 4 counts vec4s along inner. A number outside 0..size gives `missing`
// (NaN; the least integer) and never a read. The gradient has no atomics: a thread walks the index list, in order, for EACH neighbouring elements of dx,
// and sums the rows of dy that were taken from them; a long list in parts first..last (first a multiple of 4), each adding to what the ones before left.
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
    let blocks = p.inner / {{ EACH }}u;
    let row = i / blocks;
    let o = row / p.size;
    let d = i32(row - o * p.size);
    let column = (i - row * blocks) * {{ EACH }}u;
    let start = o * p.count * p.inner + column;
    let to = row * p.inner + column;
    {% for c in range(EACH) %}
    var sum{{ c }} = {{ value }}(0.0);
    {% endfor %}
    if (p.first > 0u) {
        {% for c in range(EACH) %}
        sum{{ c }} = load{{ wide }}_y(to + {{ c }}u);
        {% endfor %}
    }
    for (var k = p.first; k < p.last; k += 4u) {
        let taken = load4_index(k >> 2u);
        // A loop and not a branch for each of the four, since software drivers run branches for lanes that do not take them, too.
        var found = dot(vec4<u32>(taken == vec4<i32>(d)), vec4<u32>(1u, 2u, 4u, 8u)) & ((1u << min(p.count - k, 4u)) - 1u);
        while (found != 0u) {
            let from_ = start + (k + firstTrailingBit(found)) * p.inner;
            {% for c in range(EACH) %}
            sum{{ c }} += load{{ wide }}_x(from_ + {{ c }}u);
            {% endfor %}
            found &= found - 1u;
        }
    }
    {% for c in range(EACH) %}
    store{{ wide }}_y(to + {{ c }}u, sum{{ c }});
    {% endfor %}
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

// y[c] = x[c with its coordinate along one axis replaced by index[c]].
//
// index and y have one shape; x may be larger along every axis. Forward: element i of y starts in x at place(i) (stride 0 along the axis) and adds
// index * step. A number outside 0..size gives `missing` (NaN; the least integer) and never a read. Backward, without atomics: element i of dx
// starts in dy and index at place(i), outside of which nothing was gathered; it walks the numbers first..count there, `step` apart, and adds
// the elements of dy that were taken from it to what earlier parts of the walk left; its own coordinate is (i / inner) % size. A thread owns an element of what is written.
{% include "grid.wgsl" %}
{% set BOUNDED = PASS == "backward" %}
{% set scalar = "i32" if T == "i32" else "f32" %}
{{ input(0, "x") }}
{{ input(1, "index", type="i32") }}
{{ output(2, "y") }}
{% set bounds = ", l0: u32, l1: u32, l2: u32, l3: u32, l4: u32, l5: u32, e0: u32, e1: u32, e2: u32, e3: u32, e4: u32, e5: u32, first: u32" if BOUNDED else "" %}
{{ params("n: u32, size: u32, step: u32, count: u32, inner: u32, missing: " ~ scalar ~ ", s0: u32, s1: u32, s2: u32, s3: u32, s4: u32, s5: u32, t0: u32, t1: u32, t2: u32, t3: u32, t4: u32, t5: u32" ~ bounds) }}
{% include "strided.wgsl" %}

@compute @workgroup_size(64)
fn {{ PASS }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let at = place(i);
    {% if BOUNDED %}
    // Here x is dy and y is dx.
    let own = i32((i / p.inner) % p.size);
    var sum = 0.0;
    if (p.first > 0u) {
        sum = load_y(i);
    }
    if (at.inside) {
        for (var k = p.first; k < p.count; k += 1u) {
            let from_ = at.offset + k * p.step;
            if (load_index(from_) == own) {
                sum += load_x(from_);
            }
        }
    }
    store_y(i, sum);
    {% else %}
    let d = load_index(i);
    var v = p.missing;
    if (d >= 0 && d < i32(p.size)) {
        v = load_x(at.offset + u32(d) * p.step);
    }
    store_y(i, v);
    {% endif %}
}

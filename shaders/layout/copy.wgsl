// y[c0, .., c5] = x[base + sum c_k t_k], or `value` where a coordinate lies outside its bounds: permute, expand, slice, flip and
// constant pad are this one kernel, and so are their gradients (but expand's).
//
// x: any layout of strides t; y: row-major. Three widths: LOAD = STORE = 4 where the innermost axis is contiguous in both (offsets, strides
// and sizes then count vec4s); LOAD = 1, STORE = 4 gathers four elements that are p.step apart in x; LOAD = STORE = 1 otherwise.
{% include "grid.wgsl" %}
{{ input(0, "x", width=LOAD) }}
{{ output(1, "y", width=STORE) }}
{% set scalar = "i32" if T == "i32" else "f32" %}
{% set bounds = ", l0: u32, l1: u32, l2: u32, l3: u32, l4: u32, l5: u32, e0: u32, e1: u32, e2: u32, e3: u32, e4: u32, e5: u32" if BOUNDED else "" %}
{{ params("n: u32, base: u32, step: u32, value: " ~ scalar ~ ", s0: u32, s1: u32, s2: u32, s3: u32, s4: u32, s5: u32, t0: u32, t1: u32, t2: u32, t3: u32, t4: u32, t5: u32" ~ bounds) }}
{% include "strided.wgsl" %}

@compute @workgroup_size(64)
fn copy(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let at = place(i);
    let from_ = p.base + at.offset;
    {% if STORE == 4 %}
    var v = vec4<{{ scalar }}>(p.value);
    {% else %}
    var v = p.value;
    {% endif %}
    if (at.inside) {
        {% if LOAD == 4 %}
        v = load4_x(from_);
        {% elif STORE == 4 %}
        v = vec4<{{ scalar }}>(load_x(from_), load_x(from_ + p.step), load_x(from_ + 2u * p.step), load_x(from_ + 3u * p.step));
        {% else %}
        v = load_x(from_);
        {% endif %}
    }
    store{{ "4" if STORE == 4 else "" }}_y(i, v);
}

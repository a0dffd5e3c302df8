// y[b, i] = alpha * sum over s of x[b, s, i] (+ bias[i mod columns]): adds up the slices of a split product, always in the same order.
// x is [batches, slices, matrix], y [batches, matrix]. A thread owns V adjacent elements (4 where rows are a multiple of 4).
{% include "grid.wgsl" %}
{{ input(0, "x", type="f32", width=V) }}
{{ output(1, "y", width=V) }}
{% if BIAS %}
{{ input(2, "bias", type="f32") }}
{% endif %}
{{ params("count: u32, slices: u32, matrix: u32, columns: u32, alpha: f32") }}
{% set load = "load4_x" if V == 4 else "load_x" %}

@compute @workgroup_size(64)
fn sum(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Counts `matrix` in units of V elements.
    let index = group_index(wid, nwg) * 64u + lane;
    if (index >= p.count) {
        return;
    }
    let batch = index / p.matrix;
    let i = index - batch * p.matrix;
    var total = {{ "vec4<f32>()" if V == 4 else "0.0" }};
    for (var slice = batch * p.slices; slice < (batch + 1u) * p.slices; slice++) {
        total += {{ load }}(slice * p.matrix + i);
    }
    total *= p.alpha;
{% if BIAS and V == 4 %}
    let column = i * 4u % p.columns;
    total += vec4<f32>(load_bias(column), load_bias(column + 1u), load_bias(column + 2u), load_bias(column + 3u));
{% elif BIAS %}
    total += load_bias(i % p.columns);
{% endif %}
    {{ "store4_y" if V == 4 else "store_y" }}(index, total);
}

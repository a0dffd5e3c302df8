// One part of a concatenation: y[row, start + j] = x[row, j], where a row is everything from the concatenated axis inwards.
// x: [rows, length], y: [rows, total], both row-major; W = 4 counts vec4s, where every part's length allows it. A thread owns an element of x.
{% include "grid.wgsl" %}
{{ input(0, "x", width=W) }}
{{ output(1, "y", width=W) }}
{{ params("n: u32, length: u32, total: u32, start: u32") }}
{% set wide = "4" if W == 4 else "" %}

@compute @workgroup_size(64)
fn part(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.length;
    store{{ wide }}_y(row * p.total + p.start + (i - row * p.length), load{{ wide }}_x(i));
}

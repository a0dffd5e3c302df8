// w [.., wide] = x, or its transpose, with zeros around it: w[i, j] = x[i * row + j * column] where i < n and j < m.
// A thread owns an element of w; size counts them.
{% include "grid.wgsl" %}
{{ input(0, "x", type="f32") }}
{{ output(1, "w", type="f32") }}
{{ params("n: u32, m: u32, row: u32, column: u32, wide: u32, size: u32") }}

@compute @workgroup_size(64)
fn pad(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group_index(wid, nwg) * 64u + lane;
    if (index >= p.size) {
        return;
    }
    let i = index / p.wide;
    let j = index % p.wide;
    var value = 0.0;
    if (i < p.n && j < p.m) {
        value = load_x(i * p.row + j * p.column);
    }
    store_w(index, value);
}

// Softmax of rows, first step of the ladder: a thread a row, three walks.
//
//     y[i] = exp((x[i] - m) rate) / l,   m = max of x,   l = sum of exp((x - m) rate)
//
// x, y [rows, n]; rate is 1 / temperature. The largest value is taken off first, or exp would
// overflow; the result is the same.
//
// The row is read three times and every exp is taken twice. Neighbouring threads read values that
// lie n apart, a line of memory each. softmax_tiled.wgsl mends both.
{% include "grid.wgsl" %}
{{ input(0, "x") }}
{{ output(1, "y") }}
{{ params("rows: u32, n: u32, rate: f32") }}

@compute @workgroup_size(64)
fn softmax(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg) * 64u + lane;
    if (row >= p.rows) {
        return;
    }
    let first = row * p.n;
    var m = load_x(first);
    for (var i = 1u; i < p.n; i += 1u) {
        m = max(m, load_x(first + i));
    }
    var l = 0.0;
    for (var i = 0u; i < p.n; i += 1u) {
        l += exp((load_x(first + i) - m) * p.rate);
    }
    for (var i = 0u; i < p.n; i += 1u) {
        store_y(first + i, exp((load_x(first + i) - m) * p.rate) / l);
    }
}

// y = x r with r = 1 / sqrt(mean of x^2 + eps), row by row (Zhang and Sennrich 2019,
// arXiv:1910.07467). The gradient of a row: dx = r (dy - x r^2 mean of x dy).
//
// x, y, dy, dx [rows, n]; a thread owns a row.
{% include "grid.wgsl" %}
{{ input(0, "x") }}
{% if GRADIENT %}
{{ input(1, "dy") }}
{{ output(2, "dx") }}
{% else %}
{{ output(1, "y") }}
{% endif %}
{{ params("rows: u32, n: u32, eps: f32") }}

@compute @workgroup_size(64)
fn rms_norm(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg) * 64u + lane;
    if (row >= p.rows) {
        return;
    }
    let first = row * p.n;
    var squares = 0.0;
    for (var i = first; i < first + p.n; i += 1u) {
        squares += load_x(i) * load_x(i);
    }
    let r = inverseSqrt(squares / f32(p.n) + p.eps);
{% if GRADIENT %}
    var products = 0.0;
    for (var i = first; i < first + p.n; i += 1u) {
        products += load_x(i) * load_dy(i);
    }
    let mean = products / f32(p.n);
    for (var i = first; i < first + p.n; i += 1u) {
        store_dx(i, r * (load_dy(i) - load_x(i) * r * r * mean));
    }
{% else %}
    for (var i = first; i < first + p.n; i += 1u) {
        store_y(i, load_x(i) * r);
    }
{% endif %}
}

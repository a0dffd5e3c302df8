// y = the largest element of each window, the first of equal ones; winner = its place in the window, row * KW + column. NaN wins over all.
//
// x: [N, H, W, C]; y, winner: [N, OH, OW, C], winner i32; VEC = 4 counts vec4s along C. A thread owns an element of what is written. The
// gradient has no atomics: each element of dx looks at the windows that contain it and sums dy of those that it won.
{% include "grid.wgsl" %}
{% set wide = "4" if VEC == 4 else "" %}
{% set float = "vec4<f32>" if VEC == 4 else "f32" %}
{% set int = "vec4<i32>" if VEC == 4 else "i32" %}
{% set bits = "vec4<u32>" if VEC == 4 else "u32" %}
{% if PASS == "forward" %}
{{ input(0, "x", width=VEC) }}
{{ output(1, "y", width=VEC) }}
{{ output(2, "winner", type="i32", width=VEC) }}
{% else %}
{{ input(0, "dy", width=VEC) }}
{{ input(1, "winner", type="i32", width=VEC) }}
{{ output(2, "dx", width=VEC) }}
{% endif %}
{{ params("n: u32, h: u32, w: u32, oh: u32, ow: u32, c: u32, kh: u32, kw: u32, sh: u32, sw: u32, ph: u32, pw: u32") }}
{% include "window.wgsl" %}

{% if PASS == "forward" %}
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let at = pixel(i, p.oh, p.ow);
    let rows = inside(at.row, p.sh, p.ph, p.kh, p.h);
    let columns = inside(at.column, p.sw, p.pw, p.kw, p.w);
    var best = load{{ wide }}_x(((at.image * p.h + rows.x) * p.w + columns.x) * p.c + at.channel);
    // Place in the window of x's pixel (0, 0), so that r * KW + column is that of (r, column).
    let origin = (i32(p.ph) - i32(at.row * p.sh)) * i32(p.kw) + i32(p.pw) - i32(at.column * p.sw);
    var winner_ = {{ int }}(origin + i32(rows.x * p.kw + columns.x));
    for (var r = rows.x; r < rows.y; r += 1u) {
        let row = ((at.image * p.h + r) * p.w) * p.c + at.channel;
        for (var q = columns.x; q < columns.y; q += 1u) {
            let v = load{{ wide }}_x(row + q * p.c);
            let nan = (bitcast<{{ bits }}>(v) & {{ bits }}(0x7fffffffu)) > {{ bits }}(0x7f800000u);
            let wins = (v > best) | nan;
            best = select(best, v, wins);
            winner_ = select(winner_, {{ int }}(origin + i32(r * p.kw + q)), wins);
        }
    }
    store{{ wide }}_y(i, best);
    store{{ wide }}_winner(i, winner_);
}
{% else %}
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let at = pixel(i, p.h, p.w);
    let rows = containing(at.row, p.sh, p.ph, p.kh, p.oh);
    let columns = containing(at.column, p.sw, p.pw, p.kw, p.ow);
    var sum = {{ float }}(0.0);
    for (var r = rows.x; r < rows.y; r += 1u) {
        for (var q = columns.x; q < columns.y; q += 1u) {
            let from_ = ((at.image * p.oh + r) * p.ow + q) * p.c + at.channel;
            let own = (at.row + p.ph - r * p.sh) * p.kw + at.column + p.pw - q * p.sw;
            sum += select({{ float }}(0.0), load{{ wide }}_dy(from_), load{{ wide }}_winner(from_) == {{ int }}(i32(own)));
        }
    }
    store{{ wide }}_dx(i, sum);
}
{% endif %}

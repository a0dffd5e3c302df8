// y = the largest element of each window, the first of equal ones; winner = its place in the window, row * KW + column. NaN wins over all.
//
// x: [N, H, W, C]; y, winner: [N, OH, OW, C], winner i32; VEC = 4 counts vec4s along C. A thread owns an element of what is written. The
// gradient has no atomics: each element of dx looks at the windows that contain it and sums dy of those that it won. A dilated window that
// lies beside all of the image has no winner, -1, and is `least`, -inf (which WGSL has no constant for). Without DILATED its steps are 1,
// so that the compiler drops the divisions by them.
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
{{ params("n: u32, h: u32, w: u32, oh: u32, ow: u32, c: u32, kh: u32, kw: u32, sh: u32, sw: u32, ph: u32, pw: u32,
    dh: u32, dw: u32, least: f32, first: u32, last: u32") }}
{% include "window.wgsl" %}
{% set dh, dw = ("p.dh", "p.dw") if DILATED else ("1u", "1u") %}

{% if PASS == "forward" %}
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let at = pixel(i, p.oh, p.ow);
    let rows = taps_inside(at.row, p.sh, p.ph, p.kh, {{ dh }}, p.h);
    let columns = taps_inside(at.column, p.sw, p.pw, p.kw, {{ dw }}, p.w);
    var best = {{ float }}(p.least);
    var winner_ = {{ int }}(-1);
    if (rows.x < rows.y && columns.x < columns.y) {
        let first = (at.image * p.h + at.row * p.sh + rows.x * {{ dh }} - p.ph) * p.w + at.column * p.sw + columns.x * {{ dw }} - p.pw;
        best = load{{ wide }}_x(first * p.c + at.channel);
        winner_ = {{ int }}(i32(rows.x * p.kw + columns.x));
    }
    // Later launches go on with what the ones before found.
    if (p.first > 0u) {
        best = load{{ wide }}_y(i);
        winner_ = load{{ wide }}_winner(i);
    }
    for (var r = rows.x + p.first; r < min(rows.y, rows.x + p.last); r += 1u) {
        let row = ((at.image * p.h + at.row * p.sh + r * {{ dh }} - p.ph) * p.w + at.column * p.sw - p.pw) * p.c + at.channel;
        for (var q = columns.x; q < columns.y; q += 1u) {
            let v = load{{ wide }}_x(row + q * {{ dw }} * p.c);
            let nan = (bitcast<{{ bits }}>(v) & {{ bits }}(0x7fffffffu)) > {{ bits }}(0x7f800000u);
            let wins = (v > best) | nan;
            best = select(best, v, wins);
            winner_ = select(winner_, {{ int }}(i32(r * p.kw + q)), wins);
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
    let rows = containing(at.row, p.sh, p.ph, (p.kh - 1u) * {{ dh }} + 1u, p.oh);
    let columns = containing(at.column, p.sw, p.pw, (p.kw - 1u) * {{ dw }} + 1u, p.ow);
    var sum = {{ float }}(0.0);
    if (p.first > 0u) {
        sum = load{{ wide }}_dx(i);
    }
    for (var r = rows.x + p.first; r < min(rows.y, rows.x + p.last); r += 1u) {
        for (var q = columns.x; q < columns.y; q += 1u) {
            let from_ = ((at.image * p.oh + r) * p.ow + q) * p.c + at.channel;
            let down = at.row + p.ph - r * p.sh;
            let right = at.column + p.pw - q * p.sw;
            // Between the taps of a dilated window it is no candidate.
            let own = select(-2, i32(down / {{ dh }} * p.kw + right / {{ dw }}), down % {{ dh }} == 0u && right % {{ dw }} == 0u);
            sum += select({{ float }}(0.0), load{{ wide }}_dy(from_), load{{ wide }}_winner(from_) == {{ int }}(own));
        }
    }
    store{{ wide }}_dx(i, sum);
}
{% endif %}

// y = the mean of each window: its sum by its number of elements, with the padding as far as it reaches, or without it (`all` = 0).
//
// x: [N, H, W, C], y: [N, OH, OW, C]; VEC = 4 counts vec4s along C. A thread owns an element of what is written. The gradient has no
// atomics: each element of dx sums dy / count over the windows that contain it (in that pass x is dy and y is dx).
{% include "grid.wgsl" %}
{% set wide = "4" if VEC == 4 else "" %}
{% set float = "vec4<f32>" if VEC == 4 else "f32" %}
{{ input(0, "x", width=VEC) }}
{{ output(1, "y", width=VEC) }}
{{ params("n: u32, h: u32, w: u32, oh: u32, ow: u32, c: u32, kh: u32, kw: u32, sh: u32, sw: u32, ph: u32, pw: u32,
    dh: u32, dw: u32, all: u32, first: u32, last: u32") }}
{% include "window.wgsl" %}

// Of window (r, q), which covers those rows and columns of the image.
fn count(r: u32, q: u32, rows: vec2<u32>, columns: vec2<u32>) -> f32 {
    let padded = min(p.kh, p.h + 2u * p.ph - r * p.sh) * min(p.kw, p.w + 2u * p.pw - q * p.sw);
    return f32(select((rows.y - rows.x) * (columns.y - columns.x), padded, p.all != 0u));
}

// Rows `first` to `last` of a window, or of those that cover a pixel, are one launch's; later ones add to what is there.
fn add(i: u32, sum: {{ float }}) {
    if (p.first == 0u) {
        store{{ wide }}_y(i, sum);
    } else {
        store{{ wide }}_y(i, load{{ wide }}_y(i) + sum);
    }
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let at = pixel(i, p.oh, p.ow);
    let rows = inside(at.row, p.sh, p.ph, p.kh, p.h);
    let columns = inside(at.column, p.sw, p.pw, p.kw, p.w);
    var sum = {{ float }}(0.0);
    for (var r = rows.x + p.first; r < min(rows.y, rows.x + p.last); r += 1u) {
        let row = ((at.image * p.h + r) * p.w) * p.c + at.channel;
        for (var q = columns.x; q < columns.y; q += 1u) {
            sum += load{{ wide }}_x(row + q * p.c);
        }
    }
    add(i, sum / count(at.row, at.column, rows, columns));
}

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
    for (var r = rows.x + p.first; r < min(rows.y, rows.x + p.last); r += 1u) {
        let covered = inside(r, p.sh, p.ph, p.kh, p.h);
        for (var q = columns.x; q < columns.y; q += 1u) {
            let dy = load{{ wide }}_x(((at.image * p.oh + r) * p.ow + q) * p.c + at.channel);
            sum += dy / count(r, q, covered, inside(q, p.sw, p.pw, p.kw, p.w));
        }
    }
    add(i, sum);
}

// y[n, c] = scale * sum of x[n, h, w, c] over h and w.
//
// x: [N, pixels, C] of type SOURCE; y: [N, slabs, C] of type TARGET, where slab s sums `chunk` pixels from s * chunk on; a second launch sums the slabs.
// VEC = 4 counts vec4s along C. A thread owns a column of a slab, so neighbours read neighbouring channels. The gradient spreads:
// dx[n, h, w, c] = scale * dy[n, c] (there x is dy and y is dx).
{% include "grid.wgsl" %}
{% set wide = "4" if VEC == 4 else "" %}
{% set float = "vec4<f32>" if VEC == 4 else "f32" %}
{{ input(0, "x", type=SOURCE, width=VEC) }}
{{ output(1, "y", type=TARGET, width=VEC) }}
{{ params("n: u32, pixels: u32, c: u32, slabs: u32, chunk: u32, scale: f32") }}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.c;
    let image = row / p.slabs;
    let start = (row - image * p.slabs) * p.chunk;
    let last = min(start + p.chunk, p.pixels);
    let column = image * p.pixels * p.c + (i - row * p.c);
    var sum = {{ float }}(0.0);
    for (var k = start; k < last; k += 1u) {
        sum += load{{ wide }}_x(column + k * p.c);
    }
    store{{ wide }}_y(i, sum * p.scale);
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.c;
    store{{ wide }}_y(i, p.scale * load{{ wide }}_x(row / p.pixels * p.c + (i - row * p.c)));
}

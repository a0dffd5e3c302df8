// Cutout (DeVries and Taylor 2017): a square around a random pixel becomes 0; it may reach beyond the edges.
//
// draw: draws [N, 4] = first column, first row, one past the last column, one past the last row; all 0 where nothing is cut.
//   Block 0: whether; block 1: the centre.
{% include "augment.wgsl" %}
{% if STAGE == "draw" %}
{{ params("n: u32, seed: u32, purpose: u32, counter: u32, height: u32, width: u32, size: u32, probability: f32") }}

@compute @workgroup_size(64)
fn draw(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let index = bitcast<u32>(load_indices(i));
    let b = bits(index, 1u);
    let first = vec2<f32>(f32(below(b.x, p.width)), f32(below(b.y, p.height))) - f32(p.size / 2u);
    let cut = happens(bits(index, 0u).x, p.probability);
    store4_draws(i, select(vec4<f32>(0.0), vec4<f32>(first, first + f32(p.size)), cut));
}
{% else %}
{{ input(2, "draws", type="f32", width=4) }}
{{ params("pixels: u32, height: u32, width: u32") }}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.pixels) {
        return;
    }
    let row = i / p.width;
    let n = row / p.height;
    let box = load4_draws(n);
    let at = vec2<f32>(f32(i - row * p.width), f32(row - n * p.height));
    let inside = all(at >= box.xy) && all(at < box.zw);
    store_pixel(i, select(load_pixel(i), vec4<f32>(0.0), inside));
}
{% endif %}

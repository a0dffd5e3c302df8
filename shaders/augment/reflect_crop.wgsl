// The image moved by whole pixels and perhaps mirrored; what moves in is its own reflection (without the edge twice).
// The same as padding by reflection, then cutting at a random place, then flipping.
//
// draw: draws [N, 4] = horizontal and vertical shift in -pad..=pad, mirrored (0 or 1), 0. Block 0: mirrored; block 1: shifts.
{% include "augment.wgsl" %}
{% if STAGE == "draw" %}
{{ params("n: u32, seed: u32, purpose: u32, counter: u32, pad: u32, flip: f32") }}

@compute @workgroup_size(64)
fn draw(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let index = bitcast<u32>(load_indices(i));
    let b = bits(index, 1u);
    let shift = vec2<f32>(f32(below(b.x, 2u * p.pad + 1u)), f32(below(b.y, 2u * p.pad + 1u))) - f32(p.pad);
    store4_draws(i, vec4<f32>(shift, select(0.0, 1.0, happens(bits(index, 0u).x, p.flip)), 0.0));
}
{% else %}
{{ input(2, "draws", type="f32", width=4) }}
{{ params("pixels: u32, height: i32, width: i32") }}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.pixels) {
        return;
    }
    let row = i / u32(p.width);
    let n = row / u32(p.height);
    let record = load4_draws(n);
    var x = i32(i - row * u32(p.width));
    if (record.z != 0.0) {
        x = p.width - 1 - x;
    }
    let y = i32(row - n * u32(p.height));
    let from_x = u32(reflect_index(x + i32(record.x), p.width));
    let from_y = u32(reflect_index(y + i32(record.y), p.height));
    store_pixel(i, load_pixel((n * u32(p.height) + from_y) * u32(p.width) + from_x));
}
{% endif %}

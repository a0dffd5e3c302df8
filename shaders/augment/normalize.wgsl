// y = (x - mean) / std for each channel, as y = x * scale + shift. A fourth channel is padding: scale 1, shift 0.
{% include "augment.wgsl" %}
{{ params("pixels: u32, scale_0: f32, scale_1: f32, scale_2: f32, shift_0: f32, shift_1: f32, shift_2: f32") }}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i < p.pixels) {
        let scale = vec4<f32>(p.scale_0, p.scale_1, p.scale_2, 1.0);
        store_pixel(i, load_pixel(i) * scale + vec4<f32>(p.shift_0, p.shift_1, p.shift_2, 0.0));
    }
}

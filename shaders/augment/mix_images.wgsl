// mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of images with others, source and other, [N, H, W, C]: within the box, of columns
// left..right and rows top..bottom, the other image, elsewhere lam x + (1 - lam) other. mixup has no box, CutMix a lam of 1.
{% include "augment.wgsl" %}
{{ input(2, "other", type="f32", width=4 if CHANNELS == 4 else 1) }}
{{ params("pixels: u32, height: u32, width: u32, lam: f32, left: u32, top: u32, right: u32, bottom: u32") }}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.pixels) {
        return;
    }
    let row = i / p.width;
    let x = i - row * p.width;
    let y = row % p.height;
    let inside = x >= p.left && x < p.right && y >= p.top && y < p.bottom;
{% if CHANNELS == 4 %}
    let other = load4_other(i);
{% elif CHANNELS == 3 %}
    let other = vec4<f32>(load_other(i * 3u), load_other(i * 3u + 1u), load_other(i * 3u + 2u), 0.0);
{% else %}
    let other = vec4<f32>(load_other(i), 0.0, 0.0, 0.0);
{% endif %}
    store_pixel(i, select(p.lam * load_pixel(i) + (1.0 - p.lam) * other, other, inside));
}

// Bytes to floats: y = byte / 255, images of bytes packed four a word, lowest byte first.
//
// words [ceil(N H W C / 4)] i32 -> target_ [N, H, W, C'] f32. Where C' = C (PAD false), a thread turns a word into a vec4.
// Where 3 channels are padded to 4 (PAD true), a thread turns three words into four pixels, the fourth channel 0.
{% include "grid.wgsl" %}
{{ input(0, "words", type="i32") }}
{{ output(1, "target_", type="f32", width=4) }}
{{ params("words: u32, pixels: u32") }}

{% if PAD %}
fn word(i: u32) -> vec4<f32> {
    if (i < p.words) {
        return unpack4x8unorm(bitcast<u32>(load_words(i)));
    }
    return vec4<f32>(0.0);
}
{% endif %}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
{% if PAD %}
    let first = i * 4u;
    if (first >= p.pixels) {
        return;
    }
    let a = word(i * 3u);
    let b = word(i * 3u + 1u);
    let c = word(i * 3u + 2u);
    store4_target_(first, vec4<f32>(a.x, a.y, a.z, 0.0));
    if (first + 1u < p.pixels) {
        store4_target_(first + 1u, vec4<f32>(a.w, b.x, b.y, 0.0));
    }
    if (first + 2u < p.pixels) {
        store4_target_(first + 2u, vec4<f32>(b.z, b.w, c.x, 0.0));
    }
    if (first + 3u < p.pixels) {
        store4_target_(first + 3u, vec4<f32>(c.y, c.z, c.w, 0.0));
    }
{% else %}
    if (i < p.words) {
        store4_target_(i, unpack4x8unorm(bitcast<u32>(load_words(i))));
    }
{% endif %}
}

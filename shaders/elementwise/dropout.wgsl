// y = x * scale where a random draw keeps the element, else 0 (NaN for 0 times NaN or infinity, as in PyTorch). The same kernel gives the gradient: dx = dy * scale where kept.
//
// The draws are Threefry's (include/random.wgsl), so the mask is recomputed and never stored. Key (seed, layer); ELEMENTS: element e takes word
// e % 2 of counter (step, e / 2); otherwise the row e / row takes word 0 of counter (step, row). A draw is 24 bits, below `drop` means dropped.
// ALIGNED: rows are multiples of 4, so a vec4 lies in one. A thread owns one vec4; n4 counts vec4s, the last one may reach into the padding.
// Where x is a piece of a larger tensor, counters begin at `first`.
{% include "grid.wgsl" %}
{% include "random.wgsl" %}
{{ input(0, "x", width=4) }}
{{ output(1, "y", width=4) }}
{{ params("n4: u32, row: u32, seed: u32, layer: u32, step: u32, drop: u32, scale: f32, first: u32") }}

// Whether all bits of the exponent are set: NaN or infinite.
fn endless(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

@compute @workgroup_size(64)
fn dropout(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n4) {
        return;
    }
    let key = vec2<u32>(p.seed, p.layer);
    {% if ELEMENTS %}
    let bits = vec4<u32>(threefry2x32(key, vec2<u32>(p.step, p.first + 2u * i)), threefry2x32(key, vec2<u32>(p.step, p.first + 2u * i + 1u)));
    {% elif ALIGNED %}
    let bits = vec4<u32>(threefry2x32(key, vec2<u32>(p.step, p.first + 4u * i / p.row)).x);
    {% else %}
    let rows = (vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u)) / vec4<u32>(p.row) + vec4<u32>(p.first);
    let bits = vec4<u32>({% for c in ["x", "y", "z", "w"] %}threefry2x32(key, vec2<u32>(p.step, rows.{{ c }})).x{{ "" if loop.last else ", " }}{% endfor %});
    {% endif %}
    let x = load4_x(i);
    let dropped = select(vec4<f32>(0.0), vec4<f32>(bitcast<f32>(0x7fc00000u | (p.groups & 0u))), endless(x));
    store4_y(i, select(dropped, x * p.scale, (bits >> vec4<u32>(8u)) >= vec4<u32>(p.drop)));
}

// Gaussian blur with a random width; torchvision's GaussianBlur. Weights exp(-d^2 / (2 sigma^2)), normalised. EDGE: what lies outside,
// "reflect" (torchvision), "replicate" (Pillow) or "zeros" (TensorFlow's padding SAME).
//
// draw: draws [N, 4] = sigma (0: this image stays as it is), q = exp(-1 / (2 sigma^2)), 1 / sum of the weights, 0.
//   Block 0: whether; block 1: sigma, uniform.
// apply: along one axis; a second dispatch does the other. A weight follows from the last: q^(d+1)^2 = q^d^2 q^(2d+1), so a
//   tap costs one load and no exponential. q = 0 leaves the middle tap alone, and the image bit for bit.
{% include "augment.wgsl" %}
{% if STAGE == "draw" %}
{{ params("n: u32, seed: u32, purpose: u32, counter: u32, radius: u32, low: f32, high: f32, probability: f32") }}

@compute @workgroup_size(64)
fn draw(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let index = bitcast<u32>(load_indices(i));
    let sigma = between(bits(index, 1u).x, p.low, p.high);
    let q = exp(-0.5 / (sigma * sigma));
    var total = 1.0;
    var weight = 1.0;
    var step = q;
    for (var d = 0u; d < p.radius; d++) {
        weight *= step;
        step *= q * q;
        total += 2.0 * weight;
    }
    let blurred = happens(bits(index, 0u).x, p.probability);
    store4_draws(i, select(vec4<f32>(0.0, 0.0, 1.0, 0.0), vec4<f32>(sigma, q, 1.0 / total, 0.0), blurred));
}
{% else %}
{{ input(2, "draws", type="f32", width=4) }}
{{ params("pixels: u32, height: i32, width: i32, radius: i32, vertical: u32") }}

// The pixel at place i of a line of size pixels, stride apart.
fn tap(start: i32, stride: i32, i: i32, size: i32) -> vec4<f32> {
{% if EDGE == "reflect" %}
    return load_pixel(u32(start + reflect_index(i, size) * stride));
{% else %}
    let inside = clamp(i, 0, size - 1);
    let pixel = load_pixel(u32(start + inside * stride));
    return {{ "select(vec4<f32>(0.0), pixel, inside == i)" if EDGE == "zeros" else "pixel" }};
{% endif %}
}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.pixels) {
        return;
    }
    let row = i / u32(p.width);
    let n = row / u32(p.height);
    let record = load4_draws(n);
    // Taps lie at start + stride * position.
    var at = i32(i - row * u32(p.width));
    var size = p.width;
    var stride = 1;
    if (p.vertical != 0u) {
        at = i32(row - n * u32(p.height));
        size = p.height;
        stride = p.width;
    }
    let start = i32(i) - at * stride;
    var sum = load_pixel(i);
    var weight = 1.0;
    var step = record.y;
    let radius = select(0, p.radius, record.x > 0.0);
    for (var d = 1; d <= radius; d++) {
        weight *= step;
        step *= record.y * record.y;
        sum += weight * (tap(start, stride, at - d, size) + tap(start, stride, at + d, size));
    }
    store_pixel(i, sum * record.z);
}
{% endif %}

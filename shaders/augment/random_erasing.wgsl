// Random erasing (Zhong et al. 2017): a random box of an image becomes one number, or normal noise (NOISE); torchvision's RandomErasing, and
// timm's with mode "pixel".
//
// draw: draws [N, 8] = first column, first row, one past the last column, one past the last row (all 0 where nothing is erased); the noise's
//   key, 16 bits a number. Block 0: whether; blocks 1 to 10 are tries (area, then aspect ratio, uniform in its logarithm); the first box
//   that is smaller than the image along both axes is placed by block 11. Block 12: the key.
// apply: pixel i of an image is given the first numbers of the normal pairs (Box and Muller 1958) of Threefry's bits for that key and the
//   counters (i, 0) and (i, 1), so noise depends on nothing but the record.
{% include "augment.wgsl" %}
{% if STAGE == "draw" %}
{{ params("n: u32, seed: u32, purpose: u32, counter: u32, height: u32, width: u32, low: f32, high: f32, log_low: f32, log_high: f32, probability: f32") }}

@compute @workgroup_size(64)
fn draw(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let index = bitcast<u32>(load_indices(i));
    let whole = vec2<f32>(f32(p.width), f32(p.height));
    var size = vec2<f32>(0.0);
    var fits = false;
    for (var block = 1u; block <= 10u && !fits; block++) {
        let b = bits(index, block);
        let area = whole.x * whole.y * between(b.x, p.low, p.high);
        let ratio = exp(between(b.y, p.log_low, p.log_high));
        // The ratio is height over width here.
        size = round(sqrt(vec2<f32>(area / ratio, area * ratio)));
        fits = all(size < whole);
    }
    size = select(vec2<f32>(0.0), size, fits);
    let place = bits(index, 11u);
    let corner = vec2<f32>(f32(below(place.x, p.width - u32(size.x) + 1u)), f32(below(place.y, p.height - u32(size.y) + 1u)));
    let erased = fits && happens(bits(index, 0u).x, p.probability);
    store4_draws(2u * i, select(vec4<f32>(0.0), vec4<f32>(corner, corner + size), erased));
    let key = bits(index, 12u);
    store4_draws(2u * i + 1u, vec4<f32>(f32(key.x & 0xffffu), f32(key.x >> 16u), f32(key.y & 0xffffu), f32(key.y >> 16u)));
}
{% else %}
{{ input(2, "draws", type="f32", width=4) }}
{{ params("pixels: u32, height: u32, width: u32, value: f32") }}
{% if NOISE %}
{% include "random.wgsl" %}
{% include "logarithm.wgsl" %}
{% include "trigonometry.wgsl" %}

fn normal_pair(bits: vec2<u32>) -> vec2<f32> {
    let radius = sqrt(-2.0 * logarithm((f32(bits.x >> 9u) + 0.5) * 1.1920928955078125e-7));
    // The angle is the bits as a part of a turn, from half a turn before 0 on: quarters are 2^22.
    let part = bits.y >> 8u;
    let quarter = (part + 0x200000u) >> 22u;
    let angle = quarters(quarter + 2u, f32(bitcast<i32>(part - (quarter << 22u))) * 2.384185791015625e-7, 0.0);
    return radius * vec2<f32>(sine_of(angle, 1u), sine_of(angle, 0u));
}
{% endif %}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.pixels) {
        return;
    }
    let row = i / p.width;
    let n = row / p.height;
    let box = load4_draws(2u * n);
    let at = vec2<f32>(f32(i - row * p.width), f32(row - n * p.height));
    var pixel = load_pixel(i);
    if (all(at >= box.xy) && all(at < box.zw)) {
{% if NOISE %}
        let words = vec4<u32>(load4_draws(2u * n + 1u));
        let key = vec2<u32>(words.x | (words.y << 16u), words.z | (words.w << 16u));
        let place = i - n * p.height * p.width;
        let first = normal_pair(threefry2x32(key, vec2<u32>(place, 0u)));
        pixel = vec4<f32>(first, normal_pair(threefry2x32(key, vec2<u32>(place, 1u))).x, pixel.w);
{% else %}
        pixel = vec4<f32>(vec3<f32>(p.value), pixel.w);
{% endif %}
    }
    store_pixel(i, pixel);
}
{% endif %}

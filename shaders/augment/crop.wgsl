// A box of each image, resized to the size of the output; torchvision's RandomResizedCrop, and a fixed box in the centre.
//
// draw: draws [N, 4] = left, top, width, height in whole pixels; a negative width means that the result is mirrored.
//   Block 0 decides the mirroring; blocks 1 to 10 are tries (area, then aspect ratio, uniform in its logarithm); the first box
//   that fits is placed by block 11. Where none fits: the largest box of an allowed ratio, in the centre.
// apply: bilinear or bicubic (CUBIC) with antialiasing, as Pillow and torchvision: the triangle filter or Keys' cubic of a = -1/2, as
//   wide as the reduction where the box is larger than the output, over pixels of the box alone, weights normalised; the cubic's
//   overshoot is cut off at 0 and 1. Source [N, H, W, C], target_ [N, h, w, C].
//
// PICTURES: images of bytes, each of a size of its own. sizes [N, 2] = height, width; source [N, p.slot] words, of which picture n
//   takes the first ones of row n: C = BYTES bytes a pixel, row by row without padding, lowest byte first. A size that is not one of
//   1 to 32767 pixels a side, or that the slot does not hold, gives NaN.
{% include "augment.wgsl" %}
{% if PICTURES is defined %}
{{ input(2 if STAGE == "draw" else 3, "sizes", type="i32") }}

// Height and width of picture n; 0 where they cannot be.
fn sides(n: u32) -> vec2<u32> {
    let own = vec2<u32>(bitcast<u32>(load_sizes(2u * n)), bitcast<u32>(load_sizes(2u * n + 1u)));
    let most = p.slot * 4u / {{ BYTES }}u;
    let good = all(own - 1u < vec2<u32>(32767u)) && own.x <= most / max(own.y, 1u);
    return select(vec2<u32>(0u), own, good);
}
{% endif %}
{% if STAGE == "draw" %}
{% if PICTURES is defined %}
{{ params("n: u32, seed: u32, purpose: u32, counter: u32, slot: u32, low: f32, high: f32, log_low: f32, log_high: f32, ratio_low: f32, ratio_high: f32, flip: f32") }}
{% else %}
{{ params("n: u32, seed: u32, purpose: u32, counter: u32, height: u32, width: u32, low: f32, high: f32, log_low: f32, log_high: f32, ratio_low: f32, ratio_high: f32, flip: f32") }}
{% endif %}

@compute @workgroup_size(64)
fn draw(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let index = bitcast<u32>(load_indices(i));
{% if PICTURES is defined %}
    let own = sides(i);
    if (own.x == 0u) {
        store4_draws(i, vec4<f32>(bitcast<f32>(p.n | 0x7fc00000u)));
        return;
    }
    let height = own.x;
    let width = own.y;
{% else %}
    let height = p.height;
    let width = p.width;
{% endif %}
    let whole = vec2<f32>(f32(width), f32(height));
    var size = vec2<f32>(0.0);
    var fits = false;
    for (var block = 1u; block <= 10u && !fits; block++) {
        let b = bits(index, block);
        let area = whole.x * whole.y * between(b.x, p.low, p.high);
        let ratio = exp(between(b.y, p.log_low, p.log_high));
        size = round(sqrt(vec2<f32>(area * ratio, area / ratio)));
        fits = all(size >= vec2<f32>(1.0)) && all(size <= whole);
    }
    var corner = vec2<u32>(0u);
    if (fits) {
        let b = bits(index, 11u);
        corner = vec2<u32>(below(b.x, width - u32(size.x) + 1u), below(b.y, height - u32(size.y) + 1u));
    } else {
        size = whole;
        if (whole.x < p.ratio_low * whole.y) {
            size.y = clamp(round(whole.x / p.ratio_low), 1.0, whole.y);
        } else if (whole.x > p.ratio_high * whole.y) {
            size.x = clamp(round(whole.y * p.ratio_high), 1.0, whole.x);
        }
        corner = (vec2<u32>(width, height) - vec2<u32>(size)) / 2u;
    }
    let mirrored = happens(bits(index, 0u).x, p.flip);
    store4_draws(i, vec4<f32>(vec2<f32>(corner), select(size.x, -size.x, mirrored), size.y));
}
{% else %}
{{ input(2, "draws", type="f32", width=4) }}
{% if PICTURES is defined %}
{{ params("pixels: u32, slot: u32, out_height: u32, out_width: u32") }}

// Pixel i of picture n. Three bytes lie in one word or two.
fn load_tap(n: u32, i: u32) -> vec4<f32> {
    let first = i * {{ BYTES }}u;
    let word = n * p.slot + first / 4u;
    let shift = first % 4u * 8u;
    var bits = bitcast<u32>(load_source(word)) >> shift;
{% if BYTES == 3 %}
    if (shift > 8u) {
        bits |= bitcast<u32>(load_source(word + 1u)) << (32u - shift);
    }
    return vec4<f32>(unpack4x8unorm(bits).xyz, 0.0);
{% else %}
    return vec4<f32>(unpack4x8unorm(bits).x, 0.0, 0.0, 0.0);
{% endif %}
}
{% else %}
{{ params("pixels: u32, height: u32, width: u32, out_height: u32, out_width: u32") }}

// Pixel i of image n.
fn load_tap(n: u32, i: u32) -> vec4<f32> {
    return load_pixel(n * p.height * p.width + i);
}
{% endif %}
{% if CUBIC %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("vec4<f32>") }}
const SUPPORT = 2.0;

// Keys, Cubic convolution interpolation, 1981.
fn filter_weight(distance: f32) -> f32 {
    let d = abs(distance);
    let near = (1.5 * d - 2.5) * d * d + 1.0;
    let far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0;
    return select(select(0.0, far, d < 2.0), near, d < 1.0);
}
{% else %}
const SUPPORT = 1.0;

fn filter_weight(distance: f32) -> f32 {
    return max(0.0, 1.0 - abs(distance));
}
{% endif %}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.pixels) {
        return;
    }
    let row = i / p.out_width;
    let n = row / p.out_height;
    var out = vec2<u32>(i - row * p.out_width, row - n * p.out_height);
    let box = load4_draws(n);
{% if PICTURES is defined %}
    let width = sides(n).y;
    if (width == 0u) {
        store_pixel(i, box);
        return;
    }
{% else %}
    let width = p.width;
{% endif %}
    if (box.z < 0.0) {
        out.x = p.out_width - 1u - out.x;
    }
    let size = abs(box.zw);
    let scale = size / vec2<f32>(f32(p.out_width), f32(p.out_height));
    let centre = (vec2<f32>(out) + 0.5) * scale - 0.5;
    // Taps lie less than reach from the centre: bilinear ones are one or two an axis unless the image shrinks.
    let stretch = max(scale, vec2<f32>(1.0));
    let reach = SUPPORT * stretch;
    let first = max(floor(centre - reach) + 1.0, vec2<f32>(0.0));
    let last = min(ceil(centre + reach) - 1.0, size - 1.0);
    let start = u32(box.y) * width + u32(box.x);
{% if not CUBIC %}
    if (all(last - first < vec2<f32>(2.0))) {
        let near = max(vec2<f32>(0.0), 1.0 - abs(first - centre) / reach);
        let far = select(vec2<f32>(0.0), max(vec2<f32>(0.0), 1.0 - abs(last - centre) / reach), last > first);
        let t = far / (near + far);
        let a = start + u32(first.y) * width;
        let b = start + u32(last.y) * width;
        let upper = mix(load_tap(n, a + u32(first.x)), load_tap(n, a + u32(last.x)), t.x);
        let lower = mix(load_tap(n, b + u32(first.x)), load_tap(n, b + u32(last.x)), t.x);
        store_pixel(i, mix(upper, lower, t.y));
        return;
    }
{% endif %}
    var sum = vec4<f32>(0.0);
    var total = 0.0;
    for (var y = first.y; y <= last.y; y += 1.0) {
        let weight = filter_weight((y - centre.y) / stretch.y);
        for (var x = first.x; x <= last.x; x += 1.0) {
            let w = weight * filter_weight((x - centre.x) / stretch.x);
            sum += w * load_tap(n, start + u32(y) * width + u32(x));
            total += w;
        }
    }
    let y = sum / total;
    store_pixel(i, {{ "limited(y, vec4<f32>(0.0), vec4<f32>(1.0))" if CUBIC else "y" }});
}
{% endif %}

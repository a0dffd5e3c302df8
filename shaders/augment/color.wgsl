// Colour, in this order: jitter (JITTER), grey, solarize; each image or not, by its draws. torchvision's ColorJitter,
// RandomGrayscale and RandomSolarize on floats in 0..1; TENSORFLOW: jitter as google-research/simclr does it, ADDITIVE: and
// deepmind-research/byol.
//
// draw: draws [N, 8] = factors of brightness, contrast, saturation, and hue's turn; order, greyed, solarized, hue's slot. The order
//   packs four operations, two bits each, first the lowest: 0 brightness, 1 contrast, 2 saturation, 3 hue; -1: no jitter.
//   Block 0: whether, order; block 1: brightness, contrast; block 2: saturation, hue; block 3: greyed, solarized.
// mean: means [N, 4], the mean grey of each image as contrast will find it, in TENSORFLOW that of each channel. A workgroup an image,
//   fixed order of addition.
// apply: brightness, contrast and saturation blend x with black, the mean and its own grey, f x + (1 - f) base, limited to 0..1.
//   ADDITIVE brightness is x + f. TENSORFLOW's saturation is min(1, f s) of HSV: with v = max and s = chroma / v, each channel is
//   v - (v - x) min(f, 1 / s), so again a blend, with base v. Hue turns in HSV: with chroma c = max - min and value v = max, channel n is v - c max(0, min(k, 4 - k, 1)),
//   k = (n + 6 h) mod 6, n = 5, 3, 1. Grey images have neither saturation nor hue. Hue costs most and a software driver runs both
//   sides of every branch, so hue stands once in the text: the slots before it, hue, the slots after it.
{% include "augment.wgsl" %}
{% if STAGE == "draw" %}
{{ params("n: u32, seed: u32, purpose: u32, counter: u32, low: f32, high: f32, contrast: f32, saturation: f32, hue: f32, jitter: f32, grayscale: f32, solarize: f32") }}

fn factor(bits: u32, strength: f32) -> f32 {
    return between(bits, max(0.0, 1.0 - strength), 1.0 + strength);
}

@compute @workgroup_size(64)
fn draw(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let index = bitcast<u32>(load_indices(i));
    let whether = bits(index, 0u);
    let first = bits(index, 1u);
    let second = bits(index, 2u);
    let after = bits(index, 3u);
    let jittered = happens(whether.x, p.jitter);
    let factors = vec4<f32>(between(first.x, p.low, p.high), factor(first.y, p.contrast), factor(second.x, p.saturation), between(second.y, -p.hue, p.hue));
    store4_draws(2u * i, select(vec4<f32>(1.0, 1.0, 1.0, 0.0), factors, jittered));
    // One of 24 orders in the factorial number system: each digit takes an operation from those that are left.
    var number = below(whether.y, 24u);
    var left = 0xE4u;
    var order = 0u;
    var hue_at = 0u;
{% for radix in [6, 2, 1, 1] %}
    {
        let at = 2u * (number / {{ radix }}u);
        number = number % {{ radix }}u;
        let operation = (left >> at) & 3u;
        order |= operation << {{ loop.index0 * 2 }}u;
        hue_at = select(hue_at, {{ loop.index0 }}u, operation == 3u);
        left = (left & ((1u << at) - 1u)) | ((left >> (at + 2u)) << at);
    }
{% endfor %}
    let flags = vec2<f32>(select(0.0, 1.0, happens(after.x, p.grayscale)), select(0.0, 1.0, happens(after.y, p.solarize)));
    store4_draws(2u * i + 1u, vec4<f32>(select(-1.0, f32(order), jittered), flags, select(0.0, f32(hue_at), jittered)));
}
{% else %}
fn grey(x: vec3<f32>) -> f32 {
{% if CHANNELS == 1 %}
    return x.x;
{% else %}
    return 0.299 * x.x + 0.587 * x.y + 0.114 * x.z;
{% endif %}
}

{% if JITTER %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("f32") }}
{{ nan_kept("vec3<f32>", "3") }}
// NaN where one of the three is.
fn brightest(x: vec3<f32>) -> f32 {
    return maximum(x.x, maximum(x.y, x.z));
}

fn blend(x: vec3<f32>, base: vec3<f32>, factor: f32) -> vec3<f32> {
    return limited3(factor * x + (1.0 - factor) * base, vec3<f32>(0.0), vec3<f32>(1.0));
}

fn turn_hue(x: vec3<f32>, turn: f32) -> vec3<f32> {
    let value = brightest(x);
    let chroma = value - min(x.x, min(x.y, x.z));
    let divisor = select(chroma, 1.0, chroma == 0.0);
    var sextant = 4.0 + (x.x - x.y) / divisor;
    if (value == x.x) {
        sextant = (x.y - x.z) / divisor;
    } else if (value == x.y) {
        sextant = 2.0 + (x.z - x.x) / divisor;
    }
    let k = vec3<f32>(5.0, 3.0, 1.0) + sextant + 6.0 * turn + 6.0;
    let wrapped = k - 6.0 * floor(k / 6.0);
    return value - chroma * clamp(min(wrapped, 4.0 - wrapped), vec3<f32>(0.0), vec3<f32>(1.0));
}

// One operation other than hue; hue leaves x as it is.
fn adjust(x: vec3<f32>, operation: u32, factors: vec4<f32>, mean: vec3<f32>) -> vec3<f32> {
    var base = select(vec3<f32>(0.0), mean, operation == 1u);
    var factor = select(factors.x, factors.y, operation == 1u);
{% if CHANNELS != 1 %}
{% if TENSORFLOW %}
    let value = brightest(x);
    let chroma = value - min(x.x, min(x.y, x.z));
    base = select(base, vec3<f32>(value), operation == 2u);
    factor = select(factor, minimum(factors.z, value / select(chroma, 1.0, chroma == 0.0)), operation == 2u);
{% else %}
    base = select(base, vec3<f32>(grey(x)), operation == 2u);
    factor = select(factor, factors.z, operation == 2u);
{% endif %}
{% endif %}
    var y = blend(x, base, factor);
{% if ADDITIVE %}
    y = select(y, limited3(x + factors.x, vec3<f32>(0.0), vec3<f32>(1.0)), operation == 0u);
{% endif %}
    return select(x, y, operation < {{ 2 if CHANNELS == 1 else 3 }}u);
}

// The operations in the slots below end.
fn jitter(pixel: vec3<f32>, factors: vec4<f32>, order: u32, hue_at: u32, end: u32, mean: vec3<f32>) -> vec3<f32> {
    var x = pixel;
{% if CHANNELS == 1 %}
{% for slot in range(4) %}
    x = select(x, adjust(x, (order >> {{ slot * 2 }}u) & 3u, factors, mean), {{ slot }}u < end);
{% endfor %}
{% else %}
{% for slot in range(3) %}
    x = select(x, adjust(x, (order >> {{ slot * 2 }}u) & 3u, factors, mean), {{ slot }}u < min(hue_at, end));
{% endfor %}
    x = select(x, turn_hue(x, factors.w), hue_at < end && factors.w != 0.0);
{% for slot in range(1, 3 if STAGE == "mean" else 4) %}
    x = select(x, adjust(x, (order >> {{ slot * 2 }}u) & 3u, factors, mean), {{ slot }}u > hue_at && {{ slot }}u < end);
{% endfor %}
{% endif %}
    return x;
}
{% endif %}

{% if STAGE == "mean" %}
{{ output(1, "means", type="f32", width=4) }}
{{ input(2, "draws", type="f32", width=4) }}
{{ params("image: u32") }}
var<workgroup> sums: array<vec3<f32>, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn mean(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_index(wid, nwg);
    if (n >= p.groups) {
        return;
    }
    let factors = load4_draws(2u * n);
    let record = load4_draws(2u * n + 1u);
    let order = u32(max(record.x, 0.0));
    let hue_at = u32(record.w);
    // The slot of contrast.
    var end = 0u;
{% for slot in [1, 2, 3] %}
    end = select(end, {{ slot }}u, ((order >> {{ slot * 2 }}u) & 3u) == 1u);
{% endfor %}
    var sum = vec3<f32>(0.0);
    for (var i = lane; i < p.image && record.x >= 0.0; i += {{ LANES }}u) {
        let x = jitter(load_pixel(n * p.image + i).xyz, factors, order, hue_at, end, vec3<f32>(0.0));
        sum += {{ "x" if TENSORFLOW else "vec3<f32>(grey(x))" }};
    }
    sums[lane] = sum;
    workgroupBarrier();
    if (lane == 0u) {
        var total = vec3<f32>(0.0);
        for (var i = 0u; i < {{ LANES }}u; i++) {
            total += sums[i];
        }
        store4_means(n, vec4<f32>(total / f32(p.image), 0.0));
    }
}
{% else %}
{{ input(2, "draws", type="f32", width=4) }}
{% if JITTER %}
{{ input(3, "means", type="f32", width=4) }}
{% endif %}
{{ params("pixels: u32, image: u32, threshold: f32") }}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.pixels) {
        return;
    }
    let n = i / p.image;
    let pixel = load_pixel(i);
    var x = pixel.xyz;
    let record = load4_draws(2u * n + 1u);
{% if JITTER %}
    let end = select(0u, 4u, record.x >= 0.0);
    x = jitter(x, load4_draws(2u * n), u32(max(record.x, 0.0)), u32(record.w), end, load4_means(n).xyz);
{% endif %}
{% if CHANNELS != 1 %}
    if (record.y != 0.0) {
        x = vec3<f32>(grey(x));
    }
{% endif %}
    if (record.z != 0.0) {
        x = select(x, 1.0 - x, x >= vec3<f32>(p.threshold));
    }
    store_pixel(i, vec4<f32>(x, pixel.w));
}
{% endif %}
{% endif %}

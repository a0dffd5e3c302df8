// RandAugment (Cubuk et al. 2020): operations that are drawn for each image, one after another; torchvision's RandAugment on floats in 0..1.
//
// draw: draws [N, OPS, 4] = operation, its magnitude, cosine and sine of a rotation. Block k: operation and sign of number k. Operations
//   are numbered as torchvision lists them: 0 Identity, 1 ShearX, 2 ShearY, 3 TranslateX, 4 TranslateY, 5 Rotate, 6 Brightness, 7 Color,
//   8 Contrast, 9 Sharpness, 10 Posterize, 11 Solarize, 12 AutoContrast, 13 Equalize. Magnitudes: pixels that a pixel to the right or below
//   shifts by, whole pixels, degrees, a factor less 1, bits, the least value that is inverted.
// measure: statistics [N, 776] of each image, what its operation number p.number asks for: the least and the greatest value of each channel, the
//   mean grey, and 256 numbers a channel that Equalize turns bytes into. Counts are whole numbers, so their order does not matter. A workgroup
//   an image.
// apply: operation number p.number of each image.
//   1 to 5 read the image at another place: of half pixels from the upper left corner (1 and 2) or the centre (5), nearest pixel or
//   bilinear (BILINEAR), black outside. 6 to 9 blend x with a base, f x + (1 - f) base, limited to 0..1: black, the pixel's grey, the mean grey,
//   the image smoothed by 3 x 3 taps 1 / 13 with 5 / 13 in the middle, which the edge is not.
//   10 and 13 work on bytes floor(255.999 x), as torchvision makes bytes of floats, and give them back divided by 255.
//   12 stretches each channel from its least to its greatest value. 13: with s = (pixels - those of the greatest byte) / 255 and whole
//   divisions, byte v becomes (pixels below v + s / 2) / s. NaN stays NaN and is not counted.
{% include "augment.wgsl" %}
{% if STAGE == "draw" %}
{% include "trigonometry.wgsl" %}
{{ params("n: u32, seed: u32, purpose: u32, counter: u32, shear: f32, across: f32, down: f32, degrees: f32, change: f32, bits: f32, threshold: f32, ops: u32") }}

@compute @workgroup_size(64)
fn draw(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let index = bitcast<u32>(load_indices(i));
    for (var number = 0u; number < p.ops; number++) {
        let b = bits(index, number);
        let operation = below(b.x, 14u);
        let direction = select(1.0, -1.0, (b.y >> 31u) == 1u);
        var magnitude = 0.0;
        magnitude = select(magnitude, direction * p.shear, operation == 1u || operation == 2u);
        magnitude = select(magnitude, direction * p.across, operation == 3u);
        magnitude = select(magnitude, direction * p.down, operation == 4u);
        magnitude = select(magnitude, direction * p.degrees, operation == 5u);
        magnitude = select(magnitude, direction * p.change, operation >= 6u && operation <= 9u);
        magnitude = select(magnitude, p.bits, operation == 10u);
        magnitude = select(magnitude, p.threshold, operation == 11u);
        let angle = select(0.0, magnitude * 0.017453292, operation == 5u);
        store4_draws(p.ops * i + number, vec4<f32>(f32(operation), magnitude, cosine(angle), sine(angle)));
    }
}
{% else %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("f32") }}
{{ nan_kept("vec3<f32>", "3") }}

// torchvision's numbers for tensors.
fn grey(x: vec3<f32>) -> f32 {
{% if CHANNELS == 1 %}
    return x.x;
{% else %}
    return 0.2989 * x.x + 0.587 * x.y + 0.114 * x.z;
{% endif %}
}

// The byte of a number that is no NaN.
fn byte(x: f32) -> u32 {
    return u32(clamp(floor(x * 255.999), 0.0, 255.0));
}
{% endif %}

{% if STAGE == "measure" %}
{{ output(1, "statistics", type="f32") }}
{{ input(2, "draws", type="f32", width=4) }}
{{ params("image: u32, ops: u32, number: u32") }}
{% set colours = 1 if CHANNELS == 1 else 3 %}
var<workgroup> counts: array<atomic<u32>, {{ 256 * colours }}>;
var<workgroup> lows: array<vec3<f32>, {{ LANES }}>;
var<workgroup> highs: array<vec3<f32>, {{ LANES }}>;
var<workgroup> sums: array<f32, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn measure(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group_index(wid, nwg);
    if (n >= p.groups) {
        return;
    }
    let operation = load4_draws(n * p.ops + p.number).x;
    // Barriers stand in no branch: what is not asked for walks over nothing.
    let pixels = select(0u, p.image, operation == 8.0 || operation >= 12.0);
    let tables = select(0u, {{ 256 * colours }}u, operation == 13.0);
    for (var i = lane; i < tables; i += {{ LANES }}u) {
        atomicStore(&counts[i], 0u);
    }
    workgroupBarrier();
    var low = vec3<f32>(1e30);
    var high = vec3<f32>(-1e30);
    var sum = 0.0;
    for (var i = lane; i < pixels; i += {{ LANES }}u) {
        let x = load_pixel(n * p.image + i).xyz;
        low = minimum3(low, x);
        high = maximum3(high, x);
        sum += grey(x);
{% for c in range(colours) %}
        if (tables != 0u && !is_nan(x[{{ c }}])) {
            atomicAdd(&counts[{{ 256 * c }}u + byte(x[{{ c }}])], 1u);
        }
{% endfor %}
    }
    lows[lane] = low;
    highs[lane] = high;
    sums[lane] = sum;
    workgroupBarrier();
    let own = 776u * n;
    if (lane == 0u && pixels != 0u) {
        var total = 0.0;
        for (var i = 0u; i < {{ LANES }}u; i++) {
            low = minimum3(low, lows[i]);
            high = maximum3(high, highs[i]);
            total += sums[i];
        }
{% for c in range(3) %}
        store_statistics(own + {{ c }}u, low[{{ c }}]);
        store_statistics(own + {{ 3 + c }}u, high[{{ c }}]);
{% endfor %}
        store_statistics(own + 6u, total / f32(p.image));
    }
    // A lane a channel.
    if (lane < {{ colours }}u && tables != 0u) {
        let first = lane * 256u;
        var all = 0u;
        var last = 0u;
        for (var v = 0u; v < 256u; v++) {
            let count = atomicLoad(&counts[first + v]);
            all += count;
            last = select(last, count, count != 0u);
        }
        let step = (all - last) / 255u;
        var before = 0u;
        for (var v = 0u; v < 256u; v++) {
            // Dividing by 0 is no use, but allowed.
            let stretched = min((before + step / 2u) / max(step, 1u), 255u);
            store_statistics(own + 8u + first + v, f32(select(stretched, v, step == 0u)) / 255.0);
            before += atomicLoad(&counts[first + v]);
        }
    }
}
{% elif STAGE == "apply" %}
{{ input(2, "draws", type="f32", width=4) }}
{{ input(3, "statistics", type="f32") }}
{{ params("pixels: u32, height: i32, width: i32, ops: u32, number: u32") }}

// Pixel x, y of the image whose first pixel is start; black outside, and where the weight is 0.
fn weighed(start: i32, x: i32, y: i32, weight: f32) -> vec4<f32> {
    let inside = x >= 0 && y >= 0 && x < p.width && y < p.height && weight != 0.0;
    let pixel = load_pixel(u32(start + select(0, y * p.width + x, inside)));
    return select(vec4<f32>(0.0), weight * pixel, inside);
}

// The image at a place, counted in pixels from the middle of the first.
fn sampled(start: i32, place: vec2<f32>) -> vec4<f32> {
    // Far outside is outside; a whole number stays in i32.
    let at = clamp(place, vec2<f32>(-4.0), vec2<f32>(f32(p.width), f32(p.height)) + 4.0);
{% if BILINEAR %}
    let first = floor(at);
    let t = at - first;
    let corner = vec2<i32>(first);
    return weighed(start, corner.x, corner.y, (1.0 - t.x) * (1.0 - t.y)) + weighed(start, corner.x + 1, corner.y, t.x * (1.0 - t.y))
        + (weighed(start, corner.x, corner.y + 1, (1.0 - t.x) * t.y) + weighed(start, corner.x + 1, corner.y + 1, t.x * t.y));
{% else %}
    let corner = vec2<i32>(round(at));
    return weighed(start, corner.x, corner.y, 1.0);
{% endif %}
}

fn blend(x: vec3<f32>, base: vec3<f32>, factor: f32) -> vec3<f32> {
    return limited3(factor * x + (1.0 - factor) * base, vec3<f32>(0.0), vec3<f32>(1.0));
}

@compute @workgroup_size(64)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.pixels) {
        return;
    }
    let row = i / u32(p.width);
    let n = row / u32(p.height);
    let place = vec2<i32>(i32(i - row * u32(p.width)), i32(row - n * u32(p.height)));
    let start = i32(i) - place.y * p.width - place.x;
    let record = load4_draws(n * p.ops + p.number);
    let operation = u32(record.x);
    let m = record.y;
    let own = 776u * n;
    let pixel = load_pixel(i);
    let x = pixel.xyz;
    if (operation >= 1u && operation <= 5u) {
        let at = vec2<f32>(place);
        let middle = at + 0.5;
        let centre = middle - 0.5 * vec2<f32>(f32(p.width), f32(p.height));
        var from_ = at;
        from_ = select(from_, vec2<f32>(at.x + m * middle.y, at.y), operation == 1u);
        from_ = select(from_, vec2<f32>(at.x, at.y + m * middle.x), operation == 2u);
        from_ = select(from_, vec2<f32>(at.x - m, at.y), operation == 3u);
        from_ = select(from_, vec2<f32>(at.x, at.y - m), operation == 4u);
        let turned = vec2<f32>(record.z * centre.x - record.w * centre.y, record.w * centre.x + record.z * centre.y);
        from_ = select(from_, at + (turned - centre), operation == 5u);
        store_pixel(i, sampled(start, from_));
        return;
    }
    var y = x;
    if (operation >= 6u && operation <= 9u) {
        var base = vec3<f32>(0.0);
        var blends = true;
        if (operation == 7u) {
            base = vec3<f32>(grey(x));
            blends = {{ "false" if CHANNELS == 1 else "true" }};
        } else if (operation == 8u) {
            base = vec3<f32>(load_statistics(own + 6u));
        } else if (operation == 9u) {
            base = x;
            blends = p.width > 2 && p.height > 2;
            if (place.x > 0 && place.y > 0 && place.x < p.width - 1 && place.y < p.height - 1) {
                var around = vec3<f32>(0.0);
{% for dy in [-1, 0, 1] %}
                around += load_pixel(u32(i32(i) + {{ dy }} * p.width - 1)).xyz + load_pixel(u32(i32(i) + {{ dy }} * p.width)).xyz
                    + load_pixel(u32(i32(i) + {{ dy }} * p.width + 1)).xyz;
{% endfor %}
                base = (around + 4.0 * x) / 13.0;
            }
        }
        y = select(x, blend(x, base, 1.0 + m), blends);
    } else if (operation == 10u) {
        let mask = 0xffffffffu << (8u - u32(m));
        y = select(vec3<f32>(vec3<u32>(byte(x.x), byte(x.y), byte(x.z)) & vec3<u32>(mask)) / 255.0, x, is_nan3(x));
    } else if (operation == 11u) {
        y = select(x, 1.0 - x, x >= vec3<f32>(m));
    } else if (operation == 12u) {
        let low = vec3<f32>(load_statistics(own), load_statistics(own + 1u), load_statistics(own + 2u));
        let range = vec3<f32>(load_statistics(own + 3u), load_statistics(own + 4u), load_statistics(own + 5u)) - low;
        // A channel that is all alike, or has NaN, stays.
        let stretches = !is_nan3(range) & (range > vec3<f32>(0.0));
        y = select(x, limited3((x - low) / select(vec3<f32>(1.0), range, stretches), vec3<f32>(0.0), vec3<f32>(1.0)), stretches);
        // As torchvision, also what stays is limited.
        y = limited3(y, vec3<f32>(0.0), vec3<f32>(1.0));
    } else if (operation == 13u) {
        let table = own + 8u;
{% for c in range(1 if CHANNELS == 1 else 3) %}
        if (!is_nan(x[{{ c }}])) {
            y[{{ c }}] = load_statistics(table + {{ 256 * c }}u + byte(x[{{ c }}]));
        }
{% endfor %}
    }
    store_pixel(i, vec4<f32>(y, pixel.w));
}
{% endif %}

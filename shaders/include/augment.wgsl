// What augmentation kernels share. They run in stages, each a variant of one file:
//
// STAGE "draw": one thread an image turns random bits into the image's record of floats (draws, [N, 4] or [N, 8]).
//   indices [N]: each image's place in the data set. Bits are a function of seed, step, epoch, view, index and block alone, so
//   neither the batch, its order nor the adapter matters; src/ops/augment/mod.rs says how key and counter are packed.
// STAGE "apply": one thread a pixel reads source and writes target_, [N, H, W, CHANNELS] with 1, 3 or 4 channels. A pixel is a
//   vec4 with zeros behind its last channel. The fourth channel is padding behind red, green, blue and stays what it was.
{% include "grid.wgsl" %}
{% if STAGE == "draw" %}
{% include "random.wgsl" %}
{{ input(0, "indices", type="i32") }}
{{ output(1, "draws", type="f32", width=4) }}

fn bits(index: u32, block: u32) -> vec2<u32> {
    return threefry2x32(vec2<u32>(p.seed, p.purpose), vec2<u32>(index, p.counter + block));
}

// A whole number in 0..n for n up to 65536: integers only, so exact; chances differ by less than 2^-16.
fn below(bits: u32, n: u32) -> u32 {
    return ((bits >> 16u) * n) >> 16u;
}

fn happens(bits: u32, probability: f32) -> bool {
    return uniform_from_bits(bits) < probability;
}

fn between(bits: u32, low: f32, high: f32) -> f32 {
    return low + uniform_from_bits(bits) * (high - low);
}
{% else %}
{% if PICTURES is defined %}
{{ input(0, "source", type="i32") }}
{% else %}
{{ input(0, "source", type="f32", width=4 if CHANNELS == 4 else 1) }}

fn load_pixel(i: u32) -> vec4<f32> {
{% if CHANNELS == 4 %}
    return load4_source(i);
{% elif CHANNELS == 3 %}
    return vec4<f32>(load_source(i * 3u), load_source(i * 3u + 1u), load_source(i * 3u + 2u), 0.0);
{% else %}
    return vec4<f32>(load_source(i), 0.0, 0.0, 0.0);
{% endif %}
}
{% endif %}

// A place up to size - 1 outside of 0..size, reflected into it; the edge is not repeated.
fn reflect_index(i: i32, size: i32) -> i32 {
    let positive = abs(i);
    return min(positive, 2 * (size - 1) - positive);
}
{% if STAGE == "apply" %}
{{ output(1, "target_", type="f32", width=4 if CHANNELS == 4 else 1) }}

fn store_pixel(i: u32, v: vec4<f32>) {
{% if CHANNELS == 4 %}
    store4_target_(i, v);
{% elif CHANNELS == 3 %}
    store_target_(i * 3u, v.x);
    store_target_(i * 3u + 1u, v.y);
    store_target_(i * 3u + 2u, v.z);
{% else %}
    store_target_(i, v.x);
{% endif %}
}
{% endif %}
{% endif %}

// Random numbers for each image: y [N, L] by the images' places in the data set, indices [N].
//
// Element e of a row takes word e % 2 of block e / 2, which is Threefry's (include/random.wgsl) 64 bits for the key
// (seed, purpose + block / 256) and the counter (index, counter + block % 256); src/ops/augment/noise.rs says how these are packed. So neither
// the batch nor its order matters. A thread makes one block.
// NORMAL: the block is a pair of normal numbers by Box and Muller's transform; half a step up, so that the logarithm never sees 0.
{% include "grid.wgsl" %}
{% include "random.wgsl" %}
{{ input(0, "indices", type="i32") }}
{{ output(1, "y", type="f32") }}
{{ params("n: u32, blocks: u32, length: u32, seed: u32, purpose: u32, counter: u32") }}

fn numbers(bits: vec2<u32>) -> vec2<f32> {
{% if NORMAL %}
    let radius = sqrt(-2.0 * log((f32(bits.x >> 9u) + 0.5) * 1.1920928955078125e-7));
    let angle = (uniform_from_bits(bits.y) - 0.5) * 6.283185307179586;
    return radius * vec2<f32>(cos(angle), sin(angle));
{% else %}
    return vec2<f32>(uniform_from_bits(bits.x), uniform_from_bits(bits.y));
{% endif %}
}

@compute @workgroup_size(64)
fn noise(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.blocks;
    let block = i - row * p.blocks;
    let key = vec2<u32>(p.seed, p.purpose + (block >> 8u));
    let counter = vec2<u32>(bitcast<u32>(load_indices(row)), p.counter + (block & 255u));
    let pair = numbers(threefry2x32(key, counter));
    let at = row * p.length + 2u * block;
    store_y(at, pair.x);
    if (2u * block + 1u < p.length) {
        store_y(at + 1u, pair.y);
    }
}

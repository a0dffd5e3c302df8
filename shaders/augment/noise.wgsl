// Random numbers for each image: y [N, L] by the images' places in the data set, indices [N].
//
// Element e of a row takes word e % 2 of block e / 2, which is Threefry's (include/random.wgsl) 64 bits for the key
// (seed, purpose + block / 256) and the counter (index, counter + block % 256); src/ops/augment/noise.rs says how these are packed. So neither
// the batch nor its order matters. A thread makes one block.
// NORMAL: the block is a pair of normal numbers by Box and Muller's transform; half a step up, so that the logarithm never sees 0.
{% include "grid.wgsl" %}
{% include "random.wgsl" %}
{% if NORMAL %}
{% include "logarithm.wgsl" %}
{% include "trigonometry.wgsl" %}
{% endif %}
{{ input(0, "indices", type="i32") }}
{{ output(1, "y", type="f32") }}
{{ params("n: u32, blocks: u32, length: u32, seed: u32, purpose: u32, counter: u32") }}

fn numbers(bits: vec2<u32>) -> vec2<f32> {
{% if NORMAL %}
    let radius = sqrt(-2.0 * logarithm((f32(bits.x >> 9u) + 0.5) * 1.1920928955078125e-7));
    // The angle is the bits as a part of a turn, from half a turn before 0 on: quarters are 2^22.
    let part = bits.y >> 8u;
    let quarter = (part + 0x200000u) >> 22u;
    let angle = quarters(quarter + 2u, f32(bitcast<i32>(part - (quarter << 22u))) * 2.384185791015625e-7, 0.0);
    return radius * vec2<f32>(sine_of(angle, 1u), sine_of(angle, 0u));
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

// Norms of gradients, for clipping and LARS; the same bits every run. Segments and table as in optimizer/update. A sum is (m, e), which stands
// for m 4^e: see squares.wgsl.
//
// squares: partials [groups, 2]: each workgroup's sum of gradients^2 over `per` vec4s of the slab, active segments alone.
// clip:    partials0.. of up to four slabs to control: (norm, factor, 1 where all gradients are finite, decay, second factor, correction1,
//          correction2). The gradients are first multiplied by gradient_scale = scalars[5] (1 / loss scale); norm is that of the scaled gradients; the product of both factors is
//          gradient_scale * min(1, max_norm / (norm + 1e-6)), max_norm = scalars[3], 0: no clipping (PyTorch's clip_grad_norm_); the second
//          is 1 unless the first were too small a number. Where a gradient is not finite skipped[0] rises.
//          decay is scalars[6], which multiplies all weight decays. The corrections are those of Adam, 1 - beta^n at the n-th step that was taken:
//          scalars[1] and [2], which are of step t = scalars[7] and of float64, unless steps were skipped; then 1 - e^((t - skipped) ln beta).
// blocks:  sums [n / 64, 4] of values^2 and (factor * gradients + decay * values)^2 of each block; a thread owns a block.
// segment: norms [count, 4]: (a, b, c, d) of the roots a 2^c and b 2^d of the sums of a segment's blocks, whose numbers ascend along the slab; a
//          workgroup owns a segment.
// block_squares: sums [n / 64, 4] of 0 and gradients^2.
// clip_each: gradients times min(1, max_norm / (gradient_scale * norm + 1e-6)), norm that of their segment; a thread owns a vec4.
{% include "grid.wgsl" %}
{% include "squares.wgsl" %}
{% from "lanes.wgsl" import join_lanes %}
{% if ENTRY == "squares" %}
{{ input(0, "gradients", type="f32", width=4) }}
{{ input(1, "segments", type="i32") }}
{{ input(2, "table", type="f32", width=4) }}
{{ output(3, "partials", type="f32") }}
{{ params("n4: u32, count: u32, per: u32") }}

var<workgroup> parts: array<vec3<f32>, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn squares(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    var part = vec3<f32>(0.0);
    let last = min((group + 1u) * p.per, p.n4);
    for (var i = group * p.per + lane; i < last; i += {{ LANES }}u) {
        let segment = u32(load_segments(i >> 4u));
        if (segment < p.count && load4_table(min(segment, p.count - 1u)).z != 0.0) {
            part += squares_of(load4_gradients(i));
        }
    }
    parts[lane] = part;
{{ join_lanes("parts", LANES) }}
    if (lane == 0u) {
        let sum = settled(parts[0]);
        store_partials(2u * group, sum.x);
        store_partials(2u * group + 1u, sum.y);
    }
}
{% elif ENTRY == "clip" %}
{% include "expm1.wgsl" %}
{% for s in range(SLABS) %}
{{ input(s, "partials" ~ s, type="f32") }}
{% endfor %}
{{ input(SLABS, "scalars", type="f32") }}
{{ output(SLABS + 1, "control", type="f32") }}
{{ inout(SLABS + 2, "skipped", type="i32") }}
{{ params(PARAMS) }}

var<workgroup> parts: array<vec3<f32>, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn clip(@builtin(local_invocation_index) lane: u32) {
    var part = vec3<f32>(0.0);
{% for s in range(SLABS) %}
    for (var i = lane; i < p.count{{ s }}; i += {{ LANES }}u) {
        part += unsettled(load_partials{{ s }}(2u * i), load_partials{{ s }}(2u * i + 1u));
    }
{% endfor %}
    parts[lane] = part;
{{ join_lanes("parts", LANES) }}
    if (lane == 0u) {
        let sum = settled(parts[0]);
        let scale = load_scalars(5u);
        let exponent = i32(sum.y);
        let root = sqrt(sum.x) * scale;
        let finite = is_finite(root);
        let largest = load_scalars(3u);
        var factors = vec2<f32>(1.0);
        if (largest > 0.0) {
            factors = shortening(largest, root, exponent);
        }
        store_control(0u, scaled(root, exponent));
        store_control(1u, select(0.0, scale * factors.x, finite));
        store_control(2u, select(0.0, 1.0, finite));
        store_control(3u, load_scalars(6u));
        store_control(4u, select(1.0, factors.y, finite));
        let before = load_skipped(0u);
        let taken = load_scalars(7u) - f32(before);
        store_control(5u, select(-expm1(taken * p.log_beta1), load_scalars(1u), before == 0));
        store_control(6u, select(-expm1(taken * p.log_beta2), load_scalars(2u), before == 0));
        store_skipped(0u, before + select(1, 0, finite));
    }
}
{% elif ENTRY == "blocks" %}
{{ input(0, "values", type="f32", width=4) }}
{{ input(1, "gradients", type="f32", width=4) }}
{{ input(2, "segments", type="i32") }}
{{ input(3, "table", type="f32", width=4) }}
{{ input(4, "control", type="f32") }}
{{ output(5, "sums", type="f32", width=4) }}
{{ params("blocks: u32, count: u32") }}

fn store_block(block: u32, values: vec2<f32>, gradients: vec2<f32>) {
    store4_sums(block, vec4<f32>(values.x, gradients.x, values.y, gradients.y));
}

@compute @workgroup_size(64)
fn blocks(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group_index(wid, nwg) * 64u + lane;
    if (block >= p.blocks) {
        return;
    }
    let segment = u32(load_segments(block));
    var values = vec3<f32>(0.0);
    var gradients = vec3<f32>(0.0);
    if (segment < p.count) {
        let row = load4_table(segment);
        if (row.z != 0.0) {
            let factor = load_control(1u);
            let second = load_control(4u);
            let decay = load_control(3u) * row.y;
            for (var i = block * 16u; i < block * 16u + 16u; i += 1u) {
                let w = load4_values(i);
                let g = factor * load4_gradients(i) * second + decay * w;
                values += squares_of(w);
                gradients += squares_of(g);
            }
        }
    }
    store_block(block, settled(values), settled(gradients));
}
{% elif ENTRY == "block_squares" %}
{{ input(0, "gradients", type="f32", width=4) }}
{{ input(1, "segments", type="i32") }}
{{ input(2, "table", type="f32", width=4) }}
{{ output(3, "sums", type="f32", width=4) }}
{{ params("blocks: u32, count: u32") }}

fn store_block(block: u32, values: vec2<f32>, gradients: vec2<f32>) {
    store4_sums(block, vec4<f32>(values.x, gradients.x, values.y, gradients.y));
}

@compute @workgroup_size(64)
fn block_squares(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group_index(wid, nwg) * 64u + lane;
    if (block >= p.blocks) {
        return;
    }
    let segment = u32(load_segments(block));
    var sum = vec3<f32>(0.0);
    if (segment < p.count && load4_table(min(segment, p.count - 1u)).z != 0.0) {
        for (var i = block * 16u; i < block * 16u + 16u; i += 1u) {
            sum += squares_of(load4_gradients(i));
        }
    }
    store_block(block, vec2<f32>(0.0), settled(sum));
}
{% elif ENTRY == "clip_each" %}
{{ inout(0, "gradients", type="f32", width=4) }}
{{ input(1, "segments", type="i32") }}
{{ input(2, "table", type="f32", width=4) }}
{{ input(3, "scalars", type="f32") }}
{{ input(4, "norms", type="f32", width=4) }}
{{ params("n4: u32, count: u32, max_norm: f32") }}

@compute @workgroup_size(64)
fn clip_each(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n4) {
        return;
    }
    let segment = u32(load_segments(i >> 4u));
    if (segment >= p.count || load4_table(min(segment, p.count - 1u)).z == 0.0) {
        return;
    }
    let norm = load4_norms(segment);
    // The step is skipped then. NaN in the padding between parameters, which no gradient
    // overwrites, would be in every later norm.
    if (!(abs(norm.y) <= 3.4028234e38)) {
        return;
    }
    let factors = shortening(p.max_norm, norm.y * load_scalars(5u), i32(norm.w));
    store4_gradients(i, load4_gradients(i) * factors.x * factors.y);
}
{% else %}
{{ input(0, "sums", type="f32", width=4) }}
{{ input(1, "segments", type="i32") }}
{{ output(2, "norms", type="f32", width=4) }}
{{ params("blocks: u32") }}

var<workgroup> parts: array<mat2x3<f32>, {{ LANES }}>;

// The first block of a segment whose number is at least `wanted`.
fn first_block(wanted: i32) -> u32 {
    var low = 0u;
    var high = p.blocks;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (load_segments(middle) < wanted) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

@compute @workgroup_size({{ LANES }})
fn segment(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    var part = mat2x3<f32>();
    let last = first_block(i32(group) + 1);
    for (var i = first_block(i32(group)) + lane; i < last; i += {{ LANES }}u) {
        let sums = load4_sums(i);
        part += mat2x3<f32>(unsettled(sums.x, sums.z), unsettled(sums.y, sums.w));
    }
    parts[lane] = part;
{{ join_lanes("parts", LANES) }}
    if (lane == 0u) {
        let sum = parts[0];
        let values = settled(sum[0]);
        let gradients = settled(sum[1]);
        store4_norms(group, vec4<f32>(sqrt(values.x), sqrt(gradients.x), values.y, gradients.y));
    }
}
{% endif %}

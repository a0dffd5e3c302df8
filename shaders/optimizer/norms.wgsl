// Norms of gradients, for clipping and LARS; the same bits every run. Segments and table as in optimizer/update.
//
// squares: partials [groups]: each workgroup's sum of gradients^2 over `per` vec4s of the slab, active segments alone.
// clip:    partials0.. of up to four slabs to control: (norm, factor, 1 where the norm is finite, 0). The gradients are first multiplied by
//          gradient_scale = scalars[5] (1 / loss scale); norm is that of the scaled gradients; factor = gradient_scale * min(1, max_norm /
//          (norm + 1e-6)), max_norm = scalars[3], 0: no clipping (PyTorch's clip_grad_norm_). Where the norm is not finite skipped[0] rises.
//          The last of control is scalars[6], which multiplies all weight decays.
// blocks:  sums [n / 64] of (values^2, (factor * gradients + decay * values)^2) of each block; a thread owns a block.
// segment: norms [count, 2]: square roots of the sums of a segment's blocks, whose numbers ascend along the slab; a workgroup owns a segment.
// block_squares: sums [n / 64] of (0, gradients^2).
// clip_each: gradients times min(1, max_norm / (gradient_scale * norm + 1e-6)), norm that of their segment; a thread owns a vec4.
{% include "grid.wgsl" %}
{% from "lanes.wgsl" import join_lanes %}
{% if ENTRY == "squares" %}
{{ input(0, "gradients", type="f32", width=4) }}
{{ input(1, "segments", type="i32") }}
{{ input(2, "table", type="f32", width=4) }}
{{ output(3, "partials", type="f32") }}
{{ params("n4: u32, count: u32, per: u32") }}

var<workgroup> parts: array<f32, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn squares(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    var part = 0.0;
    let last = min((group + 1u) * p.per, p.n4);
    for (var i = group * p.per + lane; i < last; i += {{ LANES }}u) {
        let segment = u32(load_segments(i >> 4u));
        if (segment < p.count && load4_table(min(segment, p.count - 1u)).z != 0.0) {
            let g = load4_gradients(i);
            part += dot(g, g);
        }
    }
    parts[lane] = part;
{{ join_lanes("parts", LANES) }}
    if (lane == 0u) {
        let sum = parts[0];
        store_partials(group, sum);
    }
}
{% elif ENTRY == "clip" %}
{% for s in range(SLABS) %}
{{ input(s, "partials" ~ s, type="f32") }}
{% endfor %}
{{ input(SLABS, "scalars", type="f32") }}
{{ output(SLABS + 1, "control", type="f32") }}
{{ inout(SLABS + 2, "skipped", type="i32") }}
{{ params(COUNTS) }}

var<workgroup> parts: array<f32, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn clip(@builtin(local_invocation_index) lane: u32) {
    var part = 0.0;
{% for s in range(SLABS) %}
    for (var i = lane; i < p.count{{ s }}; i += {{ LANES }}u) {
        part += load_partials{{ s }}(i);
    }
{% endfor %}
    parts[lane] = part;
{{ join_lanes("parts", LANES) }}
    if (lane == 0u) {
        let sum = parts[0];
        let scale = load_scalars(5u);
        let norm = sqrt(sum) * scale;
        // All exponent bits: NaN or infinite. A comparison of floats may be optimised away.
        let finite = (bitcast<u32>(norm) & 0x7f800000u) != 0x7f800000u;
        let largest = load_scalars(3u);
        var factor = scale;
        if (largest > 0.0) {
            factor = scale * min(1.0, largest / (norm + 1e-6));
        }
        store_control(0u, norm);
        store_control(1u, select(0.0, factor, finite));
        store_control(2u, select(0.0, 1.0, finite));
        store_control(3u, load_scalars(6u));
        store_skipped(0u, load_skipped(0u) + select(1, 0, finite));
    }
}
{% elif ENTRY == "blocks" %}
{{ input(0, "values", type="f32", width=4) }}
{{ input(1, "gradients", type="f32", width=4) }}
{{ input(2, "segments", type="i32") }}
{{ input(3, "table", type="f32", width=4) }}
{{ input(4, "control", type="f32") }}
{{ output(5, "sums", type="f32") }}
{{ params("blocks: u32, count: u32") }}

@compute @workgroup_size(64)
fn blocks(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group_index(wid, nwg) * 64u + lane;
    if (block >= p.blocks) {
        return;
    }
    let segment = u32(load_segments(block));
    var values = 0.0;
    var gradients = 0.0;
    if (segment < p.count) {
        let row = load4_table(segment);
        if (row.z != 0.0) {
            let factor = load_control(1u);
            let decay = load_control(3u) * row.y;
            for (var i = block * 16u; i < block * 16u + 16u; i += 1u) {
                let w = load4_values(i);
                let g = factor * load4_gradients(i) + decay * w;
                values += dot(w, w);
                gradients += dot(g, g);
            }
        }
    }
    store_sums(2u * block, values);
    store_sums(2u * block + 1u, gradients);
}
{% elif ENTRY == "block_squares" %}
{{ input(0, "gradients", type="f32", width=4) }}
{{ input(1, "segments", type="i32") }}
{{ input(2, "table", type="f32", width=4) }}
{{ output(3, "sums", type="f32") }}
{{ params("blocks: u32, count: u32") }}

@compute @workgroup_size(64)
fn block_squares(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group_index(wid, nwg) * 64u + lane;
    if (block >= p.blocks) {
        return;
    }
    let segment = u32(load_segments(block));
    var sum = 0.0;
    if (segment < p.count && load4_table(min(segment, p.count - 1u)).z != 0.0) {
        for (var i = block * 16u; i < block * 16u + 16u; i += 1u) {
            let g = load4_gradients(i);
            sum += dot(g, g);
        }
    }
    store_sums(2u * block, 0.0);
    store_sums(2u * block + 1u, sum);
}
{% elif ENTRY == "clip_each" %}
{{ inout(0, "gradients", type="f32", width=4) }}
{{ input(1, "segments", type="i32") }}
{{ input(2, "table", type="f32", width=4) }}
{{ input(3, "scalars", type="f32") }}
{{ input(4, "norms", type="f32") }}
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
    let norm = load_norms(2u * segment + 1u) * load_scalars(5u);
    store4_gradients(i, load4_gradients(i) * min(1.0, p.max_norm / (norm + 1e-6)));
}
{% else %}
{{ input(0, "sums", type="f32") }}
{{ input(1, "segments", type="i32") }}
{{ output(2, "norms", type="f32") }}
{{ params("blocks: u32") }}

var<workgroup> parts: array<vec2<f32>, {{ LANES }}>;

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
    var part = vec2<f32>(0.0);
    let last = first_block(i32(group) + 1);
    for (var i = first_block(i32(group)) + lane; i < last; i += {{ LANES }}u) {
        part += vec2<f32>(load_sums(2u * i), load_sums(2u * i + 1u));
    }
    parts[lane] = part;
{{ join_lanes("parts", LANES) }}
    if (lane == 0u) {
        let sum = parts[0];
        store_norms(2u * group, sqrt(sum.x));
        store_norms(2u * group + 1u, sqrt(sum.y));
    }
}
{% endif %}

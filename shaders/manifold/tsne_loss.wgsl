// t-SNE's loss (van der Maaten and Hinton 2008) for points y [N, 2] and joint probabilities q [N, N], symmetric, of sum 1, and its gradient:
//     n_ij = 1 / (1 + |y_i - y_j|^2),  Z = sum of n_ij over i != j
//     loss = -e sum of q_ij log(n_ij) + log Z,  gradient_i = 4 sum_j (e q_ij - n_ij / Z) n_ij (y_i - y_j)
//
// The repulsion has no matrix in memory: `pairs` sums attraction, repulsion, n and q log n of VEC points over a slice of the others (its
// partial sums are six rows of N numbers a slice), `totals` shares the sums of n and q log n among 64 lanes, and `finish` adds these up,
// always in the same order. A thread reads y_j once for its VEC points; as q is symmetric, it reads q_ji, and neighbours read neighbours.
{% include "grid.wgsl" %}
{% set wide = "4" if VEC == 4 else "" %}
{% set float = "vec4<f32>" if VEC == 4 else "f32" %}
{{ input(0, "y", width=VEC) }}
{{ input(1, "q", width=VEC) }}
{{ inout(2, "partial", width=VEC) }}
{{ inout(3, "total", width=4) }}
{{ output(4, "gradient", width=VEC) }}
{{ output(5, "loss") }}
{{ params("n: u32, slices: u32, slice: u32, exaggeration: f32") }}

// One coordinate (0 or 1) of the thread's points.
fn coordinate(i: u32, axis: u32) -> {{ float }} {
{% if VEC == 4 %}
    let a = load4_y(2u * i);
    let b = load4_y(2u * i + 1u);
    return select(vec4<f32>(a.x, a.z, b.x, b.z), vec4<f32>(a.y, a.w, b.y, b.w), axis == 1u);
{% else %}
    return load_y(2u * i + axis);
{% endif %}
}

@compute @workgroup_size(64)
fn pairs(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = group_index(wid, nwg) * 64u + lane;
    let stride = p.n / {{ VEC }}u;
    if (at >= p.slices * stride) {
        return;
    }
    let i = at % stride;
    let first = at / stride * p.slice;
    let x = coordinate(i, 0u);
    let y = coordinate(i, 1u);
    var pull_x = {{ float }}(0.0);
    var pull_y = {{ float }}(0.0);
    var push_x = {{ float }}(0.0);
    var push_y = {{ float }}(0.0);
    var near = {{ float }}(0.0);
    var cross = {{ float }}(0.0);
    for (var j = first; j < min(first + p.slice, p.n); j += 1u) {
        let dx = x - load_y(2u * j);
        let dy = y - load_y(2u * j + 1u);
        let q = load{{ wide }}_q(j * stride + i);
        let distance = 1.0 + dx * dx + dy * dy;
        let n = 1.0 / distance;
        let pull = q * n;
        pull_x += pull * dx;
        pull_y += pull * dy;
        push_x += n * n * dx;
        push_y += n * n * dy;
        near += n;
        cross += q * log(distance);
    }
    // A point is no neighbour of its own, but was counted as one.
    let own = {{ "vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u)" if VEC == 4 else "i" }};
    let here = (own >= {{ "vec4<u32>(first)" if VEC == 4 else "first" }}) & (own < {{ "vec4<u32>(first + p.slice)" if VEC == 4 else "first + p.slice" }});
    near -= select({{ float }}(0.0), {{ float }}(1.0), here);
    let row = at / stride * 6u * stride + i;
    store{{ wide }}_partial(row, pull_x);
    store{{ wide }}_partial(row + stride, pull_y);
    store{{ wide }}_partial(row + 2u * stride, push_x);
    store{{ wide }}_partial(row + 3u * stride, push_y);
    store{{ wide }}_partial(row + 4u * stride, near);
    store{{ wide }}_partial(row + 5u * stride, cross);
}

@compute @workgroup_size(64)
fn totals(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (group_index(wid, nwg) > 0u) {
        return;
    }
    let stride = p.n / {{ VEC }}u;
    var near = {{ float }}(0.0);
    var cross = {{ float }}(0.0);
    for (var k = lane; k < p.slices * stride; k += 64u) {
        let row = k / stride * 6u * stride + k % stride;
        near += load{{ wide }}_partial(row + 4u * stride);
        cross += load{{ wide }}_partial(row + 5u * stride);
    }
    let one = {{ float }}(1.0);
    store4_total(lane, vec4<f32>({{ "dot(near, one), dot(cross, one)" if VEC == 4 else "near, cross" }}, 0.0, 0.0));
}

@compute @workgroup_size(64)
fn finish(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    let stride = p.n / {{ VEC }}u;
    if (i >= stride) {
        return;
    }
    var sums = vec4<f32>(0.0);
    for (var k = 0u; k < 64u; k += 1u) {
        sums += load4_total(k);
    }
    var x = {{ float }}(0.0);
    var y = {{ float }}(0.0);
    for (var s = 0u; s < p.slices; s += 1u) {
        let row = s * 6u * stride + i;
        x += p.exaggeration * load{{ wide }}_partial(row) - load{{ wide }}_partial(row + 2u * stride) / sums.x;
        y += p.exaggeration * load{{ wide }}_partial(row + stride) - load{{ wide }}_partial(row + 3u * stride) / sums.x;
    }
{% if VEC == 4 %}
    store4_gradient(2u * i, 4.0 * vec4<f32>(x.x, y.x, x.y, y.y));
    store4_gradient(2u * i + 1u, 4.0 * vec4<f32>(x.z, y.z, x.w, y.w));
{% else %}
    store_gradient(2u * i, 4.0 * x);
    store_gradient(2u * i + 1u, 4.0 * y);
{% endif %}
    if (i == 0u) {
        store_loss(0u, p.exaggeration * sums.y + log(sums.x));
    }
}

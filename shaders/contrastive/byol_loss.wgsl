// loss of a row = 2 - 2 cos(prediction, target), cos = <x, t> / (max(|x|, 1e-8) max(|t|, 1e-8)) (Grill et al. 2020; PyTorch's cosine_similarity).
//
// forward: prediction x and target t [n, d] to stats [n] of (cos, 1 / |x|, 1, loss of the row) and norms [n] of 1 / |t|; a workgroup owns a
// row: each lane sums a strided part, then all parts are added in the same order.
// backward: dx = loss_gradient[0] * scale * (t / |t| - cos x / |x|) / |x|, scale = -2 / n; below the threshold |x| is constant. A thread owns
// an element.
{% include "grid.wgsl" %}
{% from "lanes.wgsl" import join_lanes %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("f32") }}
{{ input(0, "prediction") }}
{{ input(1, "target_", type=TARGET) }}
{% if BACKWARD %}
{{ input(2, "stats", type="f32", width=4) }}
{{ input(3, "norms", type="f32") }}
{{ input(4, "loss_gradient", type="f32") }}
{{ output(5, "dx") }}
{{ params("d: u32, size: u32, scale: f32") }}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.size) {
        return;
    }
    let row = i / p.d;
    let stats = load4_stats(row);
    let along = select(0.0, stats.x * stats.y * load_prediction(i), stats.y < 1e8);
    store_dx(i, load_loss_gradient(0u) * p.scale * stats.y * (load_target_(i) * load_norms(row) - along));
}
{% else %}
{{ output(2, "stats", type="f32", width=4) }}
{{ output(3, "norms", type="f32") }}
{{ params("d: u32") }}

var<workgroup> parts: array<vec3<f32>, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg);
    if (row >= p.groups) {
        return;
    }
    var part = vec3<f32>(0.0);
    for (var c = lane; c < p.d; c += {{ LANES }}u) {
        let x = load_prediction(row * p.d + c);
        let t = load_target_(row * p.d + c);
        part += vec3<f32>(x * t, x * x, t * t);
    }
    parts[lane] = part;
{{ join_lanes("parts", LANES) }}
    if (lane == 0u) {
        let sum = parts[0];
        let inverse_x = 1.0 / maximum(sqrt(sum.y), 1e-8);
        let inverse_t = 1.0 / maximum(sqrt(sum.z), 1e-8);
        let cosine = sum.x * inverse_x * inverse_t;
        store4_stats(row, vec4<f32>(cosine, inverse_x, 1.0, 2.0 - 2.0 * cosine));
        store_norms(row, inverse_t);
    }
}
{% endif %}

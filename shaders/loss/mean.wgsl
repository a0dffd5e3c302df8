// loss = sum of terms[first + i * step] / w over n terms, and inverse = 1 / w. w is the sum of terms[weights + i * step] where p.weighted
// is 1, else p.divisor. Nothing to average, w = 0: both are 0. One workgroup; the order of additions never changes.
// PARTIAL: many terms, so that no sum runs over many: workgroup g writes partials[g] = (sum of terms, of weights) of the terms g * chunk ..
{% include "grid.wgsl" %}
{% from "lanes.wgsl" import join_lanes %}
{{ input(0, "terms", type="f32") }}
{% if PARTIAL %}
{{ output(1, "partials", type="f32") }}
{% else %}
{{ output(1, "loss", type="f32") }}
{{ output(2, "inverse", type="f32") }}
{% endif %}
{{ params("n: u32, first: u32, step: u32, weighted: u32, weights: u32, divisor: f32, chunk: u32") }}
var<workgroup> parts: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn mean(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let end = min(p.n, (group + 1u) * p.chunk);
    var sums = vec2<f32>(0.0);
    for (var i = group * p.chunk + lane; i < end; i += 256u) {
        sums.x += load_terms(p.first + i * p.step);
        if (p.weighted == 1u) {
            sums.y += load_terms(p.weights + i * p.step);
        }
    }
    parts[lane] = sums;
{{ join_lanes("parts", 256) }}
    if (lane == 0u) {
{% if PARTIAL %}
        store_partials(2u * group, parts[0].x);
        store_partials(2u * group + 1u, parts[0].y);
{% else %}
        let w = select(p.divisor, parts[0].y, p.weighted == 1u);
        store_loss(0u, select(0.0, parts[0].x / w, w > 0.0));
        store_inverse(0u, select(0.0, 1.0 / w, w > 0.0));
{% endif %}
    }
}

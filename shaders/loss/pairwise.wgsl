// Means of f(a, b) over all elements, and their gradients; f and df/da are expressions in a and b from the operator's table, p.beta
// is its constant.
//
// Step "terms": a workgroup owns p.chunk vec4s, its lanes take turns, and each writes its sum (software drivers: 8 lanes, no
// barriers) or lane 0 that of all (TREE). shaders/loss/mean.wgsl adds them. The last vec4 may reach into the padding, which is left out.
// Step "gradient": da = f'(a, b) * cotangent * scale, a vec4 a thread.
{% include "grid.wgsl" %}
{% include "activation.wgsl" %}
{% from "lanes.wgsl" import join_lanes %}
const LANES = {{ LANES }}u;
{{ input(0, "left", width=4) }}
{{ input(1, "right", width=4) }}
{% if STEP == "terms" %}
{{ output(2, "terms", type="f32") }}
{{ params("n: u32, n4: u32, chunk: u32, beta: f32") }}
{% else %}
{{ input(2, "cotangent", type="f32") }}
{{ output(3, "gradient_", width=4) }}
{{ params("n4: u32, scale: f32, beta: f32") }}
{% endif %}

fn f(a: f32, b: f32) -> f32 {
    return {{ EXPRESSION }};
}

fn of_four(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(f(a.x, b.x), f(a.y, b.y), f(a.z, b.z), f(a.w, b.w));
}

{% if STEP == "terms" %}
{% if TREE %}
var<workgroup> parts: array<f32, LANES>;
{% endif %}

@compute @workgroup_size(LANES)
fn partial_sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let end = min((group + 1u) * p.chunk, p.n4);
    var sums = vec4<f32>(0.0);
    for (var i = group * p.chunk + lane; i < end; i += LANES) {
        let inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.n);
        sums += select(vec4<f32>(0.0), of_four(load4_left(i), load4_right(i)), inside);
    }
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
{% if TREE %}
    parts[lane] = sum;
{{ join_lanes("parts", LANES) }}
    if (lane == 0u) {
        store_terms(group, parts[0]);
    }
{% else %}
    store_terms(group * LANES + lane, sum);
{% endif %}
}
{% else %}
@compute @workgroup_size(LANES)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * LANES + lane;
    if (i < p.n4) {
        store4_gradient_(i, of_four(load4_left(i), load4_right(i)) * (load_cotangent(0u) * p.scale));
    }
}
{% endif %}

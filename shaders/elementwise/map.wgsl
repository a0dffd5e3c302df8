// y = f(x) and dx = dy * f'(x), element by element; f and f' are expressions in x (and y) from the operator's table.
// MASKED: where f' is 0 nothing of dy passes, not even NaN.
// A thread owns one vec4; n4 counts vec4s, the last one may reach into the padding.
{% include "grid.wgsl" %}
{% include "activation.wgsl" %}
{{ input(0, "source", width=4) }}
{% if BACKWARD %}
{{ input(1, "dy", width=4) }}
{{ output(2, "target_", width=4) }}
{% else %}
{{ output(1, "target_", width=4) }}
{% endif %}
{{ params("n4: u32, a: f32, b: f32") }}

fn f(x: f32) -> f32 {
    return {{ FORWARD }};
}

{% if BACKWARD %}
fn df(x: f32) -> f32 {
    let y = f(x);
    return {{ DERIVATIVE }};
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i < p.n4) {
        let x = load4_source(i);
        let slope = vec4<f32>(df(x.x), df(x.y), df(x.z), df(x.w));
        let dx = load4_dy(i) * slope;
        store4_target_(i, {{ "select(dx, vec4<f32>(0.0), slope == vec4<f32>(0.0))" if MASKED else "dx" }});
    }
}
{% else %}
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i < p.n4) {
        let x = load4_source(i);
        store4_target_(i, vec4<f32>(f(x.x), f(x.y), f(x.z), f(x.w)));
    }
}
{% endif %}

// y = alpha * a + beta * b, element by element, in vec4s; n4 counts vec4s (the last one may reach into the padding).
// Where b is a itself, beta is 0 and y is a scaled copy.
{% include "grid.wgsl" %}
{{ input(0, "a", width=4) }}
{{ input(1, "b", width=4) }}
{{ output(2, "y", width=4) }}
{{ params("n4: u32, alpha: f32, beta: f32") }}

@compute @workgroup_size(64)
fn accumulate(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n4) {
        return;
    }
    if (p.beta == 0.0) {
        store4_y(i, p.alpha * load4_a(i));
    } else {
        store4_y(i, p.alpha * load4_a(i) + p.beta * load4_b(i));
    }
}

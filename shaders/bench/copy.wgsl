// A probe: y = x. A workgroup copies LANES * U adjacent vec4s, U a lane, all read before the first is written.
{% include "grid.wgsl" %}
{{ input(0, "x", width=4) }}
{{ output(1, "y", width=4) }}
{{ params("n4: u32") }}

@compute @workgroup_size({{ LANES }})
fn copy(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group_index(wid, nwg) * {{ LANES * U }}u + lane;
    if (first + {{ LANES * (U - 1) }}u >= p.n4) {
        return;
    }
{% for u in range(U) %}
    let v{{ u }} = load4_x(first + {{ LANES * u }}u);
{% endfor %}
{% for u in range(U) %}
    store4_y(first + {{ LANES * u }}u, v{{ u }});
{% endfor %}
}

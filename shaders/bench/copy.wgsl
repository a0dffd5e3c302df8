// A probe: y = x. A workgroup copies `steps` pieces of LANES * U adjacent vec4s one after another, so that starting it does not count; U vec4s a
// lane are read before the first is written.
{% include "grid.wgsl" %}
{{ input(0, "x", width=4) }}
{{ output(1, "y", width=4) }}
{{ params("n4: u32, steps: u32") }}

@compute @workgroup_size({{ LANES }})
fn copy(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let begin = group_index(wid, nwg) * p.steps * {{ LANES * U }}u + lane;
    let end = min(begin + p.steps * {{ LANES * U }}u, p.n4);
    for (var i = begin; i < end; i += {{ LANES * U }}u) {
{% for u in range(U) %}
        let v{{ u }} = load4_x(i + {{ LANES * u }}u);
{% endfor %}
{% for u in range(U) %}
        store4_y(i + {{ LANES * u }}u, v{{ u }});
{% endfor %}
    }
}

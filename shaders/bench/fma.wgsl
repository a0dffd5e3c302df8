// A probe: multiply-adds whose operands stay in registers, x = x f + a again and again. ACC independent chains of vec4s a lane hide the
// latency; U steps are unrolled, so that the loop itself costs nothing. What it does is known in closed form (src/bench/probes.rs), so it is
// also known that no step was skipped.
{% include "grid.wgsl" %}
{{ output(0, "y") }}
{{ params("rounds: u32, factor: f32, addend: f32") }}

@compute @workgroup_size({{ LANES }})
fn fma_registers(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let f = vec4<f32>(p.factor);
    let a = vec4<f32>(p.addend);
{% for i in range(ACC) %}
    var x{{ i }} = vec4<f32>({{ 4 * i }}.0, {{ 4 * i + 1 }}.0, {{ 4 * i + 2 }}.0, {{ 4 * i + 3 }}.0);
{% endfor %}
    for (var r = 0u; r < p.rounds; r++) {
{% for u in range(U) %}
    {% for i in range(ACC) %}
        x{{ i }} = fma(x{{ i }}, f, a);
    {% endfor %}
{% endfor %}
    }
    var sum = x0;
{% for i in range(1, ACC) %}
    sum += x{{ i }};
{% endfor %}
    store_y(group * {{ LANES }}u + lane, sum.x + sum.y + sum.z + sum.w);
}

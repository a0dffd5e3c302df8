// center = momentum * center + (1 - momentum) * mean over rows of teacher [n, d], in place (Caron et al. 2021). A thread owns a column.
{% include "grid.wgsl" %}
{{ inout(0, "center", type="f32") }}
{{ input(1, "teacher") }}
{{ params("n: u32, d: u32, momentum: f32, share: f32") }}

@compute @workgroup_size(64)
fn center_update(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = group_index(wid, nwg) * 64u + lane;
    if (c >= p.d) {
        return;
    }
    var sum = 0.0;
    for (var i = 0u; i < p.n; i += 1u) {
        sum += load_teacher(i * p.d + c);
    }
    store_center(c, p.momentum * load_center(c) + p.share * sum);
}

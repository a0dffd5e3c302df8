// Batch norm by its running statistics: what batch_norm.wgsl's `combine` writes of a batch's, affine [5][c]. A thread owns a channel.
{% include "grid.wgsl" %}
{{ input(0, "weight", type="f32") }}
{{ input(1, "bias", type="f32") }}
{{ input(2, "running_mean", type="f32") }}
{{ input(3, "running_var", type="f32") }}
{{ output(4, "affine", type="f32") }}
{{ params("c: u32, eps: f32") }}

@compute @workgroup_size(64)
fn frozen(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.c) {
        return;
    }
    let inverse = 1.0 / sqrt(load_running_var(i) + p.eps);
    store_affine(i, load_running_mean(i));
    store_affine(p.c + i, 0.0);
    store_affine(2u * p.c + i, inverse);
    store_affine(3u * p.c + i, load_weight(i) * inverse);
    store_affine(4u * p.c + i, load_bias(i));
}

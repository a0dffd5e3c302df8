// dx [outer, length, inner]: the gradient of each picked value at its position, 0 elsewhere. A thread owns an element of dx and looks for its
// position among the k picks, so every element is written once and nothing is scattered.
{% include "grid.wgsl" %}
{{ input(0, "dvalues") }}
{{ input(1, "indices", type="i32") }}
{{ output(2, "dx") }}
{{ params("n: u32, length: u32, inner: u32, k: u32") }}

@compute @workgroup_size(64)
fn topk_backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let line = i / p.inner;
    let position = i32(line % p.length);
    let first = (line / p.length) * p.k * p.inner + i % p.inner;
    var d = 0.0;
    for (var pick = 0u; pick < p.k; pick += 1u) {
        let at = first + pick * p.inner;
        if (load_indices(at) == position) {
            d += load_dvalues(at);
        }
    }
    store_dx(i, d);
}

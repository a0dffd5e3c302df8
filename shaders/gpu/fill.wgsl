// y[i] = word. Any 4-byte element type, bit for bit.
{% include "grid.wgsl" %}
{{ output(0, "y", type="u32") }}
{{ params("n: u32, word: u32") }}

@compute @workgroup_size(256)
fn fill(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 256u + lane;
    if (i < p.n) {
        store_y(i, p.word);
    }
}

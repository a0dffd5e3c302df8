// counts[i] = how many of x[i], x[i + parts], x[i + 2 parts], ... are NaN or infinite (all exponent bits set).
{% include "grid.wgsl" %}
{{ input(0, "x") }}
{{ output(1, "counts", type="i32") }}
{{ params("n: u32, parts: u32") }}

@compute @workgroup_size(64)
fn count(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let part = group_index(wid, nwg) * 64u + lane;
    if (part >= p.parts) {
        return;
    }
    var bad = 0;
    for (var i = part; i < p.n; i += p.parts) {
        if ((bitcast<u32>(load_x(i)) & 0x7f800000u) == 0x7f800000u) {
            bad += 1;
        }
    }
    store_counts(part, bad);
}

// From partial statistics of rows to what the loss and its gradient need of each; loss/mean.wgsl then averages the losses.
//
// partials [count, padded] of (max, sum, positives' sum, positives) to stats [padded] of (max, g / positives, g / sum, 0), g = 1 for rows below
// `rows` that have a positive, else 0, and losses [2][padded] of (log(sum) + (max - positives' sum / positives), g). Maximum and sum are two
// numbers, because one log-sum-exp is rounded to the ulp of a large similarity, a relative error of every weight. A thread owns a row.
{% include "grid.wgsl" %}
{{ input(0, "partials", type="f32", width=4) }}
{{ output(1, "stats", type="f32", width=4) }}
{{ output(2, "losses", type="f32") }}
{{ params("count: u32, padded: u32, rows: u32") }}

@compute @workgroup_size(64)
fn merge(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg) * 64u + lane;
    if (row >= p.padded) {
        return;
    }
    var all = load4_partials(row);
    for (var i = 1u; i < p.count; i += 1u) {
        let part = load4_partials(i * p.padded + row);
        let m = max(all.x, part.x);
        all = vec4<f32>(m, all.y * exp(all.x - m) + part.y * exp(part.x - m), all.z + part.z, all.w + part.w);
    }
    if (row < p.rows && all.w > 0.0) {
        store4_stats(row, vec4<f32>(all.x, 1.0 / all.w, 1.0 / all.y, 0.0));
        store_losses(row, log(all.y) + (all.x - all.z / all.w));
        store_losses(p.padded + row, 1.0);
    } else {
        // So far up that no similarity reaches it: exp(s - max) is 0.
        store4_stats(row, vec4<f32>(3.0e38, 0.0, 0.0, 0.0));
        store_losses(row, 0.0);
        store_losses(p.padded + row, 0.0);
    }
}

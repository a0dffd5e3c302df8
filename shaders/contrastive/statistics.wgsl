// From partial statistics of rows to what the loss and its gradient need of each; loss/mean.wgsl then averages the losses.
//
// partials [count, padded] of (max, sum, positives' sum, positives) to stats [padded] of (max, g / positives, g / sum, 0), g = 1 for rows below
// `rows` that have a positive, else 0, and losses [2][padded] of (log(sum) + (max - positives' sum / positives), g). Maximum and sum are two
// numbers, because one log-sum-exp is rounded to the ulp of a large similarity, a relative error of every weight. LANES threads own a row, one on software drivers, 16 on GPUs: few
// rows would leave most of it idle. Neighbours read neighbouring rows.
{% include "grid.wgsl" %}
{{ input(0, "partials", type="f32", width=4) }}
{{ output(1, "stats", type="f32", width=4) }}
{{ output(2, "losses", type="f32") }}
{{ params("count: u32, padded: u32, rows: u32") }}

fn join(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let m = max(a.x, b.x);
    return vec4<f32>(m, a.y * exp(a.x - m) + b.y * exp(b.x - m), a.z + b.z, a.w + b.w);
}

{% set ROWS = 64 // LANES %}
{% if LANES > 1 %}
{% from "pairwise.wgsl" import pairwise %}
var<workgroup> parts: array<vec4<f32>, 64>;

{% endif %}
@compute @workgroup_size(64)
fn merge(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg) * {{ ROWS }}u + lane % {{ ROWS }}u;
    // Lanes behind the last row, or without partials of their own, only wait for the others.
    var all = vec4<f32>(-3.0e38, 0.0, 0.0, 0.0);
    for (var i = lane / {{ ROWS }}u; i < select(0u, p.count, row < p.padded); i += {{ LANES }}u) {
        all = join(all, load4_partials(i * p.padded + row));
    }
{% if LANES > 1 %}
    parts[lane] = all;
    workgroupBarrier();
    if (lane < {{ ROWS }}u) {
        all = {{ pairwise("parts[lane + # * " ~ ROWS ~ "]", LANES, 0, "join") }};
    }
{% endif %}
    if (lane >= {{ ROWS }}u || row >= p.padded) {
        return;
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

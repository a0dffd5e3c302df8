// From partial statistics to a loss.
//
// merge: partials [count, padded] of (max, sum, positives' sum, positives) to stats [padded] of (log-sum-exp, g / positives, g, loss of the
// row), g = 1 for rows below `rows` that have a positive, else 0: loss = lse - positives' sum / positives. A thread owns a row.
// mean: loss[0] = sum of the rows' losses * weight, weight[0] = 1 / (rows that count); 0 and 0 where none does. One workgroup; each lane
// sums a strided part, all parts are then added in the same order.
{% if ENTRY == "merge" %}
{% include "grid.wgsl" %}
{{ input(0, "partials", type="f32", width=4) }}
{{ output(1, "stats", type="f32", width=4) }}
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
    let lse = all.x + log(all.y);
    if (row < p.rows && all.w > 0.0) {
        store4_stats(row, vec4<f32>(lse, 1.0 / all.w, 1.0, lse - all.z / all.w));
    } else {
        // So far up that no similarity reaches it: exp(s - lse) is 0.
        store4_stats(row, vec4<f32>(3.0e38, 0.0, 0.0, 0.0));
    }
}
{% else %}
{{ input(0, "stats", type="f32", width=4) }}
{{ output(1, "loss", type="f32") }}
{{ output(2, "weight", type="f32") }}
{{ params("rows: u32") }}

var<workgroup> parts: array<vec2<f32>, {{ LANES }}>;

@compute @workgroup_size({{ LANES }})
fn mean(@builtin(local_invocation_index) lane: u32) {
    var part = vec2<f32>(0.0);
    for (var i = lane; i < p.rows; i += {{ LANES }}u) {
        part += load4_stats(i).wz;
    }
    parts[lane] = part;
    workgroupBarrier();
    if (lane == 0u) {
        var sum = vec2<f32>(0.0);
        for (var i = 0u; i < {{ LANES }}u; i += 1u) {
            sum += parts[i];
        }
        let weight = select(0.0, 1.0 / sum.y, sum.y > 0.0);
        store_weight(0u, weight);
        store_loss(0u, sum.x * weight);
    }
}
{% endif %}

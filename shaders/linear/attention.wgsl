// The row-wise parts of scaled dot-product attention (Vaswani et al. 2017); its products are gemm's.
//
// scores [B * H * L, S] are q k^T / sqrt(D). A key is allowed where mask [B, S] is not 0 and, if causal, key <= query. Then
//   forward:  stats [B * H * L] = (m, l), the largest allowed score and the sum over allowed keys of e^(score - m); scores become
//             p = e^(score - m) / l, 0 where not allowed. Two numbers, because one log-sum-exp is rounded to the ulp of a large score,
//             which is a relative error of every p;
//   backward: p is recomputed from scores and stats; with dp = dy v^T, dp becomes the gradient of scores before the scaling by 1 / sqrt(D)
//             (ds = p (dp - sum p dp), times `scale`), and scores become p. Where a p is above a half, the sum is one of p (dp - c), with c
//             its dp: where it is nearly 1, what is left of dp - sum p dp is what the others bring, not the rounding of that p.
// A query without any allowed key has p = 0 and stats 0.
// LANES invocations own a row, one on software drivers, 16 neighbours on GPUs, where they read neighbouring keys; their sums and maxima are joined in order. An
// invocation's sums are those of 32 keys first, and are kept relative to a running maximum (Milakov and Gimelshein 2018), so a row is
// read twice.
{% from "pairwise.wgsl" import pairwise %}
{% include "grid.wgsl" %}
{% if BACKWARD %}
{{ inout(0, "scores") }}
{{ inout(1, "dp") }}
{{ input(2, "stats", type="f32") }}
{% else %}
{{ inout(0, "scores") }}
{{ output(1, "stats", type="f32") }}
{% endif %}
{% if MASK %}
{{ input(3 if BACKWARD else 2, "mask", type="i32") }}
{% endif %}
{{ params("rows: u32, queries: u32, keys: u32, rows_per_batch: u32, causal: u32, scale: f32") }}

// Keys that a query may see, mask aside.
fn visible(row: u32) -> u32 {
    return select(p.keys, min(p.keys, row % p.queries + 1u), p.causal != 0u);
}

fn allowed(row: u32, key: u32) -> bool {
{% if MASK %}
    return load_mask(row / p.rows_per_batch * p.keys + key) != 0;
{% else %}
    return true;
{% endif %}
}

{% if LANES > 1 %}
// What the lanes of the workgroup's rows found: (top, center, total, dot), or (largest, sum).
var<workgroup> parts: array<{{ "vec4<f32>" if BACKWARD else "vec2<f32>" }}, 64>;

{% endif %}
@compute @workgroup_size(64)
fn {{ "backward" if BACKWARD else "forward" }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
    let wanted = group_index(wid, nwg) * {{ 64 // LANES }}u + lane / {{ LANES }}u;
    let row = min(wanted, p.rows - 1u);
    let first = row * p.keys;
{% if LANES > 1 %}
    // Lanes behind the last row only wait for the others.
    let keys = select(0u, p.keys, wanted < p.rows);
{% else %}
    if (wanted >= p.rows) {
        return;
    }
    let keys = p.keys;
{% endif %}
    let seen = min(keys, visible(row));
    let part = lane % {{ LANES }}u;
{% if BACKWARD %}
    let largest = load_stats(2u * row);
    let rate = select(0.0, 1.0 / load_stats(2u * row + 1u), load_stats(2u * row + 1u) > 0.0);
    // Of the keys so far: the sum of p, that of p (dp - center), and the dp of a p above a half, which is the center.
    var total = 0.0;
    var dot = 0.0;
    var top = 0.5;
    var center = 0.0;
    for (var block = part; block < keys; block += {{ 32 * LANES }}u) {
        let end = min(block + {{ 32 * LANES }}u, keys);
        var part_total = 0.0;
        var part_dot = 0.0;
        for (var key = block; key < end; key += {{ LANES }}u) {
            var weight = 0.0;
            if (key < seen && allowed(row, key)) {
                weight = exp(load_scores(first + key) - largest) * rate;
                let dp = load_dp(first + key);
                // An infinite center would make all others NaN.
                if ((weight > top) & (abs(dp) <= 3.4e38)) {
                    dot += total * (center - dp);
                    part_dot += part_total * (center - dp);
                    top = weight;
                    center = dp;
                }
                part_total += weight;
                part_dot += weight * (dp - center);
            }
            store_scores(first + key, weight);
        }
        total += part_total;
        dot += part_dot;
    }
{% if LANES > 1 %}
    parts[lane] = vec4<f32>(top, center, total, dot);
    workgroupBarrier();
    // The center of the row is that of its largest top; the others' sums move to it.
    top = 0.5;
    center = 0.0;
    {% for i in range(LANES) %}
    let part{{ i }} = parts[lane - part + {{ i }}u];
    center = select(center, part{{ i }}.y, part{{ i }}.x > top);
    top = max(top, part{{ i }}.x);
    {% endfor %}
    dot = {{ pairwise("(part#.w + part#.z * (part#.y - center))", LANES) }};
{% endif %}
    for (var key = part; key < keys; key += {{ LANES }}u) {
        store_dp(first + key, load_scores(first + key) * ((load_dp(first + key) - center) - dot) * p.scale);
    }
{% else %}
    var largest = -3.4e38;
    var sum = 0.0;
    for (var block = part; block < seen; block += {{ 32 * LANES }}u) {
        let end = min(block + {{ 32 * LANES }}u, seen);
        var part_sum = 0.0;
        for (var key = block; key < end; key += {{ LANES }}u) {
            if (allowed(row, key)) {
                let score = load_scores(first + key);
                let next = max(largest, score);
                let shrink = exp(largest - next);
                sum *= shrink;
                part_sum = part_sum * shrink + exp(score - next);
                largest = next;
            }
        }
        sum += part_sum;
    }
{% if LANES > 1 %}
    parts[lane] = vec2<f32>(largest, sum);
    workgroupBarrier();
    {% for i in range(LANES) %}
    let part{{ i }} = parts[lane - part + {{ i }}u];
    {% endfor %}
    largest = {{ pairwise("part#.x", LANES, 0, "max") }};
    sum = {{ pairwise("(part#.y * exp(part#.x - largest))", LANES) }};
{% endif %}
    if ({{ "part == 0u && wanted < p.rows" if LANES > 1 else "true" }}) {
        store_stats(2u * row, select(0.0, largest, sum > 0.0));
        store_stats(2u * row + 1u, sum);
    }
    let rate = 1.0 / sum;
    for (var key = part; key < keys; key += {{ LANES }}u) {
        var weight = 0.0;
        if (key < seen && allowed(row, key)) {
            weight = exp(load_scores(first + key) - largest) * rate;
        }
        store_scores(first + key, weight);
    }
{% endif %}
}

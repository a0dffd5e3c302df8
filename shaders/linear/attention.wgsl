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
// An invocation owns a row; sums are those of 32 keys first. The sum is kept relative to a running maximum (Milakov and Gimelshein 2018), so a row is read twice.
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

@compute @workgroup_size(64)
fn {{ "backward" if BACKWARD else "forward" }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg) * 64u + lane;
    if (row >= p.rows) {
        return;
    }
    let first = row * p.keys;
    let seen = visible(row);
{% if BACKWARD %}
    let largest = load_stats(2u * row);
    let rate = select(0.0, 1.0 / load_stats(2u * row + 1u), load_stats(2u * row + 1u) > 0.0);
    // Of the keys so far: the sum of p, that of p (dp - center), and the dp of a p above a half, which is the center.
    var total = 0.0;
    var dot = 0.0;
    var top = 0.5;
    var center = 0.0;
    for (var block = 0u; block < p.keys; block += 32u) {
        let end = min(block + 32u, p.keys);
        var part_total = 0.0;
        var part_dot = 0.0;
        for (var key = block; key < end; key++) {
            var weight = 0.0;
            if (key < seen && allowed(row, key)) {
                weight = exp(load_scores(first + key) - largest) * rate;
                let dp = load_dp(first + key);
                // An infinite center would make all others NaN.
                if (weight > top && abs(dp) <= 3.4e38) {
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
    for (var key = 0u; key < p.keys; key++) {
        store_dp(first + key, load_scores(first + key) * ((load_dp(first + key) - center) - dot) * p.scale);
    }
{% else %}
    var largest = -3.4e38;
    var sum = 0.0;
    for (var block = 0u; block < seen; block += 32u) {
        let end = min(block + 32u, seen);
        var part = 0.0;
        for (var key = block; key < end; key++) {
            if (allowed(row, key)) {
                let score = load_scores(first + key);
                let next = max(largest, score);
                let shrink = exp(largest - next);
                sum *= shrink;
                part = part * shrink + exp(score - next);
                largest = next;
            }
        }
        sum += part;
    }
    store_stats(2u * row, select(0.0, largest, sum > 0.0));
    store_stats(2u * row + 1u, sum);
    let rate = 1.0 / sum;
    for (var key = 0u; key < p.keys; key++) {
        var weight = 0.0;
        if (key < seen && allowed(row, key)) {
            weight = exp(load_scores(first + key) - largest) * rate;
        }
        store_scores(first + key, weight);
    }
{% endif %}
}

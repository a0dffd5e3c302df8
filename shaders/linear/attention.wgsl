// The row-wise parts of scaled dot-product attention (Vaswani et al. 2017); its products are gemm's.
//
// scores [B * H * L, S] are q k^T / sqrt(D). A key is allowed where mask [B, S] is not 0 and, if causal, key <= query. Then
//   forward:  lse = log sum over allowed keys of e^score; scores become p = e^(score - lse), 0 where not allowed;
//   backward: p is recomputed from scores and lse; with dp = dy v^T, dp becomes the gradient of scores before the scaling by 1 / sqrt(D)
//             (ds = p (dp - sum p dp), times `scale`), and scores become p.
// A query without any allowed key has p = 0 and lse = 0.
// An invocation owns a row. The sum is kept relative to a running maximum (Milakov and Gimelshein 2018), so a row is read twice.
{% include "grid.wgsl" %}
{% if BACKWARD %}
{{ inout(0, "scores") }}
{{ inout(1, "dp") }}
{{ input(2, "lse", type="f32") }}
{% else %}
{{ inout(0, "scores") }}
{{ output(1, "lse", type="f32") }}
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
    let row_lse = load_lse(row);
    var dot = 0.0;
    for (var key = 0u; key < p.keys; key++) {
        var weight = 0.0;
        if (key < seen && allowed(row, key)) {
            weight = exp(load_scores(first + key) - row_lse);
            dot += weight * load_dp(first + key);
        }
        store_scores(first + key, weight);
    }
    for (var key = 0u; key < p.keys; key++) {
        store_dp(first + key, load_scores(first + key) * (load_dp(first + key) - dot) * p.scale);
    }
{% else %}
    var largest = -3.4e38;
    var sum = 0.0;
    for (var key = 0u; key < seen; key++) {
        if (allowed(row, key)) {
            let score = load_scores(first + key);
            let next = max(largest, score);
            sum = sum * exp(largest - next) + exp(score - next);
            largest = next;
        }
    }
    let row_lse = select(0.0, largest + log(sum), sum > 0.0);
    store_lse(row, row_lse);
    for (var key = 0u; key < p.keys; key++) {
        var weight = 0.0;
        if (key < seen && allowed(row, key)) {
            weight = exp(load_scores(first + key) - row_lse);
        }
        store_scores(first + key, weight);
    }
{% endif %}
}

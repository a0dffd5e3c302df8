// What both schedules of contrastive/similarity share: bindings, which pairs count, and what becomes of a tile of similarities.
//
// a [rows padded to 64, 4 * k4] and b [columns padded to 64, 4 * k4] hold normalised rows, zero in the padding; s_ij = scale * <a_i, b_j>.
// OUTPUT = "matrix":  y [rows, columns] = s.
// OUTPUT = "sums":    partials [split and lane, padded rows] of each row's (max, sum of exp(s - max), sum of s over positives, positives).
// OUTPUT = "weights": w [padded rows, stride] for the columns first..first + width: the derivative of the loss by s_ij, where
//                     stats [padded rows] holds (max, g / positives, g / sum, 0), g = 1 for rows that count.
// With KEPT, "sums" also writes kept [padded rows, stride] = <a_i, b_j>, and "weights" reads it instead of multiplying again.
// PAIRS = "pairs":  a = b; the positive of i is i +- half; j = i is left out (Chen et al. 2020).
// PAIRS = "labels": a = b; positives are all j with the label of i; j = i is left out (Khosla et al. 2020).
// PAIRS = "queue":  b = [negatives (half rows); positives (one a row)]; the positive of i is half + i, other positives are left out.
// PAIRS = "all":    every pair, for "matrix".
{% include "grid.wgsl" %}
{{ input(0, "a", type="f32", width=4) }}
{{ input(1, "b", type="f32", width=4) }}
{% set labelled = 1 if PAIRS == "labels" else 0 %}
{% if PAIRS == "labels" %}
{{ input(2, "labels", type="i32") }}
{% endif %}
{% if OUTPUT == "weights" %}
{{ input(2 + labelled, "stats", type="f32", width=4) }}
{{ output(3 + labelled, "w", type="f32", width=WIDTH) }}
{% if KEPT %}
{{ input(4 + labelled, "kept", type="f32", width=WIDTH) }}
{% endif %}
{% elif OUTPUT == "sums" %}
{{ output(2 + labelled, "partials", type="f32", width=4) }}
{% if KEPT %}
{{ output(3 + labelled, "kept", type="f32", width=WIDTH) }}
{% endif %}
{% else %}
{{ output(2, "y", type="f32") }}
{% endif %}
{{ params("rows: u32, columns: u32, padded: u32, half: u32, k4: u32, first: u32, tiles: u32, splits: u32, per: u32, stride: u32, scale: f32") }}

const LOWEST = -3.0e38;

{% if PAIRS == "labels" %}
fn label(i: u32) -> i32 {
    return load_labels(min(i, p.rows - 1u));
}
{% endif %}

{% if PAIRS != "all" %}
fn allowed(i: u32, j: vec4<u32>) -> vec4<bool> {
{% if PAIRS == "queue" %}
    return (j < vec4<u32>(p.half)) | (j == vec4<u32>(p.half + i));
{% else %}
    return (j < vec4<u32>(p.columns)) & (j != vec4<u32>(i));
{% endif %}
}

fn positive(i: u32, j: vec4<u32>) -> vec4<bool> {
{% if PAIRS == "queue" %}
    return j == vec4<u32>(p.half + i);
{% elif PAIRS == "pairs" %}
    return (j == vec4<u32>(i + p.half)) | (j + vec4<u32>(p.half) == vec4<u32>(i));
{% else %}
    return vec4<i32>(label(i)) == vec4<i32>(label(j.x), label(j.y), label(j.z), label(j.w));
{% endif %}
}
{% endif %}

{% if OUTPUT == "sums" %}
// Folds four similarities of row i into its running statistics.
fn fold(state: vec4<f32>, i: u32, j: vec4<u32>, similarity: vec4<f32>) -> vec4<f32> {
    let ok = allowed(i, j);
    let s = select(vec4<f32>(LOWEST), p.scale * similarity, ok);
    let m = max(state.x, max(max(s.x, s.y), max(s.z, s.w)));
    let e = select(vec4<f32>(0.0), exp(s - m), ok);
    let both = ok & positive(i, j);
    let one = vec4<f32>(1.0);
    return vec4<f32>(
        m,
        state.y * exp(state.x - m) + dot(e, one),
        state.z + dot(select(vec4<f32>(0.0), s, both), one),
        state.w + dot(select(vec4<f32>(0.0), one, both), one),
    );
}
{% elif OUTPUT == "weights" %}
// What the columns of a tile bring along where a = b: max, g / positives, g / sum.
struct Columns {
    largest: vec4<f32>,
    share: vec4<f32>,
    rate: vec4<f32>,
}

fn columns_of(j: vec4<u32>) -> Columns {
{% if PAIRS == "queue" %}
    return Columns();
{% else %}
    let x = load4_stats(j.x);
    let y = load4_stats(j.y);
    let z = load4_stats(j.z);
    let w = load4_stats(j.w);
    return Columns(vec4<f32>(x.x, y.x, z.x, w.x), vec4<f32>(x.y, y.y, z.y, w.y), vec4<f32>(x.z, y.z, z.z, w.z));
{% endif %}
}

// The loss's derivative by four similarities: each row's softmax minus its positives' share; where a = b, of both rows.
fn weigh(i: u32, j: vec4<u32>, columns: Columns, similarity: vec4<f32>) -> vec4<f32> {
    let ok = allowed(i, j) & vec4<bool>(i < p.rows);
    let s = p.scale * similarity;
    let own = load4_stats(i);
    var w = exp(s - own.x) * own.z;
    var share = vec4<f32>(own.y);
{% if PAIRS != "queue" %}
    w += exp(s - columns.largest) * columns.rate;
    share += columns.share;
{% endif %}
    return select(vec4<f32>(0.0), w - select(vec4<f32>(0.0), share, positive(i, j)), ok);
}
{% else %}
fn store_pairs(i: u32, j: vec4<u32>, similarity: vec4<f32>) {
    if (i < p.rows) {
        let base = i * p.columns;
{% for c in ["x", "y", "z", "w"] %}
        if (j.{{ c }} < p.columns) {
            store_y(base + j.{{ c }}, p.scale * similarity.{{ c }});
        }
{% endfor %}
    }
}
{% endif %}

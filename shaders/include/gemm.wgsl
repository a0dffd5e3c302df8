// What both schedules of gemm share: C[batch] = alpha * A[batch] B[batch] (+ bias), A of M x K, B of K x N, C of M x N.
//
// Element (row, k) of A lies at row * a_x + k * a_k, element (k, column) of B at k * b_k + column * b_x, so the forms NN, NT and TN are
// strides; C is contiguous, [batch, slice, M, N]. The batch has three axes; an operand that is shared along one has step 0 there.
// Tiles of one matrix are numbered in bands of `band` columns of tiles, row by row within a band, so that what neighbours read of B stays in
// a cache.
// A and B say how four elements of an operand are read: "k" one vec4 along k, "x" one vec4 along rows or columns, "s" one by one; on GPUs
// that is "ks" or "xs", by the direction in which memory runs.
// Where K is split, slices are partial sums (CT is f32) that partial_sums.wgsl adds up.
{% include "grid.wgsl" %}
{{ input(0, "a", type=AT, width=4) }}
{{ input(1, "b", type=BT, width=4) }}
{{ output(2, "c", type=CT, width=C) }}
{% if BIAS %}
{{ input(3, "bias", type="f32") }}
{% endif %}
{{ params("m: u32, n: u32, k: u32, a_x: u32, a_k: u32, b_x: u32, b_k: u32, tiles_m: u32, tiles_n: u32, tiles: u32, band: u32, slices: u32, slice_k: u32, batch1: u32, batch2: u32, a0: u32, a1: u32, a2: u32, b0: u32, b1: u32, b2: u32, alpha: f32, nothing: f32") }}

// Where a tile starts: its row and column in tiles, its range of k, and the first elements of its matrices.
struct Tile {
    row: u32,
    column: u32,
    first_k: u32,
    end_k: u32,
    a: u32,
    b: u32,
    c: u32,
}

fn locate(index: u32) -> Tile {
    let matrix = p.tiles_m * p.tiles_n;
    let slice = index / matrix;
    let rest = index - slice * matrix;
    let band = rest / (p.tiles_m * p.band);
    let first = band * p.band;
    let width = min(p.band, p.tiles_n - first);
    let inside = rest - first * p.tiles_m;
    let row = inside / width;
    let column = first + inside - row * width;
    let batch = slice / p.slices;
    let i2 = batch % p.batch2;
    let i1 = batch / p.batch2 % p.batch1;
    let i0 = batch / p.batch2 / p.batch1;
    let first_k = slice % p.slices * p.slice_k;
    let a = i0 * p.a0 + i1 * p.a1 + i2 * p.a2;
    let b = i0 * p.b0 + i1 * p.b1 + i2 * p.b2;
    return Tile(row, column, first_k, min(p.k, first_k + p.slice_k), a, b, slice * p.m * p.n);
}

// Stores four columns of a row; c is the matrix's first element. Nothing is written outside the matrix.
fn put(c_first: u32, row: u32, column: u32, sum: vec4<f32>) {
    if (row >= p.m || column >= p.n) {
        return;
    }
    let at = c_first + row * p.n + column;
{% if C == 4 %}
    {% set biases = "vec4<f32>(load_bias(column), load_bias(column + 1u), load_bias(column + 2u), load_bias(column + 3u))" %}
    store4_c(at >> 2u, p.alpha * sum{% if BIAS %} + {{ biases }}{% endif %});
{% else %}
    {% for j in range(4) %}
    if (column + {{ j }}u < p.n) {
        store_c(at + {{ j }}u, p.alpha * sum[{{ j }}]{% if BIAS %} + load_bias(column + {{ j }}u){% endif %});
    }
    {% endfor %}
{% endif %}
}

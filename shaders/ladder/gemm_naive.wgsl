// C = A B, first step of the ladder: a thread an element, as the definition says.
//
//     c[i, j] = sum over k of a[i, k] b[k, j]        a [m, k], b [k, n], c [m, n], row after row
//
// A thread walks a row of A and a column of B: two reads for each multiply-add. Neighbouring
// threads own neighbouring columns, so they read one element of A and neighbours of B together;
// a thread a row would make each of them fetch lines of memory of its own.
//
// What is wasted: n threads read the same row of A, and m threads the same column of B. The next
// step, gemm_tiled.wgsl, fetches them once for 16 threads.
//
// The sum has k terms one after another, so its rounding error grows with k. The engine's kernels
// add up short blocks and then the blocks.
{% include "grid.wgsl" %}
{{ input(0, "a") }}
{{ input(1, "b") }}
{{ output(2, "c") }}
{{ params("m: u32, k: u32, n: u32") }}

@compute @workgroup_size(64)
fn gemm(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_index) lane: u32) {
    let element = group_index(wid, nwg) * 64u + lane;
    // The last workgroup has threads to spare.
    if (element >= p.m * p.n) {
        return;
    }
    let row = element / p.n;
    let column = element % p.n;
    var sum = 0.0;
    for (var k = 0u; k < p.k; k += 1u) {
        sum += load_a(row * p.k + k) * load_b(k * p.n + column);
    }
    store_c(element, sum);
}

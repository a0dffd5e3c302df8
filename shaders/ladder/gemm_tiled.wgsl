// C = A B, second step of the ladder: tiles in workgroup memory.
//
//     c[i, j] = sum over k of a[i, k] b[k, j]        a [m, k], b [k, n], c [m, n], row after row
//
// A workgroup of 16 x 16 threads owns 16 x 16 elements of C, one a thread, and walks k by 16. For
// each 16 k every thread fetches one element of A and one of B into memory that the workgroup
// shares; then each takes 16 multiply-adds from there. So an element is fetched from far away once
// for 16 threads instead of once for each: a sixteenth of the traffic of gemm_naive.wgsl.
//
// The first barrier: no thread reads the tiles before all of them are there. The second: no thread
// overwrites them before all have read. Elements beyond an edge are 0, which adds nothing.
//
// What is still wasted: two reads of shared memory for each multiply-add. The engine's kernels keep
// more elements a thread in registers: 4 x 4 of them need 8 reads for 16 multiply-adds
// (linear/gemm_gpu.wgsl). And on a driver that runs on a processor, workgroup memory is memory
// like any other, and a barrier costs more than it saves (linear/gemm_software.wgsl).
{% include "grid.wgsl" %}
{{ input(0, "a") }}
{{ input(1, "b") }}
{{ output(2, "c") }}
{{ params("m: u32, k: u32, n: u32") }}

var<workgroup> a_tile: array<f32, 256>;
var<workgroup> b_tile: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn gemm(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_id) at: vec3u) {
    let group = group_index(wid, nwg);
    // A whole workgroup leaves or none of it: barriers must be reached by all.
    if (group >= p.groups) {
        return;
    }
    let tiles = (p.n + 15u) / 16u;
    let row = group / tiles * 16u + at.y;
    let column = group % tiles * 16u + at.x;
    let mine = at.y * 16u + at.x;
    var sum = 0.0;
    for (var first = 0u; first < p.k; first += 16u) {
        var a = 0.0;
        if (row < p.m && first + at.x < p.k) {
            a = load_a(row * p.k + first + at.x);
        }
        var b = 0.0;
        if (first + at.y < p.k && column < p.n) {
            b = load_b((first + at.y) * p.n + column);
        }
        a_tile[mine] = a;
        b_tile[mine] = b;
        workgroupBarrier();
        for (var k = 0u; k < 16u; k += 1u) {
            sum += a_tile[at.y * 16u + k] * b_tile[k * 16u + at.x];
        }
        workgroupBarrier();
    }
    if (row < p.m && column < p.n) {
        store_c(row * p.n + column, sum);
    }
}

// The gradient of a broadcast: dx[i] = sum over the repeated axes of dy.
//
// dx element e (n of them) starts in dy at place(e); the repeated axes are at most three runs of r0 x r1 x r2 elements at strides q0, q1, q2.
// The outermost run is cut into slabs of `chunk`: y is [slabs, n], and a second launch of this kernel sums the slabs. A thread owns an element.
{% set BOUNDED = false %}
{% include "grid.wgsl" %}
{{ input(0, "x", type=SOURCE) }}
{{ output(1, "y", type=TARGET) }}
{{ params("n: u32, slabs: u32, chunk: u32, r0: u32, r1: u32, r2: u32, q0: u32, q1: u32, q2: u32, s0: u32, s1: u32, s2: u32, s3: u32, s4: u32, s5: u32, t0: u32, t1: u32, t2: u32, t3: u32, t4: u32, t5: u32") }}
{% include "strided.wgsl" %}

@compute @workgroup_size(64)
fn sum(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n * p.slabs) {
        return;
    }
    let slab = i / p.n;
    let start = place(i - slab * p.n).offset;
    let last = min((slab + 1u) * p.chunk, p.r0);
    var total = 0.0;
    for (var a = slab * p.chunk; a < last; a += 1u) {
        for (var b = 0u; b < p.r1; b += 1u) {
            var at = start + a * p.q0 + b * p.q1;
            for (var c = 0u; c < p.r2; c += 1u) {
                total += load_x(at);
                at += p.q2;
            }
        }
    }
    store_y(i, total);
}

// Reflection about the first and last element of one axis, without repeating them: y[o, j, i] = x[o, r(j - low), i] with r(k) = -k before
// the first, 2 (size - 1) - k behind the last. low and high are less than size, so each element of x is read at most three times.
//
// x: [outer, size, inner], y: [outer, low + size + high, inner]; W = 4 counts vec4s along inner. The gradient gathers: for each element of
// dx its own place, its image before the first, its image behind the last, in this order. A thread owns an element of what is written.
{% include "grid.wgsl" %}
{{ input(0, "x", width=W) }}
{{ output(1, "y", width=W) }}
{{ params("n: u32, size: u32, low: u32, padded: u32, inner: u32") }}
{% set wide = "4" if W == 4 else "" %}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.inner;
    let o = row / p.padded;
    let j = i32(row - o * p.padded) - i32(p.low);
    let last = i32(p.size) - 1;
    let k = u32(last - abs(last - abs(j)));
    store{{ wide }}_y(i, load{{ wide }}_x((o * p.size + k) * p.inner + (i - row * p.inner)));
}

{% if T != "i32" %}
// Here x is dy and y is dx.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    let row = i / p.inner;
    let o = row / p.size;
    let k = row - o * p.size;
    let start = o * p.padded * p.inner + (i - row * p.inner);
    var sum = load{{ wide }}_x(start + (p.low + k) * p.inner);
    if (k >= 1u && k <= p.low) {
        sum += load{{ wide }}_x(start + (p.low - k) * p.inner);
    }
    let behind = p.low + 2u * (p.size - 1u) - k;
    if (k + 1u < p.size && behind < p.padded) {
        sum += load{{ wide }}_x(start + behind * p.inner);
    }
    store{{ wide }}_y(i, sum);
}
{% endif %}

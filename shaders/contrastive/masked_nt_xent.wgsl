// NT-Xent from stored similarities, all [n, n] and divided by the temperature: s11 and s22 within each view, s12 between the two. Row i of the
// whole 2n x 2n matrix is (s11[i, :] without i, s12[i, :]), row n + i is (s12[:, i], s22[i, :] without i); its positive is s12[i, i].
//
// rows: stats [2n] of (max, 1 / sum, 0, loss of the row), from an online max and sum; LANES threads own a row, one on software drivers, 16
// neighbours on GPUs, where they read neighbouring elements.
// backward: the gradient dy [n, n] of s11 (PART 0), s12 (1) or s22 (2): (softmax of each row that holds the element, less 1 at a positive)
// * loss_gradient[0] / 2n; a thread owns an element.
{% include "grid.wgsl" %}
{% if ENTRY == "rows" %}
{{ input(0, "s11", type="f32") }}
{{ input(1, "s12", type="f32") }}
{{ input(2, "s22", type="f32") }}
{{ output(3, "stats", type="f32", width=4) }}
{{ params("n: u32") }}

fn fold(state: vec2<f32>, s: f32) -> vec2<f32> {
    let m = max(state.x, s);
    return vec2<f32>(m, state.y * exp(state.x - m) + exp(s - m));
}

{% if LANES > 1 %}
{% from "pairwise.wgsl" import pairwise %}
var<workgroup> parts: array<vec2<f32>, 64>;

{% endif %}
@compute @workgroup_size(64)
fn rows(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let wanted = group_index(wid, nwg) * {{ 64 // LANES }}u + lane / {{ LANES }}u;
{% if LANES > 1 %}
    // Lanes behind the last row only wait for the others.
    let row = min(wanted, 2u * p.n - 1u);
{% else %}
    let row = wanted;
    if (row >= 2u * p.n) {
        return;
    }
{% endif %}
    let second = row >= p.n;
    let i = select(row, row - p.n, second);
    let part = lane % {{ LANES }}u;
    let positive = load_s12(i * p.n + i);
    // From a finite number: exp(-inf - -inf) is NaN.
    var state = vec2<f32>(-3.4028234e38, 0.0);
    for (var j = part; j < p.n; j += {{ LANES }}u) {
        if (second) {
            state = fold(state, load_s12(j * p.n + i));
        } else {
            state = fold(state, load_s12(i * p.n + j));
        }
        if (j != i) {
            if (second) {
                state = fold(state, load_s22(i * p.n + j));
            } else {
                state = fold(state, load_s11(i * p.n + j));
            }
        }
    }
{% if LANES > 1 %}
    parts[lane] = state;
    workgroupBarrier();
    {% for i in range(LANES) %}
    let part{{ i }} = parts[lane - part + {{ i }}u];
    {% endfor %}
    state.x = {{ pairwise("part#.x", LANES, 0, "max") }};
    state.y = {{ pairwise("(part#.y * exp(part#.x - state.x))", LANES) }};
{% endif %}
    if ({{ "part == 0u && wanted < 2u * p.n" if LANES > 1 else "true" }}) {
        store4_stats(row, vec4<f32>(state.x, 1.0 / state.y, 0.0, log(state.y) + (state.x - positive)));
    }
}
{% else %}
{{ input(0, "s", type="f32") }}
{{ input(1, "stats", type="f32", width=4) }}
{{ input(2, "loss_gradient", type="f32") }}
{{ output(3, "dy", type="f32") }}
{{ params("n: u32") }}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group_index(wid, nwg) * 64u + lane;
    if (index >= p.n * p.n) {
        return;
    }
    let i = index / p.n;
    let j = index % p.n;
    let s = load_s(index);
    let own = load4_stats({{ "p.n + " if PART == 2 else "" }}i);
    let probability = exp(s - own.x) * own.y;
{% if PART == 1 %}
    let other = load4_stats(p.n + j);
    let value = probability + exp(s - other.x) * other.y - select(0.0, 2.0, i == j);
{% else %}
    let value = select(0.0, probability, i != j);
{% endif %}
    store_dy(index, value * load_loss_gradient(0u) / f32(2u * p.n));
}
{% endif %}

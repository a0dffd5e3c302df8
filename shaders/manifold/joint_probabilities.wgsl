// t-SNE's joint probabilities (van der Maaten and Hinton 2008) of squared distances d [N, N], symmetric:
//     P_j|i = exp(-b_i d_ij) / Z_i  (0 for j = i),  with b_i such that the entropy of P_.|i is p.entropy,  y_ij = (P_j|i + P_i|j) / 2N
//
// b is searched by bisection, a step a dispatch: a whole search in one invocation would be a longer walk than llvmpipe runs. As d is
// symmetric, a thread owns VEC columns and walks down the rows: neighbours read neighbours. `state` has six rows of N numbers: 0 and 1
// bound b (0: no bound yet), 2 is the next b, 3 the distance to the nearest neighbour, which is taken off all others so that exp never
// loses them all, 4 the b that was looked at last, 5 its Z.
{% include "grid.wgsl" %}
{% set wide = "4" if VEC == 4 else "" %}
{% set float = "vec4<f32>" if VEC == 4 else "f32" %}
{% set uint = "vec4<u32>" if VEC == 4 else "u32" %}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept(float) }}
{{ input(0, "d", width=VEC) }}
{{ inout(1, "state", width=VEC) }}
{{ output(2, "y", width=VEC) }}
{{ params("n: u32, entropy: f32") }}

const LARGEST: f32 = 3e38;

fn columns(i: u32) -> {{ uint }} {
    return {{ "vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u)" if VEC == 4 else "i" }};
}

// exp of what is at most 0, and surely 0 where it is far below.
fn decay(x: {{ float }}) -> {{ float }} {
    return select(exp(maximum(x, {{ float }}(-80.0))), {{ float }}(0.0), x < {{ float }}(-80.0));
}

@compute @workgroup_size(64)
fn begin(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    let stride = p.n / {{ VEC }}u;
    if (i >= stride) {
        return;
    }
    var nearest = {{ float }}(LARGEST);
    var sum = {{ float }}(0.0);
    for (var j = 0u; j < p.n; j += 1u) {
        let own = columns(i) == {{ uint }}(j);
        let d = load{{ wide }}_d(j * stride + i);
        nearest = min(nearest, select(d, {{ float }}(LARGEST), own));
        sum += select(d, {{ float }}(0.0), own);
    }
    let mean = sum / f32(p.n - 1u) - nearest;
    store{{ wide }}_state(i, {{ float }}(0.0));
    store{{ wide }}_state(stride + i, {{ float }}(0.0));
    store{{ wide }}_state(2u * stride + i, select({{ float }}(1.0), 1.0 / mean, mean > {{ float }}(1e-30)));
    store{{ wide }}_state(3u * stride + i, nearest);
}

@compute @workgroup_size(64)
fn search(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    let stride = p.n / {{ VEC }}u;
    if (i >= stride) {
        return;
    }
    let low = load{{ wide }}_state(i);
    let high = load{{ wide }}_state(stride + i);
    let b = load{{ wide }}_state(2u * stride + i);
    let nearest = load{{ wide }}_state(3u * stride + i);
    var z = {{ float }}(0.0);
    var sum = {{ float }}(0.0);
    for (var j = 0u; j < p.n; j += 1u) {
        let further = load{{ wide }}_d(j * stride + i) - nearest;
        let w = select(decay(-b * further), {{ float }}(0.0), columns(i) == {{ uint }}(j));
        z += w;
        sum += w * further;
    }
    let flat = log(z) + b * sum / z > {{ float }}(p.entropy);
    let steeper = select(0.5 * (b + high), min(2.0 * b, {{ float }}(1e30)), high == {{ float }}(0.0));
    store{{ wide }}_state(i, select(low, b, flat));
    store{{ wide }}_state(stride + i, select(b, high, flat));
    store{{ wide }}_state(2u * stride + i, select(0.5 * (low + b), steeper, flat));
    store{{ wide }}_state(4u * stride + i, b);
    store{{ wide }}_state(5u * stride + i, z);
}

@compute @workgroup_size(64)
fn join(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = group_index(wid, nwg) * 64u + lane;
    let stride = p.n / {{ VEC }}u;
    if (at >= p.n * stride) {
        return;
    }
    let j = at / stride;
    let i = at % stride;
    let d = load{{ wide }}_d(at);
    let own = decay(-load{{ wide }}_state(4u * stride + i) * (d - load{{ wide }}_state(3u * stride + i))) / load{{ wide }}_state(5u * stride + i);
    let other = decay(-load_state(4u * p.n + j) * (d - load_state(3u * p.n + j))) / load_state(5u * p.n + j);
    store{{ wide }}_y(at, select((own + other) / (2.0 * f32(p.n)), {{ float }}(0.0), columns(i) == {{ uint }}(j)));
}

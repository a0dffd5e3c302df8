// softmax y = exp((x - m) / T) / l and log_softmax y = (x - m) / T - log(l), with m = max(x) and l = sum(exp((x - m) / T)) along one axis.
// Backward: dx = y (dy - sum(dy y)) / T, and dx = (dy - exp(y) sum(dy)) / T.
//
// x [outer, n, inner]. A thread owns a row (all n for one outer and inner index) and needs neither barrier nor workgroup memory. m and l come from
// one walk: whenever m grows, l is rescaled (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"), once in four items.
// VEC "rows":    inner is 1 and an item is four neighbours of the row; n counts vec4s;
//     "columns": an item is one step of four neighbouring rows (a vec4 of `inner`); inner counts vec4s;
//     "none":    an item is one value.
{% include "grid.wgsl" %}
alias V = {{ "f32" if VEC == "none" else "vec4<f32>" }};
alias F = {{ "vec4<f32>" if VEC == "columns" else "f32" }};
{% set wide = 1 if VEC == "none" else 4 %}
{% set load = "load_" if VEC == "none" else "load4_" %}
{% set store = "store_" if VEC == "none" else "store4_" %}
{% if BACKWARD %}
{{ input(0, "y", width=wide) }}
{{ input(1, "dy", width=wide) }}
{{ output(2, "dx", width=wide) }}
{% else %}
{{ input(0, "x", width=wide) }}
{{ output(1, "y", width=wide) }}
{% endif %}
{{ params("rows: u32, n: u32, inner: u32, rate: f32") }}

fn sum(v: V) -> F {
    return {{ "(v.x + v.y) + (v.z + v.w)" if VEC == "rows" else "v" }};
}

fn top(v: V) -> F {
    return {{ "max(max(v.x, v.y), max(v.z, v.w))" if VEC == "rows" else "v" }};
}

@compute @workgroup_size(64)
fn {{ "backward" if BACKWARD else "forward" }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(wid, nwg) * 64u + lane;
    if (row >= p.rows) {
        return;
    }
    let first = (row / p.inner) * p.n * p.inner + row % p.inner;
    let end = first + p.n * p.inner;
    let step = p.inner;
    var at = first;
{% if BACKWARD %}
    {% for k in range(4) %}
    var s{{ k }} = V(0.0);
    {% endfor %}
    while (at + 3u * step < end) {
        {% for k in range(4) %}
        s{{ k }} += {{ load }}dy(at + {{ k }}u * step){% if not LOG %} * {{ load }}y(at + {{ k }}u * step){% endif %};
        {% endfor %}
        at += 4u * step;
    }
    while (at < end) {
        s0 += {{ load }}dy(at){% if not LOG %} * {{ load }}y(at){% endif %};
        at += step;
    }
    let s = V(sum((s0 + s1) + (s2 + s3)));
    at = first;
    while (at < end) {
        let y = {{ load }}y(at);
        {{ store }}dx(at, {% if LOG %}({{ load }}dy(at) - exp(y) * s){% else %}y * ({{ load }}dy(at) - s){% endif %} * p.rate);
        at += step;
    }
{% else %}
    var m = F(-3.4028234e38);
    var l = V(0.0);
    while (at + 3u * step < end) {
        {% for k in range(4) %}
        let v{{ k }} = {{ load }}x(at + {{ k }}u * step);
        {% endfor %}
        let larger = max(m, top(max(max(v0, v1), max(v2, v3))));
        let w = V(larger);
        l = l * V(exp((m - larger) * p.rate)) + ((exp((v0 - w) * p.rate) + exp((v1 - w) * p.rate)) + (exp((v2 - w) * p.rate) + exp((v3 - w) * p.rate)));
        m = larger;
        at += 4u * step;
    }
    while (at < end) {
        let v = {{ load }}x(at);
        let larger = max(m, top(v));
        l = l * V(exp((m - larger) * p.rate)) + exp((v - V(larger)) * p.rate);
        m = larger;
        at += step;
    }
    let w = V(m);
    {% if LOG %}
    let shift = V(log(sum(l)));
    {% else %}
    let scale = V(F(1.0) / sum(l));
    {% endif %}
    at = first;
    while (at < end) {
        let v = ({{ load }}x(at) - w) * p.rate;
        {{ store }}y(at, {{ "v - shift" if LOG else "exp(v) * scale" }});
        at += step;
    }
{% endif %}
}

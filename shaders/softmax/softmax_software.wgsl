// softmax y = exp((x - m) / T) / l and log_softmax y = (x - m) / T - log(l), with m = max(x) and l = sum(exp((x - m) / T)) along one axis.
// Backward: dx = y (dy - sum(dy y)) / T, and dx = (dy - exp(y) sum(dy)) / T. Where a y is above a half, the first sum is one of y (dy - c), with c
// its dy: where it is nearly 1, what is left of dy - sum(dy y) is what the others bring, not the rounding of that y.
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

{% if BACKWARD and not LOG %}
{% include "softmax.wgsl" %}

// The center and the sum of a row, of those of its {{ "four parts" if VEC == "rows" else "only part" }}.
fn join(a: Sum) -> array<F, 2> {
    {% if VEC == "rows" %}
    let top = max(max(a.top.x, a.top.y), max(a.top.z, a.top.w));
    let center = select(select(select(a.center.w, a.center.z, a.top.z == top), a.center.y, a.top.y == top), a.center.x, a.top.x == top);
    return array<F, 2>(center, sum(a.dot + a.total * (a.center - V(center))));
    {% else %}
    return array<F, 2>(a.center, a.dot);
    {% endif %}
}
{% endif %}

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
{% if BACKWARD and LOG %}
    {% for k in range(4) %}
    var s{{ k }} = V(0.0);
    {% endfor %}
    while (at + 3u * step < end) {
        {% for k in range(4) %}
        s{{ k }} += {{ load }}dy(at + {{ k }}u * step);
        {% endfor %}
        at += 4u * step;
    }
    while (at < end) {
        s0 += {{ load }}dy(at);
        at += step;
    }
    let s = V(sum((s0 + s1) + (s2 + s3)));
    at = first;
    while (at < end) {
        {{ store }}dx(at, ({{ load }}dy(at) - exp({{ load }}y(at)) * s) * p.rate);
        at += step;
    }
{% elif BACKWARD %}
    var all = nothing();
    while (at + 3u * step < end) {
        {% for k in range(4) %}
        let y{{ k }} = {{ load }}y(at + {{ k }}u * step);
        let dy{{ k }} = {{ load }}dy(at + {{ k }}u * step);
        {% endfor %}
        all = add_four(all, {% for k in range(4) %}y{{ k }}, dy{{ k }}, {% endfor %});
        at += 4u * step;
    }
    while (at < end) {
        all = add_one(all, {{ load }}y(at), {{ load }}dy(at));
        at += step;
    }
    let joined = join(all);
    let center = V(joined[0]);
    let s = V(joined[1]);
    at = first;
    while (at < end) {
        {{ store }}dx(at, {{ load }}y(at) * (({{ load }}dy(at) - center) - s) * p.rate);
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

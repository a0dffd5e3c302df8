// softmax, log_softmax and their gradients along the last axis for GPUs: the formulas are those of softmax_software.wgsl.
//
// x [rows, n]; a workgroup of 128 lanes owns a row, lane i its items i, i + 128, .. (V: four neighbours where n is a multiple of 4, else one; n counts
// items). A row of up to 1,024 values stays in registers (ITEMS a lane) between one read and one write. A longer one (ITEMS 0) is walked twice:
// first each lane's largest value and sum, rescaled whenever the former grows (Milakov and Gimelshein 2018), then the result.
// Lanes are joined in workgroup memory in two steps with a barrier each, always in the same order: 8 lanes join 16 values each, and then every
// lane joins these 8. A tree would take 8 barriers.
{% from "pairwise.wgsl" import pairwise %}
{% include "grid.wgsl" %}
alias V = {{ "vec4<f32>" if WIDE else "f32" }};
{% set wide = 4 if WIDE else 1 %}
{% set load = "load4_" if WIDE else "load_" %}
{% set store = "store4_" if WIDE else "store_" %}
{% if BACKWARD %}
{{ input(0, "y", width=wide) }}
{{ input(1, "dy", width=wide) }}
{{ output(2, "dx", width=wide) }}
{% else %}
{{ input(0, "x", width=wide) }}
{{ output(1, "y", width=wide) }}
{% endif %}
{{ params("n: u32, rate: f32") }}

fn sum(v: V) -> f32 {
    return {{ "(v.x + v.y) + (v.z + v.w)" if WIDE else "v" }};
}

fn top(v: V) -> f32 {
    return {{ "max(max(v.x, v.y), max(v.z, v.w))" if WIDE else "v" }};
}

{% macro join(name, type, op, what) %}
var<workgroup> {{ name }}_lanes: array<{{ type }}, 128>;
var<workgroup> {{ name }}_joined: array<{{ type }}, 8>;

// {{ what }}, for all lanes.
fn {{ name }}(lane: u32, v: {{ type }}) -> {{ type }} {
    {{ name }}_lanes[lane] = v;
    workgroupBarrier();
    if (lane < 8u) {
        {{ name }}_joined[lane] = {{ pairwise(name ~ "_lanes[lane + # * 8u]", 16, 0, op) }};
    }
    workgroupBarrier();
    return {{ pairwise(name ~ "_joined[#]", 8, 0, op) }};
}

{% endmacro %}
{{ join("add", "f32", "+", "The lanes' values added") }}
{% if not BACKWARD %}
{{ join("larger", "f32", "max", "The largest of the lanes' values") }}
{% elif not LOG %}
{% include "softmax.wgsl" %}

fn upper(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return select(a, b, b.x > a.x);
}

{{ join("uppermost", "vec2<f32>", "upper", "The (top, center) of the lane with the largest top, of equal ones always the same") }}
// The dy of the largest of a lane's own.
fn center_in(a: Sum) -> f32 {
    {% if WIDE %}
    let top = max(max(a.top.x, a.top.y), max(a.top.z, a.top.w));
    return select(select(select(a.center.w, a.center.z, a.top.z == top), a.center.y, a.top.y == top), a.center.x, a.top.x == top);
    {% else %}
    return a.center;
    {% endif %}
}
{% endif %}
@compute @workgroup_size(128)
fn {{ "backward" if BACKWARD else "forward" }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let first = group * p.n;
{% if BACKWARD and not LOG %}
    var all = nothing();
    {% if ITEMS %}
    {% for k in range(ITEMS) %}
    let i{{ k }} = lane + {{ 128 * k }}u;
    let at{{ k }} = first + min(i{{ k }}, p.n - 1u);
    let y{{ k }} = select(V(0.0), {{ load }}y(at{{ k }}), i{{ k }} < p.n);
    let dy{{ k }} = select(V(0.0), {{ load }}dy(at{{ k }}), i{{ k }} < p.n);
    all = add_one(all, y{{ k }}, dy{{ k }});
    {% endfor %}
    {% else %}
    for (var i = lane; i < p.n; i += 128u) {
        all = add_one(all, {{ load }}y(first + i), {{ load }}dy(first + i));
    }
    {% endif %}
    let center = V(uppermost(lane, vec2<f32>(top(all.top), center_in(all))).y);
    let s = V(add(lane, sum(all.dot + all.total * (all.center - center))));
    {% if ITEMS %}
    {% for k in range(ITEMS) %}
    if (i{{ k }} < p.n) {
        {{ store }}dx(at{{ k }}, y{{ k }} * ((dy{{ k }} - center) - s) * p.rate);
    }
    {% endfor %}
    {% else %}
    for (var i = lane; i < p.n; i += 128u) {
        {{ store }}dx(first + i, {{ load }}y(first + i) * (({{ load }}dy(first + i) - center) - s) * p.rate);
    }
    {% endif %}
{% elif BACKWARD %}
    var part = V(0.0);
    {% if ITEMS %}
    {% for k in range(ITEMS) %}
    let i{{ k }} = lane + {{ 128 * k }}u;
    let at{{ k }} = first + min(i{{ k }}, p.n - 1u);
    let y{{ k }} = {{ load }}y(at{{ k }});
    let dy{{ k }} = {{ load }}dy(at{{ k }});
    part += select(V(0.0), dy{{ k }}, i{{ k }} < p.n);
    {% endfor %}
    {% else %}
    for (var i = lane; i < p.n; i += 128u) {
        part += {{ load }}dy(first + i);
    }
    {% endif %}
    let s = V(add(lane, sum(part)));
    {% if ITEMS %}
    {% for k in range(ITEMS) %}
    if (i{{ k }} < p.n) {
        {{ store }}dx(at{{ k }}, (dy{{ k }} - exp(y{{ k }}) * s) * p.rate);
    }
    {% endfor %}
    {% else %}
    for (var i = lane; i < p.n; i += 128u) {
        let y = {{ load }}y(first + i);
        let dy = {{ load }}dy(first + i);
        {{ store }}dx(first + i, (dy - exp(y) * s) * p.rate);
    }
    {% endif %}
{% else %}
    {% if ITEMS %}
    {% for k in range(ITEMS) %}
    let i{{ k }} = lane + {{ 128 * k }}u;
    let at{{ k }} = first + min(i{{ k }}, p.n - 1u);
    let v{{ k }} = select(V(-3.4028234e38), {{ load }}x(at{{ k }}), i{{ k }} < p.n);
    {% endfor %}
    var largest = v0;
    {% for k in range(1, ITEMS) %}
    largest = max(largest, v{{ k }});
    {% endfor %}
    let m = larger(lane, top(largest));
    var part = V(0.0);
    {% for k in range(ITEMS) %}
    let e{{ k }} = {{ "(v" ~ k ~ " - V(m)) * p.rate" if LOG else "exp((v" ~ k ~ " - V(m)) * p.rate)" }};
    part += select(V(0.0), {{ "exp(e" ~ k ~ ")" if LOG else "e" ~ k }}, i{{ k }} < p.n);
    {% endfor %}
    let l = add(lane, sum(part));
    {% else %}
    var m_lane = -3.4028234e38;
    var part = V(0.0);
    for (var i = lane; i < p.n; i += 128u) {
        let v = {{ load }}x(first + i);
        let new_m = max(m_lane, top(v));
        part = part * exp((m_lane - new_m) * p.rate) + exp((v - V(new_m)) * p.rate);
        m_lane = new_m;
    }
    let m = larger(lane, m_lane);
    let l = add(lane, sum(part) * exp((m_lane - m) * p.rate));
    {% endif %}
    {% if LOG %}
    let shift = log(l);
    {% else %}
    let scale = 1.0 / l;
    {% endif %}
    {% if ITEMS %}
    {% for k in range(ITEMS) %}
    if (i{{ k }} < p.n) {
        {{ store }}y(at{{ k }}, e{{ k }} {{ "- shift" if LOG else "* scale" }});
    }
    {% endfor %}
    {% else %}
    for (var i = lane; i < p.n; i += 128u) {
        let v = ({{ load }}x(first + i) - V(m)) * p.rate;
        {{ store }}y(first + i, {{ "v - shift" if LOG else "exp(v) * scale" }});
    }
    {% endif %}
{% endif %}
}

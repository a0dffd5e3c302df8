// y = f(operands), element by element, where operands broadcast to the shape of y: f is an expression of the operands' names. There may be several
// results of one shape (RESULTS, an expression each), and STATEMENTS before them; both may use the functions of MAPS (map_NAME(x) and, dy times its slope, back_NAME(dy, x, y))
// and of PAIRS (pair_NAME(a, b) and, times dy, its two slopes).
//
// The host folds axes that all operands walk alike, so that y is seen as AXES axes of sizes d0, d1, .. (the last innermost) and an
// operand as one step along each (0: it does not have the axis; operands that walk alike share a SET of steps). A thread owns four
// neighbours along the last axis (V is vec4; sizes and steps count vec4s), or one element where that axis is no multiple of 4 (V is f32).
// An operand that moves along the last axis is read as V ("vector"); one that does not is read once and spread.
// With one axis the last vec4 may reach into the padding.
{% include "grid.wgsl" %}
alias V = {{ "vec4<f32>" if VEC else "f32" }};
alias I = {{ "vec4<i32>" if VEC else "i32" }};
{% for o in OPERANDS %}
{{ input(loop.index0, "in_" ~ o.name, type=o.ty, width=4 if o.vector else 1) }}
{% endfor %}
{% for _ in RESULTS %}
{{ output(OPERANDS | length + loop.index0, "result" ~ loop.index0, type=OUT, width=4 if VEC else 1) }}
{% endfor %}
{% set ns = namespace(text="n: u32") %}
{% for number in NUMBERS %}{% set ns.text = ns.text ~ ", " ~ number ~ ": f32" %}{% endfor %}
{% for axis in range(AXES) %}{% set ns.text = ns.text ~ ", d" ~ axis ~ ": u32" %}{% endfor %}
{% for set_ in range(SETS) %}{% for axis in range(AXES) %}{% set ns.text = ns.text ~ ", s" ~ set_ ~ "_" ~ axis ~ ": u32" %}{% endfor %}{% endfor %}
{{ params(ns.text) }}
{% from "nan.wgsl" import nan_kept %}
{{ nan_kept("vec4<f32>" if VEC else "f32", "_v") }}

// WGSL has neither infinity nor NaN as a constant.
fn constant(bits: u32) -> V {
    return V(bitcast<f32>(bits));
}

// 0 times dy: NaN where dy is NaN or infinite. The product itself may be compiled as 0.
fn nothing_of(dy: V) -> V {
    return select(V(0.0), constant(0x7fc00000u), (bitcast<I>(dy) & I(0x7f800000)) == I(0x7f800000));
}
{% if POWER %}

// a^b as C's pow has it: pow of WGSL leaves a negative base undefined, although a whole exponent is fine with it, and drivers differ at the edges.
fn power(a: V, b: V) -> V {
    let size = abs(a);
    let infinity = constant(0x7f800000u);
    let nan = constant(0x7fc00000u);
    let zero = size == V(0.0);
    let endless = size == infinity;
    let grows = (size > V(1.0)) == (b > V(0.0));
    let edge = zero | endless | (abs(b) == infinity);
    let known = select(select(pow(size, b), select(V(0.0), infinity, grows), edge), V(1.0), size == V(1.0));
    let odd = abs(b - V(2.0) * floor(b * 0.5)) == V(1.0);
    let negative = bitcast<I>(a) < I(0);
    let real = select(known, nan, negative & (floor(b) != b) & !zero & !endless);
    let signed_ = select(real, -real, negative & odd);
    return select(select(signed_, nan, is_nan_v(a) | is_nan_v(b)), V(1.0), (b == V(0.0)) | ((a == V(1.0)) & !is_nan_v(a)));
}
{% endif %}
{% if MAPS %}
{% include "activation.wgsl" %}
{% endif %}
{% for m in MAPS %}

fn scalar_{{ m.name }}(x: f32) -> f32 {
    return {{ m.forward }};
}

fn map_{{ m.name }}(x: V) -> V {
    return {% if VEC %}V(scalar_{{ m.name }}(x.x), scalar_{{ m.name }}(x.y), scalar_{{ m.name }}(x.z), scalar_{{ m.name }}(x.w)){% else %}scalar_{{ m.name }}(x){% endif %};
}

fn scalar_slope_{{ m.name }}(x: f32, y: f32) -> f32 {
    return {{ m.derivative }};
}

fn back_{{ m.name }}(dy: V, x: V, y: V) -> V {
    {% set slope = "scalar_slope_" ~ m.name %}
    let slope = {% if VEC %}V({{ slope }}(x.x, y.x), {{ slope }}(x.y, y.y), {{ slope }}(x.z, y.z), {{ slope }}(x.w, y.w)){% else %}{{ slope }}(x, y){% endif %};
    return {{ "select(dy * slope, V(0.0), slope == V(0.0))" if m.masked else "dy * slope" }};
}
{% endfor %}
{% for pair in PAIRS %}

fn pair_{{ pair.name }}(a: V, b: V) -> V {
    return {{ pair.forward }};
}
{% for side in ["a", "b"] %}

fn pair_{{ pair.name }}_{{ side }}(dy: V, a: V, b: V) -> V {
    return {{ pair.derivatives[loop.index0] }};
}
{% endfor %}
{% endfor %}

// The nearest whole number, of two equally near ones the even one. By floor, since llvmpipe (Mesa 22.3.6) takes halves away from zero on some
// processors where a conversion follows round.
fn nearest(x: V) -> I {
    let low = floor(x);
    let rest = x - low;
    let whole = I(low);
    let odd = (whole & I(1)) == I(1);
    return whole + select(I(0), I(1), (rest > V(0.5)) | ((rest == V(0.5)) & odd));
}

@compute @workgroup_size(64)
fn pointwise(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) {
        return;
    }
    {% for back in range(1, AXES) %}
    {% set axis = AXES - back %}
    {% set rest = "i" if loop.first else "q" ~ (axis + 1) %}
    let q{{ axis }} = {{ rest }} / p.d{{ axis }};
    let c{{ axis }} = {{ rest }} - q{{ axis }} * p.d{{ axis }};
    {% endfor %}
    let c0 = {{ "i" if AXES == 1 else "q1" }};
    {% for set_ in range(SETS) %}
    let at{{ set_ }} = {% for axis in range(AXES) %}c{{ axis }} * p.s{{ set_ }}_{{ axis }}{{ ";" if loop.last else " + " }}{% endfor %}

    {% endfor %}
    {% for o in OPERANDS %}
    let {{ o.name }} = {% if o.vector %}load4_in_{{ o.name }}(at{{ o.set }}){% elif VEC %}vec4(load_in_{{ o.name }}(at{{ o.set }})){% else %}load_in_{{ o.name }}(at{{ o.set }}){% endif %};
    {% endfor %}
    {% for statement in STATEMENTS %}
    {{ statement }}
    {% endfor %}
    {% for result in RESULTS %}
    {{ "store4_result" if VEC else "store_result" }}{{ loop.index0 }}(i, {{ result }});
    {% endfor %}
}

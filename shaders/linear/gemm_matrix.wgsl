// C = alpha A B (+ bias) by cooperative matrices: f16 products, f32 sums. Bindings, strides and
// tiles: include/gemm.wgsl. Workers, the tiles in workgroup memory, and the product:
// include/matrix.wgsl.
//
// A, B and C may be stored as f16 or f32, each by itself; what is f32 becomes f16 on its way into a
// tile. The next vec4s are fetched before the present ones are used, as linear/gemm_gpu.wgsl says:
// an index beyond the operand is the last one, and what lies beyond K becomes zero where it goes
// into a tile, so K need be no multiple of anything. What lies beyond M and N is not stored.
{% from "matrix.wgsl" import entry, memory, loader, stage, begin, multiply, finish %}
{% set LAYOUT = {"a": "k" if "k" in A else "x", "b": "k" if "k" in B else "x"} %}
{% set TYPE = {"a": AT, "b": BT} %}
{% include "gemm.wgsl" %}

{{ memory(SHAPE) }}
{# What an invocation reads next of an operand, and the last that it may: elements, or vec4s where
   it reads such. A step onward is a constant. #}
{% macro locate_block(name, how, tile, lines) %}
    {% set by = "" if "s" in how else " / 4u" %}
    {% set all = "vec4<u32>(0u, 1u, 2u, 3u)" %}
    let {{ name }}_line = {{ tile }} * {{ SHAPE.side }}u + tile_line;
    let {{ name }}_last = (t.{{ name }} + ({{ lines }} - {{ 4 if how == "x" else 1 }}u) * {{ "p." ~ name ~ "_x" if LAYOUT[name] == "k" else "1u" }} + (p.k - {{ 4 if how == "k" else 1 }}u) * {{ "p." ~ name ~ "_k" if LAYOUT[name] == "x" else "1u" }}){{ by }};
    {% if LAYOUT[name] == "k" %}
    let {{ name }}_onward = {{ SHAPE.step }}u{{ by }};
    var {{ name }}_at = (t.{{ name }} + min({{ name }}_line + {{ all }}, vec4<u32>({{ lines }} - 1u)) * p.{{ name }}_x + t.first_k + tile_k){{ by }};
    {% else %}
    let {{ name }}_onward = {{ SHAPE.step }}u * p.{{ name }}_k{{ by }};
    let {{ name }}_from = {{ "min(" ~ name ~ "_line, " ~ lines ~ " - 4u)" if how == "x" else name ~ "_line" }};
    var {{ name }}_at = (t.{{ name }} + {{ name }}_from + (t.first_k + tile_k + {{ all }}) * p.{{ name }}_k){{ by }};
    {% endif %}
    {% for i in range(4) %}
    var {{ name }}_next{{ i }}: vec4<{{ TYPE[name] }}>;
    {% endfor %}
{% endmacro %}

{# An invocation's next block, as it is stored. #}
{% macro fetch(name, how) %}
    {% for i in range(4) %}
    {% if "s" in how %}
    {{ name }}_next{{ i }} = vec4<{{ TYPE[name] }}>(
    {%- for e in range(4) %}{{ name }}_one({{ name }}_at[{{ i }}] + {{ e }}u, {{ name }}_last){{ ", " if e < 3 }}{% endfor -%}
    );
    {% else %}
    {{ name }}_next{{ i }} = {{ name }}[min({{ name }}_at[{{ i }}], {{ name }}_last)];
    {% endif %}
    {% endfor %}
    {{ name }}_at += {{ name }}_onward;
{% endmacro %}
{% for name, how in [("a", A), ("b", B)] if "s" in how %}
fn {{ name }}_one(at: u32, last: u32) -> {{ TYPE[name] }} {
    let i = min(at, last);
    return {{ name }}[i >> 2u][i & 3u];
}

{% endfor %}
fn put_four(t: Tile, row: u32, column: u32, sum: vec4<f32>) {
    put(t.c, t.row * {{ SHAPE.side }}u + row, t.column * {{ SHAPE.side }}u + column, sum);
}

{{ entry(SHAPE, "gemm") }}
    let t = locate(index);
    {{ loader(SHAPE) }}
    {{ locate_block("a", A, "t.row", "p.m") }}
    {{ locate_block("b", B, "t.column", "p.n") }}
    {{ begin(SHAPE) }}
    // An operand without any k has nothing to read.
    if (t.first_k < t.end_k) {
        {{ fetch("a", A) }}
        {{ fetch("b", B) }}
    }
    for (var start = t.first_k; start < t.end_k; start += {{ SHAPE.step }}u) {
{% for i in range(4) %}
        let left{{ i }} = start + tile_k + {{ i }}u < t.end_k;
{% endfor %}
        let left = vec4<bool>(left0, left1, left2, left3);
{% for name, how in [("a", A), ("b", B)] %}
    {% set whole = {"k": "left0", "ks": "left"} %}
        {{ stage(SHAPE, name ~ "_tile", LAYOUT[name], name ~ "_next", [whole[how], whole[how], whole[how], whole[how]] if how in whole else ["left0", "left1", "left2", "left3"]) }}
{% endfor %}
        workgroupBarrier();
        {{ fetch("a", A) }}
        {{ fetch("b", B) }}
        {{ multiply(SHAPE) }}
    }
    {{ finish(SHAPE) }}
}

// Dense and grouped convolution of f16, forward and gradient to the input, by cooperative matrices:
// an implicit product, pixels x columns, summed over the flat list (tap, channel). Maths and walk:
// include/convolution.wgsl. Workers, the tiles in workgroup memory, and the product:
// include/matrix.wgsl. What is fetched when: conv2d_gpu.wgsl.
//
// A's lines are pixels, B's are columns. An invocation brings four positions of the list: of one
// tap with VECTOR (channels are a multiple of 4), else each of its own tap. Weights become f16 on
// their way into a tile; the bias is added to the f32 sums.
//
// x       source pixels [N, H, W, channels]
// weight  packed, see pack.wgsl
// y       target pixels [N, H, W, channels]
{% from "matrix.wgsl" import entry, memory, loader, stage, begin, multiply, finish %}
{% set VECTOR = FOURS != "none" %}
{% set POSITIONS = [""] if VECTOR else ["_0", "_1", "_2", "_3"] %}
{% include "convolution.wgsl" %}
{% include "counter.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "weight", type="f32", width=4) }}
{{ output(2, "y", width=4 if VECTOR_OUT else 1) }}

{{ memory(SHAPE) }}
{# An invocation's block of the step at `at`, as it is stored, and whether its positions and its
   pixels are inside: bit 4 i + e of pixel i and position e without VECTOR, as sixteen truths would
   take more registers than there are. #}
{% macro fetch(declare="") %}
    {% for e in POSITIONS %}
    {{ declare }}live{{ e }} = at{{ e }}.high < list.count_y;
    {{ declare }}tap{{ e }} = tap_at(list, at{{ e }}.high, at{{ e }}.middle);
    {{ declare }}shift{{ e }} = u32(tap{{ e }}.y * i32(p.source_width) + tap{{ e }}.x) * p.source_channels + at{{ e }}.low;
    {{ declare }}row{{ e }} = select(0u, tap{{ e }}.number * p.rows + at{{ e }}.low, live{{ e }}) * columns4;
    at{{ e }} = advance(at{{ e }}, onward, rows, count_x);
    {% endfor %}
    {% if not VECTOR %}
    {{ declare }}insides = 0u;
    {% endif %}
    {% for i in range(4) %}
    {% if VECTOR %}
    {{ declare }}inside{{ i }} = live & inside_source(corner{{ i }}.y + tap.y, corner{{ i }}.x + tap.x);
    {{ declare }}x_next{{ i }} = x[select(0u, from{{ i }} + shift, inside{{ i }}) >> 2u];
    {{ declare }}w_next{{ i }} = weight[weights_from + row + {{ i }}u * columns4];
    {% else %}
    {% for e in range(4) %}
    {{ declare }}inside{{ i }}_{{ e }} = live_{{ e }} & inside_source(corner{{ i }}.y + tap_{{ e }}.y, corner{{ i }}.x + tap_{{ e }}.x);
    insides |= select(0u, {{ 2 ** (4 * i + e) }}u, inside{{ i }}_{{ e }});
    {% endfor %}
    {{ declare }}x_next{{ i }} = vec4<{{ T }}>(
    {%- for e in range(4) %}x[select(0u, from{{ i }} + shift_{{ e }}, inside{{ i }}_{{ e }})]{{ ", " if e < 3 }}{% endfor -%}
    );
    {{ declare }}w_next{{ i }} = weight[weights_from + row_{{ i }}];
    {% endif %}
    {% endfor %}
{% endmacro %}
fn put_four(t: Tile, start: Origin, row: u32, column: u32, sum: vec4<f32>) {
    let number = corner(start, row, t).number;
    let columns4 = (p.columns + 3u) / 4u;
    let column4 = t.column4 + column / 4u;
    if (number == NONE || column4 >= columns4) {
        return;
    }
    let result = sum + load4_weight(weight_block(t, columns4) + bias_row(columns4) + column4);
    let to = number * p.target_channels + t.channel_group * p.columns + column4 * 4u;
    {% if VECTOR_OUT %}
    store4_y(to / 4u, result);
    {% else %}
    {% for m in range(4) %}
    if (column4 * 4u + {{ m }}u < p.columns) {
        store_y(to + {{ m }}u, result[{{ m }}]);
    }
    {% endfor %}
    {% endif %}
}

{{ entry(SHAPE, "gather") }}
    let t = tile(index, {{ SHAPE.side }}u, {{ SHAPE.side // 4 }}u);
    let start = origin(t);
    let list = taps(t);
    let total = list.count_y * list.count_x * p.rows;
    let columns4 = (p.columns + 3u) / 4u;
    // A list may be empty.
    let rows = max(p.rows, 1u);
    let count_x = max(list.count_x, 1u);
    let onward = counter({{ SHAPE.step }}u, rows, count_x);
    {{ loader(SHAPE) }}
    let weights_from = weight_block(t, columns4) + min(t.column4 + tile_line / 4u, columns4 - 1u);
    {% for i in range(4) %}
    let corner{{ i }} = corner(start, tile_line + {{ i }}u, t);
    let from{{ i }} = u32(corner{{ i }}.source) * p.source_channels + t.channel_group * p.rows;
    {% endfor %}
    {{ begin(SHAPE) }}
    {% for e in POSITIONS %}
    var at{{ e }} = counter(tile_k + {{ loop.index0 }}u, rows, count_x);
    {% endfor %}
    {{ fetch("var ") }}
    for (var q = 0u; q < total; q += {{ SHAPE.step }}u) {
    {% if VECTOR %}
        {{ stage(SHAPE, "a_tile", "k", "x_next", ["inside0", "inside1", "inside2", "inside3"]) }}
        {{ stage(SHAPE, "b_tile", "x", "w_next", ["live", "live", "live", "live"]) }}
    {% else %}
        {% for i in range(4) %}
        let these{{ i }} = (vec4<u32>(insides) & vec4<u32>({% for e in range(4) %}{{ 2 ** (4 * i + e) }}u{{ ", " if e < 3 }}{% endfor %})) != vec4<u32>();
        {% endfor %}
        {{ stage(SHAPE, "a_tile", "k", "x_next", ["these0", "these1", "these2", "these3"]) }}
        {{ stage(SHAPE, "b_tile", "x", "w_next", ["live_0", "live_1", "live_2", "live_3"]) }}
    {% endif %}
        workgroupBarrier();
        {{ fetch() }}
        {{ multiply(SHAPE) }}
    }
    {{ finish(SHAPE, "t, start") }}
}

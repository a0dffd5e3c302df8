// Gradient of a dense or grouped convolution of f16 to its weights, by cooperative matrices. Maths:
// include/convolution_weight.wgsl. Workers, the tiles in workgroup memory, and the product:
// include/matrix.wgsl. What is fetched when: conv2d_weight_gpu.wgsl.
//
// A's lines are rows (tap, channel), B's are filters, and k goes along the pixels of a slab. An
// invocation brings four rows and four filters of four pixels, each a number of three digits
// (image, row, column) to which a step is added; with VECTOR, channels are a multiple of 4.
//
// x        source pixels [N, H, W, C]
// dy       upstream gradient [N, OH, OW, K]
// partial  see the include
{% from "matrix.wgsl" import entry, memory, loader, stage, begin, multiply, finish %}
{% include "convolution_weight.wgsl" %}
{% include "counter.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "dy", width=4 if VECTOR_OUT else 1) }}
{{ output(2, "partial", type="f32", width=4) }}

{{ memory(SHAPE) }}
{# An invocation's block of the four pixels at `at`, `pixel` by the first one's number, as it is
   stored, and which of it is inside: bit 4 e + i of line i and pixel e where lines are read one by
   one. #}
{% macro fetch(declare="") %}
    {% if not VECTOR %}
    {{ declare }}insides = 0u;
    {% endif %}
    {% for e in range(4) %}
    {{ declare }}live{{ e }} = pixel + {{ e }}u < end;
    {{ declare }}place{{ e }} = Pixel(at{{ e }}.high, at{{ e }}.middle, at{{ e }}.low);
    at{{ e }} = advance(at{{ e }}, onward, p.width, p.height);
    {% for i in range(1 if VECTOR else 4) %}
    {{ declare }}source{{ e }}_{{ i }} = source_at(place{{ e }}, row{{ i }});
    {{ declare }}inside{{ e }}_{{ i }} = live{{ e }} & (source{{ e }}_{{ i }} != NONE);
    {% if not VECTOR %}
    insides |= select(0u, {{ 2 ** (4 * e + i) }}u, inside{{ e }}_{{ i }});
    {% endif %}
    {% endfor %}
    {% if VECTOR %}
    {{ declare }}x_next{{ e }} = x[select(0u, source{{ e }}_0, inside{{ e }}_0) >> 2u];
    {% else %}
    {{ declare }}x_next{{ e }} = vec4<{{ T }}>(
    {%- for i in range(4) %}x[select(0u, source{{ e }}_{{ i }}, inside{{ e }}_{{ i }})]{{ ", " if i < 3 }}{% endfor -%}
    );
    {% endif %}
    {{ declare }}to{{ e }} = (pixel + {{ e }}u) * p.filters + t.channel_group * p.columns + column;
    {% if VECTOR_OUT %}
    {{ declare }}y_next{{ e }} = dy[select(0u, to{{ e }}, live{{ e }} & (column < p.columns)) >> 2u];
    {% else %}
    {{ declare }}y_next{{ e }} = vec4<{{ T }}>(
    {%- for i in range(4) %}dy[select(0u, to{{ e }} + {{ i }}u, live{{ e }} & (column + {{ i }}u < p.columns))]{{ ", " if i < 3 }}{% endfor -%}
    );
    {% endif %}
    {% endfor %}
    pixel += {{ SHAPE.step }}u;
{% endmacro %}
fn put_four(t: Tile, row: u32, column: u32, sum: vec4<f32>) {
    let column4 = t.column4 + column / 4u;
    if (t.row + row < p.rows && column4 < (p.columns + 3u) / 4u) {
        store4_partial(partial_at(t, t.row + row, column4), sum);
    }
}

{{ entry(SHAPE, "gradient") }}
    let t = tile(index, {{ SHAPE.side }}u, {{ SHAPE.side // 4 }}u);
    {{ loader(SHAPE) }}
    let column = t.column4 * 4u + tile_line;
    {% for i in range(1 if VECTOR else 4) %}
    let row{{ i }} = row_at(t.row + tile_line + {{ i }}u, t);
    {% endfor %}
    let first = t.slab * p.slab_pixels;
    let end = min(first + p.slab_pixels, p.pixels);
    let onward = counter({{ SHAPE.step }}u, p.width, p.height);
    {{ begin(SHAPE) }}
    var pixel = first + tile_k;
    {% for e in range(4) %}
    let begin{{ e }} = pixel_at(pixel + {{ e }}u);
    var at{{ e }} = Counter(begin{{ e }}.x, begin{{ e }}.y, begin{{ e }}.image);
    {% endfor %}
    {{ fetch("var ") }}
    for (var step = first; step < end; step += {{ SHAPE.step }}u) {
    {% if VECTOR %}
        {{ stage(SHAPE, "a_tile", "x", "x_next", ["inside0_0", "inside1_0", "inside2_0", "inside3_0"]) }}
    {% else %}
        {% for e in range(4) %}
        let these{{ e }} = (vec4<u32>(insides) & vec4<u32>({% for i in range(4) %}{{ 2 ** (4 * e + i) }}u{{ ", " if i < 3 }}{% endfor %})) != vec4<u32>();
        {% endfor %}
        {{ stage(SHAPE, "a_tile", "x", "x_next", ["these0", "these1", "these2", "these3"], true) }}
    {% endif %}
        // Filters beyond the last are not stored.
        {{ stage(SHAPE, "b_tile", "x", "y_next", ["live0", "live1", "live2", "live3"]) }}
        workgroupBarrier();
        {{ fetch() }}
        {{ multiply(SHAPE) }}
    }
    {{ finish(SHAPE) }}
}

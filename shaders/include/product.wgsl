{# What the blocked products for GPUs share (linear/gemm_gpu.wgsl, convolution/conv2d_gpu.wgsl, convolution/conv2d_weight_gpu.wgsl):
   16 x 16 invocations own SIDE x SIDE elements of a result (SIDE is 64 or 128), (SIDE / 16)^2 each, and add up 16 k at a time from two
   tiles in workgroup memory. Imported, not included.

   A tile holds 16 k of SIDE lines (rows or columns of the result) as 4 * SIDE vec4s, which lie as they do in memory; so nothing is turned
   between load and store. Its layout is
     "x"  a vec4 is four lines at one k: [16 k][SIDE / 4];
     "k"  a vec4 is four k of one line: [SIDE][4], with a gap of one vec4 after every two lines. Line 64 h + 4 n + i is number 64 h + 16 i + n.
   An invocation brings SIDE / 64 vec4s of each tile. It multiplies four lines at one k, or four k of four lines; the latter is turned by
   naming registers, which costs nothing. Memory serves 8 neighbours at once: they store 8 adjacent vec4s, and what they read is either one vec4 or 8 in
   different banks; n and n + 1 are half of all banks apart in layout "k", and its gaps tell n and n + 2. With gaps instead of exclusive ors, all that
   an invocation reads lies at constant offsets from one address. #}

{# How many vec4s a tile has. #}
{% macro size(layout, side, spread=0) %}{{ 4 * side + (side // 2 if layout == "k" else 4 * spread) }}{% endmacro %}

{# As a loader: an invocation's line (of the first 64) and k, and its place in the tile. #}
{% macro loader(tile, layout, side) %}
{% if layout == "k" %}
    let {{ tile }}_line = ((local >> 2u) & 15u) * 4u + (local >> 6u);
    let {{ tile }}_k = (local & 3u) * 4u;
    let {{ tile }}_place = local + (local >> 3u);
{% else %}
    let {{ tile }}_line = (local & 15u) * 4u;
    let {{ tile }}_k = local >> 4u;
    let {{ tile }}_place = (local >> 4u) * {{ side // 4 }}u + (local & 15u);
{% endif %}
{% endmacro %}

{# The place 64 * h lines on. #}
{% macro place(tile, layout, h) %}{{ tile }}_place + {{ (288 if layout == "k" else 16) * h }}u{% endmacro %}

{# As a reader: where the lines of `lane`, across or down, begin. #}
{% macro reader(tile, layout, lane) %}
    let {{ tile }}_at = {{ lane ~ " * 4u + (" ~ lane ~ " >> 1u)" if layout == "k" else lane }};
{% endmacro %}

{# Adds 16 k to the vec4s {sum}{row}_{h}. An "x" tile of B may have a gap of `spread` vec4s after every four k. Of "x" tiles,
   `ahead` k are read before they are multiplied: more registers, fewer waits. #}
{% macro product(a, a_layout, b, b_layout, side, sum, ahead=1, spread=0) %}
{% set W = side // 4 %}
{% set H = side // 64 %}
{% for q in range(4) %}
        {
    {% for name, tile, layout in [("a", a, a_layout), ("b", b, b_layout)] if layout == "k" %}
        {% for h in range(H) %}
            {% for i in range(4) %}
            let {{ name }}{{ h }}_{{ i }} = {{ tile }}[{{ tile }}_at + {{ 288 * h + 72 * i + q }}u];
            {% endfor %}
        {% endfor %}
    {% endfor %}
    {% for first in range(0, 4, ahead) %}
    {% for e in range(first, first + ahead) %}
        {% for h in range(H) %}
            {% set from = (4 * q + e) * W + 16 * h %}
            {% if a_layout == "x" %}
            let a{{ h }}_{{ e }} = {{ a }}[{{ a }}_at + {{ from }}u];
            {% endif %}
            {% if b_layout == "x" %}
            let columns{{ h }}_{{ e }} = {{ b }}[{{ b }}_at + {{ from + q * spread }}u];
            {% endif %}
        {% endfor %}
    {% endfor %}
    {% for e in range(first, first + ahead) %}
        {% for h in range(H) %}
            {% if b_layout == "k" %}
            let columns{{ h }}_{{ e }} = vec4<f32>({% for i in range(4) %}b{{ h }}_{{ i }}[{{ e }}]{{ ", " if i < 3 }}{% endfor %});
            {% endif %}
        {% endfor %}
        {% for i in range(4 * H) %}
            {% set row = "a" ~ i // 4 ~ ("_" ~ i % 4 ~ "[" ~ e ~ "]" if a_layout == "k" else "_" ~ e ~ "[" ~ i % 4 ~ "]") %}
            {% for h in range(H) %}
            {{ sum }}{{ i }}_{{ h }} = fma(vec4<f32>({{ row }}), columns{{ h }}_{{ e }}, {{ sum }}{{ i }}_{{ h }});
            {% endfor %}
        {% endfor %}
    {% endfor %}
    {% endfor %}
        }
{% endfor %}
{% endmacro %}

{# What the blocked products for GPUs share (linear/gemm_gpu.wgsl, convolution/conv2d_gpu.wgsl, convolution/conv2d_weight_gpu.wgsl):
   16 x 16 invocations own SIDE x SIDE elements of a result (SIDE is 64 or 128), (SIDE / 16)^2 each, and add up 16 k at a time from two
   tiles in workgroup memory. Imported, not included.

   A tile holds 16 k of SIDE lines (rows or columns of the result) as 4 * SIDE vec4s, which lie as they do in memory; so nothing is turned
   between load and store. Its layout is
     "x"  a vec4 is four lines at one k: [16 k][SIDE / 4];
     "k"  a vec4 is four k of one line: [SIDE][4]. Line 64 h + 4 n + i is number 64 h + 16 i + n; its vec4 q is at q xor n / 2 mod 4.
   An invocation brings SIDE / 64 vec4s of each tile. It multiplies four lines at one k, or four k of four lines; the latter is turned by
   naming registers, which costs nothing. Memory serves 8 neighbours at once: they store 8 adjacent vec4s, and what they read is either one vec4 or 8 in
   different banks; n and n + 1 are half of all banks apart in layout "k", and its xor tells n and n + 2. #}

{# As a loader: an invocation's line (of the first 64) and k, and its place in the tile. #}
{% macro loader(tile, layout, side) %}
{% if layout == "k" %}
    let {{ tile }}_line = ((local >> 2u) & 15u) * 4u + (local >> 6u);
    let {{ tile }}_k = (local & 3u) * 4u;
    let {{ tile }}_place = local ^ ((local >> 3u) & 3u);
{% else %}
    let {{ tile }}_line = (local & 15u) * 4u;
    let {{ tile }}_k = local >> 4u;
    let {{ tile }}_place = (local >> 4u) * {{ side // 4 }}u + (local & 15u);
{% endif %}
{% endmacro %}

{# The place 64 * h lines on. #}
{% macro place(tile, layout, h) %}{{ tile }}_place + {{ (256 if layout == "k" else 16) * h }}u{% endmacro %}

{# As a reader: where the lines of `lane`, across or down, begin in each quarter of the 16 k. In an "x" tile with a `spread`, vec4 n of k is at n xor
   k / 4 * spread. #}
{% macro reader(tile, layout, lane, spread=0) %}
    {% for q in range(4) %}
    let {{ tile }}_at{{ q }} = {{ "(" ~ lane ~ " * 4u + ((" ~ lane ~ " >> 1u) & 3u)) ^ " ~ q if layout == "k" else lane ~ " ^ " ~ q * spread }}u;
    {% endfor %}
{% endmacro %}

{# Adds 16 k to the vec4s {sum}{row}_{h}. #}
{% macro product(a, a_layout, b, b_layout, side, sum) %}
{% set W = side // 4 %}
{% set H = side // 64 %}
{% for q in range(4) %}
        {
    {% for name, tile, layout in [("a", a, a_layout), ("b", b, b_layout)] if layout == "k" %}
        {% for h in range(H) %}
            {% for i in range(4) %}
            let {{ name }}{{ h }}_{{ i }} = {{ tile }}[{{ 256 * h + 64 * i }}u + {{ tile }}_at{{ q }}];
            {% endfor %}
        {% endfor %}
    {% endfor %}
    {% for e in range(4) %}
        {% for h in range(H) %}
            {% set from = (4 * q + e) * W + 16 * h %}
            {% if a_layout == "x" %}
            let a{{ h }}_{{ e }} = {{ a }}[{{ from }}u + {{ a }}_at{{ q }}];
            {% endif %}
            {% if b_layout == "x" %}
            let columns{{ h }}_{{ e }} = {{ b }}[{{ from }}u + {{ b }}_at{{ q }}];
            {% else %}
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
        }
{% endfor %}
{% endmacro %}

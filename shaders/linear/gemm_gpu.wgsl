// C = alpha A B (+ bias) for GPUs: tiles of A and B are staged in workgroup memory, a register tile an invocation. Bindings, strides and
// tiles: include/gemm.wgsl. Layout of the staged tiles, their banks, and the product: include/product.wgsl.
//
// 16 x 16 invocations own TILE x TILE elements of C (TILE is 64 or 128), (TILE / 16)^2 each, and walk K by 16. Each brings TILE / 64 vec4s of
// A and of B, which lie along k or along rows and columns (A and B: "k", "x"; "ks", "xs" where they are read one by one).
// The next vec4s are fetched before the present ones are used. The product hides the fetch only if nothing asks for its result before: so
// indices are clamped instead of tested, and vec4s keep their type (f32 or f16) until they go into a tile, where those beyond K become zero.
// Beyond M and N, lines repeat the last one.
// Tiles of 64 add up blocks of 128 k before these are added to each other: rounding errors grow with the square root of both numbers, not of K.
// Those of 128 have no registers to spare for it.
// With STATISTICS (one matrix, one slice, neither factor nor bias), partial statistics for a batch norm behind: include/tile_statistics.wgsl.
// After the blocked products of CUTLASS (Kerr et al. 2017) and S. Boehm's "How to optimize a CUDA matmul kernel" (2022).
{% from "product.wgsl" import loader, place, reader, product, size %}
{% set H = TILE // 64 %}
{% set PART = "part" if TILE == 64 else "sum" %}
{% set TYPE = {"a": AT, "b": BT} %}
{% set LAYOUT = {"a": "k" if "k" in A else "x", "b": "k" if "k" in B else "x"} %}
{% include "gemm.wgsl" %}
{% if STATISTICS %}
{{ output(3, "partials", type="f32", width=C) }}
{% endif %}

var<workgroup> a_tile: array<vec4<f32>, {{ size(LAYOUT["a"], TILE) }}>;
var<workgroup> b_tile: array<vec4<f32>, {{ size(LAYOUT["b"], TILE) }}>;

{# Where an invocation's part of an operand begins, at k = 0, and the last k that it may read at. #}
{% macro locate_part(name, how, tile, lines) %}
    {{ loader(name ~ "_tile", LAYOUT[name], TILE) }}
    let {{ name }}_last = t.end_k - {{ 4 if how == "k" else 1 }}u;
    {% for h in range(H) %}
    let {{ name }}_line{{ h }} = {{ tile }} * {{ TILE }}u + {{ name }}_tile_line + {{ 64 * h }}u;
    {% if LAYOUT[name] == "k" %}
    let {{ name }}_from{{ h }} = t.{{ name }} + min({{ name }}_line{{ h }}, {{ lines }} - 1u) * p.{{ name }}_x;
    {% elif how == "x" %}
    let {{ name }}_from{{ h }} = t.{{ name }} + min({{ name }}_line{{ h }}, {{ lines }} - 4u);
    {% else %}
    let {{ name }}_from{{ h }} = t.{{ name }} + min({{ name }}_line{{ h }} + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>({{ lines }} - 1u));
    {% endif %}
    {% if how == "x" %}
    var {{ name }}_at{{ h }} = ({{ name }}_from{{ h }} + min(t.first_k + {{ name }}_tile_k, {{ name }}_last) * p.{{ name }}_k) >> 2u;
    let {{ name }}_end{{ h }} = ({{ name }}_from{{ h }} + {{ name }}_last * p.{{ name }}_k) >> 2u;
    {% endif %}
    {% endfor %}
{% endmacro %}

{# An invocation's part of the step at `start`, as it is stored. Steps follow each other, so an index
   that would take a multiplication is added up. The first fetch has no condition, so that buffers
   are looked up before the loop and not in it: an operand without any k is read at 0. #}
{% macro fetch(name, how, start, first=false) %}
    {% set k = start ~ " + " ~ name ~ "_tile_k" %}
    {% set step = "min(" ~ k ~ ", " ~ name ~ "_last) * p." ~ name ~ "_k" %}
    {% set declare, open, close = ("var ", "select(0u, ", ", any_k)") if first else ("", "", "") %}
    {% for h in range(H) %}
    {% set from = name ~ "_from" ~ h %}
    {% set at = name ~ "_at" ~ h %}
    {% if how == "x" %}
    {{ declare }}{{ name }}_next{{ h }} = {{ name }}[{{ open ~ at ~ close }}];
    {{ at }} = min({{ at }} + 4u * p.{{ name }}_k, {{ name }}_end{{ h }});
    {% elif how == "k" %}
    {{ declare }}{{ name }}_next{{ h }} = {{ name }}[{{ open }}({{ from }} + min({{ k }}, {{ name }}_last)) >> 2u{{ close }}];
    {% else %}
    {{ declare }}{{ name }}_next{{ h }} = vec4<{{ TYPE[name] }}>(
        {%- for j in range(4) -%}
        {{ name }}_at({{ open ~ from }}{{ " + min(" ~ k ~ " + " ~ j ~ "u, " ~ name ~ "_last)" if how == "ks" else "[" ~ j ~ "] + " ~ step }}{{ close }}){{ ", " if j < 3 }}
        {%- endfor -%}
        );
    {% endif %}
    {% endfor %}
{% endmacro %}

{# What was fetched for the step at `start` goes into the tile. #}
{% macro stage(name, how) %}
    {% set rest = "t.end_k - start" %}
    {% for h in range(H) %}
        {{ name }}_tile[{{ place(name ~ "_tile", LAYOUT[name], h) }}] = select(vec4<f32>(), vec4<f32>({{ name }}_next{{ h }}), {{ "vec4<u32>(" ~ name ~ "_tile_k) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(" ~ rest ~ ")" if how == "ks" else name ~ "_tile_k < " ~ rest }});
    {% endfor %}
{% endmacro %}
{% for name, how in [("a", A), ("b", B)] if "s" in how %}
fn {{ name }}_at(i: u32) -> {{ TYPE[name] }} {
    return {{ name }}[i >> 2u][i & 3u];
}

{% endfor %}
@compute @workgroup_size(256)
fn gemm(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let t = locate(group);
    let any_k = t.first_k < t.end_k;
    let across = local & 15u;
    let down = local >> 4u;
    {{ reader("a_tile", LAYOUT["a"], "down") }}
    {{ reader("b_tile", LAYOUT["b"], "across") }}
    {{ locate_part("a", A, "t.row", "p.m") }}
    {{ locate_part("b", B, "t.column", "p.n") }}
    {{ fetch("a", A, "t.first_k", true) }}
    {{ fetch("b", B, "t.first_k", true) }}
{% for i in range(4 * H) %}
    {% for q in range(H) %}
    var sum{{ i }}_{{ q }} = vec4<f32>();
    {% endfor %}
{% endfor %}
{% if TILE == 64 %}
    for (var block = t.first_k; block < t.end_k; block += 128u) {
{% for i in range(4) %}
    var part{{ i }}_0 = vec4<f32>();
{% endfor %}
    let end_block = min(block + 128u, t.end_k);
{% else %}
    let block = t.first_k;
    let end_block = t.end_k;
{% endif %}
    for (var start = block; start < end_block; start += 16u) {
        workgroupBarrier();
        {{ stage("a", A) }}
        {{ stage("b", B) }}
        workgroupBarrier();
        {{ fetch("a", A, "start + 16u") }}
        {{ fetch("b", B, "start + 16u") }}
        {{ product("a_tile", LAYOUT["a"], "b_tile", LAYOUT["b"], TILE, PART, AHEAD if TILE == 64 else 1) }}
    }
{% if TILE == 64 %}
{% for i in range(4) %}
    sum{{ i }}_0 += part{{ i }}_0;
{% endfor %}
    }
{% endif %}
{% for i in range(4 * H) %}
    {% for q in range(H) %}
    put(t.c, t.row * {{ TILE }}u + {{ i // 4 * 64 + i % 4 }}u + down * 4u, t.column * {{ TILE }}u + {{ 64 * q }}u + across * 4u, sum{{ i }}_{{ q }});
    {% endfor %}
{% endfor %}
{% if STATISTICS %}
    {% set ONE, TWO, VECTOR_PARTIALS = "a_tile", "b_tile", C == 4 %}
    let tile_row = t.row * {{ TILE }}u;
    let tile_rows = p.m;
    let tile_column = t.column * {{ TILE }}u;
    let tile_columns = p.n;
    let first_channel = 0u;
    let channels = p.n;
    {% include "tile_statistics.wgsl" %}
{% endif %}
}

// C = alpha A B (+ bias) by cooperative matrices: f16 products, f32 sums. Bindings, strides and tiles: include/gemm.wgsl. Workers, the tiles in
// workgroup memory, and the product: include/matrix.wgsl.
//
// A, B and C may be stored as f16 or f32, each by itself; what is f32 becomes f16 on its way into a tile.
// The next vec4s are fetched before the present ones are used, as linear/gemm_gpu.wgsl says: indices are clamped, and what lies beyond K becomes
// zero where it goes into a tile, so K need be no multiple of anything. Beyond M and N, lines repeat the last one and are not stored.
{% from "matrix.wgsl" import memory, loader, block_line, stage, begin, multiply, finish %}
{% set LAYOUT = {"a": "k" if "k" in A else "x", "b": "k" if "k" in B else "x"} %}
{% set TYPE = {"a": AT, "b": BT} %}
{% include "gemm.wgsl" %}

{{ memory(SHAPE) }}
{# Where an invocation's blocks of an operand begin, at k = 0, and the last k that it may read at. #}
{% macro locate_blocks(name, how, tile, lines) %}
    let {{ name }}_last = t.end_k - {{ 4 if how == "k" else 1 }}u;
    {% for h in range(BLOCKS) %}
    let {{ name }}_line{{ h }} = {{ tile }} * {{ SHAPE.side }}u + tile_line + {{ block_line(SHAPE, h) }};
    {% if LAYOUT[name] == "k" %}
    let {{ name }}_from{{ h }} = t.{{ name }} + min({{ name }}_line{{ h }} + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>({{ lines }} - 1u)) * p.{{ name }}_x;
    {% elif how == "x" %}
    let {{ name }}_from{{ h }} = t.{{ name }} + min({{ name }}_line{{ h }}, {{ lines }} - 4u);
    {% else %}
    let {{ name }}_from{{ h }} = t.{{ name }} + min({{ name }}_line{{ h }} + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>({{ lines }} - 1u));
    {% endif %}
    {% for i in range(4) %}
    var {{ name }}{{ h }}_next{{ i }}: vec4<{{ TYPE[name] }}>;
    {% endfor %}
    {% endfor %}
{% endmacro %}

{# An invocation's blocks of the step at `start`, as they are stored. #}
{% macro fetch(name, how, start) %}
    {% for e in range(4) %}
    let {{ name }}_step{{ e }} = min({{ start }} + tile_k{{ " + " ~ e ~ "u" if how != "k" }}, {{ name }}_last){{ "" if LAYOUT[name] == "k" else " * p." ~ name ~ "_k" }};
    {% endfor %}
    {% for h in range(BLOCKS) %}
    {% for i in range(4) %}
    {{ name }}{{ h }}_next{{ i }} = {% if how == "k" -%}
        {{ name }}[({{ name }}_from{{ h }}[{{ i }}] + {{ name }}_step0) >> 2u];
    {%- elif how == "x" -%}
        {{ name }}[({{ name }}_from{{ h }} + {{ name }}_step{{ i }}) >> 2u];
    {%- else -%}
        vec4<{{ TYPE[name] }}>(
        {%- for j in range(4) -%}
        {{ name }}_at({{ name ~ "_from" ~ h }}[{{ i if how == "ks" else j }}] + {{ name ~ "_step" ~ (j if how == "ks" else i) }}){{ ", " if j < 3 }}
        {%- endfor -%}
        );
    {%- endif %}

    {% endfor %}
    {% endfor %}
{% endmacro %}
{% for name, how in [("a", A), ("b", B)] if "s" in how %}
fn {{ name }}_at(i: u32) -> {{ TYPE[name] }} {
    return {{ name }}[i >> 2u][i & 3u];
}

{% endfor %}
fn put_four(t: Tile, row: u32, column: u32, sum: vec4<f32>) {
    put(t.c, t.row * {{ SHAPE.side }}u + row, t.column * {{ SHAPE.side }}u + column, sum);
}

@compute @workgroup_size({{ SHAPE.invocations }})
fn gemm(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) nwg: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    // group_index, written out: naga takes what a function returns for different in each invocation.
    let group = wid.x + wid.y * nwg.x;
    if (group >= p.groups) {
        return;
    }
    let t = locate(group);
    {{ loader(SHAPE) }}
    {{ locate_blocks("a", A, "t.row", "p.m") }}
    {{ locate_blocks("b", B, "t.column", "p.n") }}
    var filled = 0u;
    for (var round = 0u; round < {{ SHAPE.down * SHAPE.across }}u; round += subgroups) {
        {{ begin(SHAPE) }}
        // An operand without any k has nothing to read.
        if (t.first_k < t.end_k) {
            {{ fetch("a", A, "t.first_k") }}
            {{ fetch("b", B, "t.first_k") }}
        }
        for (var start = t.first_k; start < t.end_k; start += {{ SHAPE.step }}u) {
{% for i in range(4) %}
            let left{{ i }} = start + tile_k + {{ i }}u < t.end_k;
{% endfor %}
            let left = vec4<bool>(left0, left1, left2, left3);
{% for name, how in [("a", A), ("b", B)] %}
    {% for h in range(BLOCKS) %}
            {{ stage(SHAPE, name ~ "_tile", LAYOUT[name], h, name ~ h ~ "_next", ["left", "left", "left", "left"] if LAYOUT[name] == "k" else ["left0", "left1", "left2", "left3"]) }}
    {% endfor %}
{% endfor %}
            workgroupBarrier();
            {{ fetch("a", A, "start + " ~ SHAPE.step ~ "u") }}
            {{ fetch("b", B, "start + " ~ SHAPE.step ~ "u") }}
            {{ multiply(SHAPE) }}
            filled = {{ SHAPE.side * SHAPE.stride }}u - filled;
        }
        {{ finish(SHAPE) }}
    }
}

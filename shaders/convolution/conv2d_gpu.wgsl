// Dense and grouped convolution, forward and gradient to the input, for GPUs: an implicit matrix product, pixels x columns, summed
// over the flat list (tap, channel). Maths and walk: include/convolution.wgsl. Layout of the staged tiles, their banks, and the product:
// include/product.wgsl.
//
// 16 x 16 invocations own TILE pixels x TILE columns (TILE is 64 or 128), (TILE / 16)^2 each, and go through the list 16 positions at a time by
// way of workgroup memory. Each brings TILE / 64 vec4s of source values and as many of weights. FOURS says how often 4 channels are one tap's:
// in a step of 16 ("step": channels are a multiple of 16, so all invocations share one tap, and what is worked out of it is done once a
// workgroup where there is a scalar unit), in an invocation's vec4 ("vec4": of 4), or not at all ("none": it takes one position of four pixels).
// Positions are a number of three digits (tap row, tap column, channel) to which 16 is added: no step divides. Where invocations have positions of
// their own, the places that follow, in the source and in the weights, are added up beside them: a carry has a step of its own.
// The next vec4s are fetched before the present ones are used, and nothing asks for them before, as
// linear/gemm_gpu.wgsl says: an index outside becomes 0, and the value becomes zero where it goes
// into a tile. Tests are joined by &: compilers may keep the branches of &&, and wait before a
// branch for all that was fetched.
// Tiles of 64 add up blocks of 128 positions before these are added to each other, as linear/gemm_gpu.wgsl does, and the bias comes last.
// Design: CUTLASS's implicit GEMM; ggml's Vulkan convolution.
//
// x       source pixels [N, H, W, channels]
// weight  packed, see pack.wgsl
// y       target pixels [N, H, W, channels]
// With STATISTICS (forward), partial statistics for the batch norm behind: include/tile_statistics.wgsl.
{% from "product.wgsl" import loader, place, reader, product, size %}
{% set W = TILE // 4 %}
{% set H = TILE // 64 %}
{% set PART = "part" if TILE == 64 else "sum" %}
{% set VECTOR = FOURS != "none" %}
{% set LAYOUT = "k" if VECTOR else "x" %}
{% set SPREAD = 2 if VECTOR else 0 %}
{# Where registers are to spare, sums beside the positions take some, and a loader of single values needs them all the longer. #}
{% set BESIDE = AHEAD == 2 and FOURS != "step" %}
{% set READ = 1 if TILE == 128 else 4 if AHEAD == 2 and not VECTOR else AHEAD %}
{% include "grid.wgsl" %}
{% include "convolution.wgsl" %}
{% include "counter.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "weight", type="f32", width=4) }}
{{ output(2, "y", width=4 if VECTOR_OUT else 1) }}
{% if STATISTICS %}
{{ output(3, "partials", type="f32", width=4 if VECTOR_OUT else 1) }}
{% endif %}

var<workgroup> sources: array<vec4<f32>, {{ size(LAYOUT, TILE) }}>;
var<workgroup> weights: array<vec4<f32>, {{ size("x", TILE, SPREAD) }}>;

{# An invocation's part of the step at `at`, as it is stored, and whether its positions and its pixels are inside. #}
{% macro fetch(declare="") %}
    {{ declare }}live = at.high < list.count_y;
    {% if not BESIDE %}
    {{ declare }}tap = tap_at(list, at.high, at.middle);
    {{ declare }}shift = u32(tap.y * i32(p.source_width) + tap.x) * p.source_channels + at.low;
    {{ declare }}row = (tap.number * p.rows + at.low) * columns4;
    {{ declare }}tap_y = tap.y;
    {{ declare }}tap_x = tap.x;
    {% else %}
    {{ declare }}tap_y = list.offset_y + i32(at.high) * list.every_y;
    {{ declare }}tap_x = list.offset_x + i32(at.middle) * list.every_x;
    {% endif %}
    {% for h in range(H) %}
    {% if VECTOR %}
    {{ declare }}inside{{ h }} = {{ "live & " if FOURS != "step" }}inside_source(corner{{ h }}.y + tap_y, corner{{ h }}.x + tap_x);
    {{ declare }}next_x{{ h }} = x[select(0u, from{{ h }} + shift, inside{{ h }}) >> 2u];
    {% else %}
    {% for i in range(4) %}
    {{ declare }}inside{{ h }}_{{ i }} = live & inside_source(corner{{ h }}_{{ i }}.y + tap_y, corner{{ h }}_{{ i }}.x + tap_x);
    {% endfor %}
    {{ declare }}next_x{{ h }} = vec4<{{ T }}>(
        {%- for i in range(4) -%}
        x[select(0u, from{{ h }}_{{ i }} + shift, inside{{ h }}_{{ i }})]{{ ", " if i < 3 }}
        {%- endfor -%}
    );
    {% endif %}
    {{ declare }}next_w{{ h }} = weight[weights_from{{ h }} + select(0u, row, live)];
    {% endfor %}
    {% if not BESIDE %}
    at = advance(at, sixteen, rows, count_x);
    {% else %}
    at.low += sixteen.low;
    let over_x = at.low >= rows;
    at.middle += sixteen.middle + u32(over_x);
    let over_y = at.middle >= count_x;
    at = Counter(at.low - select(0u, rows, over_x), at.middle - select(0u, count_x, over_y), at.high + sixteen.high + u32(over_y));
    shift += shift_step + select(0u, shift_x, over_x) + select(0u, shift_y, over_y);
    row += row_step + select(0u, row_x, over_x) + select(0u, row_y, over_y);
    {% endif %}
{% endmacro %}

{# What was fetched goes into the tiles. #}
{% macro stage() %}
    {% for h in range(H) %}
    {% if VECTOR %}
        sources[{{ place("sources", LAYOUT, h) }}] = select(vec4<f32>(), vec4<f32>(next_x{{ h }}), inside{{ h }});
    {% else %}
        sources[{{ place("sources", LAYOUT, h) }}] = select(
            vec4<f32>(),
            vec4<f32>(next_x{{ h }}),
            vec4<bool>(inside{{ h }}_0, inside{{ h }}_1, inside{{ h }}_2, inside{{ h }}_3),
        );
    {% endif %}
        weights[weights_place + {{ 16 * h }}u] = {{ "next_w" ~ h if FOURS == "step" else "select(vec4<f32>(), next_w" ~ h ~ ", live)" }};
    {% endfor %}
{% endmacro %}
{# Where the bias lies, and an invocation's first result of each pixel, NONE where there is none.
   What they are worked out from takes more registers than they do, so this comes before the loop
   where registers are few. #}
{% macro places() %}
    {% for q in range(H) %}
    let bias_at{{ q }} = first + min(column4_{{ q }}, columns4 - 1u) + bias_row(columns4);
    {% endfor %}
    {% for i in range(4 * H) %}
    let number{{ i }} = corner(start, {{ i // 4 * 64 + i % 4 }}u + down * 4u, t).number;
    let none{{ i }} = (number{{ i }} == NONE) | (column4_0 >= columns4);
    let first_of{{ i }} = number{{ i }} * p.target_channels + t.channel_group * p.columns;
    let to{{ i }} = select(first_of{{ i }} + column4_0 * 4u, NONE, none{{ i }});
    {% endfor %}
{% endmacro %}
@compute @workgroup_size(256)
fn gather(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let t = tile(index, {{ TILE }}u, {{ W }}u);
    let start = origin(t);
    let list = taps(t);
    let total = list.count_y * list.count_x * p.rows;
    let columns4 = (p.columns + 3u) / 4u;
    let across = local & 15u;
    let down = local >> 4u;
    {{ reader("sources", LAYOUT, "down") }}
    {{ reader("weights", "x", "across") }}
    {{ loader("sources", LAYOUT, TILE) }}
    // Weights of the positions that the invocation's source values have, or of one of them.
    {% if VECTOR %}
    let weights_column4 = (local >> 2u) & 15u;
    let weights_k = local >> 6u;
    let weights_place = (sources_k + weights_k) * {{ W }}u + sources_k / 4u * {{ SPREAD }}u + weights_column4;
    {% else %}
    let weights_column4 = local & 15u;
    let weights_k = 0u;
    let weights_place = sources_place;
    {% endif %}
    let first = weight_block(t, columns4);
    {% set own = " + sources_k" if FOURS == "step" else "" %}
    {% for h in range(H) %}
    let weights_from{{ h }} = first + min(t.column4 + weights_column4 + {{ 16 * h }}u, columns4 - 1u) + (weights_k{{ own }}) * columns4;
    {% for i in range(1 if VECTOR else 4) %}
    {% set n = h ~ "" if VECTOR else h ~ "_" ~ i %}
    let corner{{ n }} = corner(start, sources_line + {{ 64 * h + i }}u, t);
    let from{{ n }} = u32(corner{{ n }}.source) * p.source_channels + t.channel_group * p.rows{{ own }};
    {% endfor %}
    {% endfor %}

    // A list may be empty.
    let rows = max(p.rows, 1u);
    let count_x = max(list.count_x, 1u);
    let sixteen = counter(16u, rows, count_x);
    var at = counter({{ "0u" if FOURS == "step" else "sources_k" }}, rows, count_x);
    {% if BESIDE %}
    let source_row = list.every_y * i32(p.source_width);
    let shift_step = u32(i32(sixteen.high) * source_row + i32(sixteen.middle) * list.every_x) * p.source_channels + sixteen.low;
    let shift_x = u32(list.every_x) * p.source_channels - rows;
    let shift_y = u32(source_row - i32(count_x) * list.every_x) * p.source_channels;
    let weights_row = p.tap_step_y * p.kernel_width;
    let row_step = ((sixteen.high * weights_row + sixteen.middle * p.tap_step_x) * rows + sixteen.low) * columns4;
    let row_x = (p.tap_step_x - 1u) * rows * columns4;
    let row_y = (weights_row - count_x * p.tap_step_x) * rows * columns4;
    let tap = tap_at(list, at.high, at.middle);
    var shift = u32(tap.y * i32(p.source_width) + tap.x) * p.source_channels + at.low;
    var row = (tap.number * rows + at.low) * columns4;
    {% endif %}
    {{ fetch("var ") }}
    {% for q in range(H) %}
    let column4_{{ q }} = t.column4 + {{ 16 * q }}u + across;
    {% endfor %}
    {% if AHEAD == 1 %}
    {{ places() }}
    {% endif %}
    {% for q in range(H) %}
    {% for i in range(4 * H) %}
    var sum{{ i }}_{{ q }} = vec4<f32>();
    {% endfor %}
    {% endfor %}
    {% if TILE == 64 %}
    for (var part = 0u; part < total; part += 128u) {
    {% for i in range(4) %}
    var part{{ i }}_0 = vec4<f32>();
    {% endfor %}
    let end_part = min(part + 128u, total);
    {% else %}
    let part = 0u;
    let end_part = total;
    {% endif %}
    for (var q = part; q < end_part; q += 16u) {
        workgroupBarrier();
        {{ stage() }}
        workgroupBarrier();
        {{ fetch() }}
        {{ product("sources", LAYOUT, "weights", "x", TILE, PART, READ, SPREAD) }}
    }
    {% if TILE == 64 %}
    {% for i in range(4) %}
    sum{{ i }}_0 += part{{ i }}_0;
    {% endfor %}
    }
    {% endif %}
    {% if AHEAD > 1 %}
    {{ places() }}
    {% endif %}
    {% for q in range(H) %}
    let bias{{ q }} = load4_weight(bias_at{{ q }});
    {% for i in range(4 * H) %}
    sum{{ i }}_{{ q }} += bias{{ q }};
    {% endfor %}
    {% endfor %}
    {% for i in range(4 * H) %}
    {% for q in range(H) %}
    if (to{{ i }} != NONE{{ " && column4_" ~ q ~ " < columns4" if q > 0 }}) {
        {% if VECTOR_OUT %}
        store4_y(to{{ i }} / 4u + {{ 16 * q }}u, sum{{ i }}_{{ q }});
        {% else %}
        {% for m in range(4) %}
        if (column4_{{ q }} * 4u + {{ m }}u < p.columns) {
            store_y(to{{ i }} + {{ 64 * q + m }}u, sum{{ i }}_{{ q }}[{{ m }}]);
        }
        {% endfor %}
        {% endif %}
    }
    {% endfor %}
    {% endfor %}
{% if STATISTICS %}
    {% set ONE, TWO, VECTOR_PARTIALS = "sources", "weights", VECTOR_OUT %}
    let tile_row = t.pixel;
    let tile_rows = p.pixels;
    let tile_column = t.column4 * 4u;
    let tile_columns = p.columns;
    let first_channel = t.channel_group * p.columns;
    let channels = p.target_channels;
    {% include "tile_statistics.wgsl" %}
{% endif %}
}

// Dense and grouped convolution, forward and gradient to the input, for software drivers: an implicit matrix product without
// im2col, barriers or workgroup memory. Maths and walk: include/convolution.wgsl.
//
// A workgroup is one subgroup of 8 lanes and owns 32 pixels. COLUMNS lanes (8, or 4 where there are few columns) lie side by side along
// the columns, 4 adjacent columns a lane; they share the pixels with the other lane groups, so a lane has 32 or 16 vec4 accumulators.
// Source values are brought for many pixels by one access and spread by subgroupShuffle:
// - VECTOR (rows divisible by 4, in the gradient to the input columns, too): one access brings 4 pixels x 8 channels, lane = (pixel, half
//   of the channels). Weights are read where they are: forward, one access is four rows of a lane's column, and four of them are turned
//   (free: a vec4 is four registers there); in the gradient to the input it is a row of its four columns, as it lies.
// - otherwise lane = position in the flat list (tap, channel), one access a pixel: short rows (image stems with C = 1 or 3) waste
//   nothing. Weights are packed, those of one row are one access.
// FLAT (1 x 1, stride 1, no padding) is a plain product: pixels need no coordinates.
// All products of one accumulator follow each other, so that it is in registers once a step (1.6 times faster than row by row). They are added
// to each other first, in pairs, which costs nothing there and leaves an eighth of the roundings to the long sum; the bias comes last.
// Storage accesses are what costs time there (about 13 ns each against 1 ns for a vec4 multiply-add on llvmpipe).
//
// x       source pixels [N, H, W, channels]
// weight  [K, kh, kw, C / groups] (VECTOR) or packed, see pack.wgsl
// y       target pixels [N, H, W, channels]
// bias    VECTOR: [groups * columns]; any buffer where has_bias is 0
{% set per = 4 if VECTOR else 8 %}
{% set spread = 8 // COLUMNS %}
{% set own = 32 // spread %}
{% set scale = 2 if VECTOR else 1 %}
{% include "grid.wgsl" %}
{% from "pairwise.wgsl" import pairwise %}
{% include "convolution.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "weight", type="f32", width=4) }}
{{ output(2, "y", width=4 if VECTOR_OUT else 1) }}
{% if VECTOR %}
{{ input(3, "bias", type="f32") }}
{% endif %}

{# The products of a tap, summed over the channels. #}
{% macro product() %}
            for (var c = 0u; c < count; c += 2u) {
                let chunk = min(c + upper, count - 1u);
                let inside = c + upper < count;
                {% for j in range(8) %}
                let x{{ j }} = select(vec4<f32>(), load4_x(at{{ j }} + chunk), inside{{ "" if FLAT else " && ok" ~ j }});
                {% endfor %}
                {% for h in range(2) %}
                let rows{{ h }} = tap_rows + min(c + {{ h }}u, count - 1u) * row_step;
                {% for i in range(4) %}
                let v{{ h }}_{{ i }} = load4_weight(line{{ i }} + rows{{ h }});
                {% endfor %}
                {% for i in range(4) %}
                let w{{ h * 4 + i }} = {% if FORWARD %}vec4<f32>({% for m in range(4) %}v{{ h }}_{{ m }}[{{ i }}], {% endfor %}){% else %}v{{ h }}_{{ i }}{% endif %};
                {% endfor %}
                {% endfor %}
                {% for i in range(own) %}
                {% for m in range(8) %}
                let x{{ i }}_{{ m }} = subgroupShuffle(x{{ i * spread // 4 }}[{{ m % 4 }}], {{ i * spread % 4 * 2 + m // 4 }}u{{ " + side" if spread > 1 else "" }});
                {% endfor %}
                acc{{ i }} += {{ pairwise("x" ~ i ~ "_# * w#", 8) }};
                {% endfor %}
            }
{% endmacro %}

@compute @workgroup_size(8)
fn gather(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let t = tile(index, 32u, {{ COLUMNS }}u);
    let columns4 = (p.columns + 3u) / 4u;
    let column4 = t.column4 + lane % {{ COLUMNS }}u;
    // The lane that a lane's first pixel of an access lies in.
    let side = lane / {{ COLUMNS }}u * {{ scale }}u;
    {% if not FLAT %}
    let start = origin(t);
    {% for j in range(32 // per) %}
    let k{{ j }} = corner(start, {{ j * per }}u + lane / {{ scale }}u, t);
    {% endfor %}
    {% endif %}
    {% if VECTOR %}
    let first_column = min(column4, columns4 - 1u) * 4u;
    let last_column = p.columns - 1u;
    var bias = vec4<f32>();
    if (p.has_bias != 0u) {
        let at = t.channel_group * p.columns;
        bias = vec4<f32>({% for i in range(4) %}load_bias(at + min(first_column + {{ i }}u, last_column)), {% endfor %});
    }
    {% else %}
    let block = weight_block(t, columns4) + min(column4, columns4 - 1u);
    let bias = load4_weight(block + bias_row(columns4));
    {% endif %}
    {% for i in range(own) %}
    var acc{{ i }} = vec4<f32>();
    {% endfor %}
    {% if VECTOR %}
    let channels = p.source_channels / 4u;
    let count = p.rows / 4u;
    let first = t.channel_group * count;
    let upper = lane & 1u;
    {% if FORWARD %}
    // A filter's vec4s of a tap, of all taps.
    let step = count;
    let filter_step = step * p.kernel_height * p.kernel_width;
    let row_step = 1u;
    {% for i in range(4) %}
    let line{{ i }} = (t.channel_group * p.columns + min(first_column + {{ i }}u, last_column)) * filter_step;
    {% endfor %}
    {% else %}
    let step = columns4;
    let filter_step = step * p.kernel_height * p.kernel_width;
    let row_step = 4u * filter_step;
    {% for i in range(4) %}
    let line{{ i }} = (t.channel_group * p.rows + {{ i }}u) * filter_step + first_column / 4u;
    {% endfor %}
    {% endif %}
    {% if FLAT %}
    {% for j in range(8) %}
    let at{{ j }} = min(t.pixel + {{ j * 4 }}u + lane / 2u, p.pixels - 1u) * channels + first;
    {% endfor %}
    let tap_rows = 0u;
    {{ product() }}
    {% else %}
    let list = taps(t);
    for (var ty = 0u; ty < list.count_y; ty++) {
        for (var tx = 0u; tx < list.count_x; tx++) {
            let tap = tap_at(list, ty, tx);
            let offset = tap.y * i32(p.source_width) + tap.x;
            {% for j in range(8) %}
            let ok{{ j }} = inside_source(k{{ j }}.y + tap.y, k{{ j }}.x + tap.x);
            let at{{ j }} = select(0u, u32(k{{ j }}.source + offset) * channels, ok{{ j }}) + first;
            {% endfor %}
            let tap_rows = tap.number * step;
            {{ product() }}
        }
    }
    {% endif %}
    {% else %}
    let list = taps(t);
    let total = list.count_y * list.count_x * p.rows;
    // The first lane of a lane group.
    let base = lane / {{ COLUMNS }}u * {{ COLUMNS }}u;
    for (var q = 0u; q < total; q += {{ COLUMNS }}u) {
        let inside = q + lane % {{ COLUMNS }}u < total;
        let mine = min(q + lane % {{ COLUMNS }}u, total - 1u);
        let tap_index = mine / p.rows;
        let c = mine - tap_index * p.rows;
        let ty = tap_index / list.count_x;
        let tap = tap_at(list, ty, tap_index - ty * list.count_x);
        let offset = tap.y * i32(p.source_width) + tap.x;
        let channel = t.channel_group * p.rows + c;
        let row = tap.number * p.rows + c;
        {% for i in range(own) %}
        {% set j = i * spread // 8 %}
        {% set l %}{{ i * spread % 8 }}u{{ " + side" if spread > 1 else "" }}{% endset %}
        let ok{{ i }} = inside_source(subgroupShuffle(k{{ j }}.y, {{ l }}) + tap.y, subgroupShuffle(k{{ j }}.x, {{ l }}) + tap.x) && inside;
        let at{{ i }} = select(0u, u32(subgroupShuffle(k{{ j }}.source, {{ l }}) + offset) * p.source_channels + channel, ok{{ i }});
        let x{{ i }} = select(0.0, load_x(at{{ i }}), ok{{ i }});
        {% endfor %}
        {% for m in range(COLUMNS) %}
        let w{{ m }} = load4_weight(block + subgroupShuffle(row, {{ m }}u) * columns4);
        {% endfor %}
        {% for i in range(own) %}
        {% for m in range(COLUMNS) %}
        let x{{ i }}_{{ m }} = subgroupShuffle(x{{ i }}, {{ m }}u{{ " + base" if spread > 1 else "" }});
        {% endfor %}
        acc{{ i }} += {{ pairwise("x" ~ i ~ "_# * w#", COLUMNS) }};
        {% endfor %}
    }
    {% endif %}
    {% for i in range(own) %}
    acc{{ i }} += bias;
    {% if FLAT %}
    let pixel{{ i }} = t.pixel + {{ i * spread }}u + lane / {{ COLUMNS }}u;
    let o{{ i }} = select(NONE, pixel{{ i }}, pixel{{ i }} < p.pixels);
    {% else %}
    let o{{ i }} = subgroupShuffle(k{{ i * spread // per }}.number, {{ i * spread % per * scale }}u{{ " + side" if spread > 1 else "" }});
    {% endif %}
    if (o{{ i }} != NONE && column4 < columns4) {
        {% if VECTOR_OUT %}
        store4_y((o{{ i }} * p.target_channels + t.channel_group * p.columns) / 4u + column4, acc{{ i }});
        {% else %}
        let to{{ i }} = o{{ i }} * p.target_channels + t.channel_group * p.columns + column4 * 4u;
        {% for m in range(4) %}
        if (column4 * 4u + {{ m }}u < p.columns) {
            store_y(to{{ i }} + {{ m }}u, acc{{ i }}[{{ m }}]);
        }
        {% endfor %}
        {% endif %}
    }
    {% endfor %}
}

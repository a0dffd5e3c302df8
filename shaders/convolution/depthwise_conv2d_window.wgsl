// Depthwise convolution with a SIZE x SIZE kernel (3, 5, 7), no dilation, multiplier 1, channels divisible by 4, one text for
// - forward with STRIDE 1 or 2;
// - the gradient to the input with stride 1: the same with the weights read backwards (`last` = SIZE * SIZE - 1, else 0);
// - the gradient to the input with stride 2 (UP = 2): target row y sums weight[r] * source[(y + padding - r) / 2] where that is whole.
//   Tiles start where y + padding is even (`shift` = padding mod 2 before the image), so which taps are whole is known here.
// Maths: depthwise_conv2d.wgsl.
//
// A tile is 2 rows (forward with STRIDE 2, where rows share little: 1) x 4 columns of the target of 4 channels. Each source row under it is read once: for 3 x 3 with stride 1,
// 24 source vec4s and 9 weights for 8 results. Design: tfjs's and ONNX Runtime's DepthwiseConv3x3 with several outputs a thread.
// - GPUs: a thread owns a tile, neighbours are neighbours in channels.
// - STRIP (software drivers): a workgroup of 8 owns a strip of rows with all columns and channels, because cache misses decide there:
//   it touches its source, one value a cache line and eight lines an access, and then walks channels, rows and tiles.
//   `lanes` (8, 4, 2, 1) lie along the channels, the others take other tiles.
//
// x       source [N, H, W, C]
// weight  [SIZE, SIZE, C]
// bias    [C]; any buffer where has_bias is 0
// y       target [N, H, W, C]
{% set half = (SIZE - 1) // 2 %}
{% set tall = 1 if STRIDE == 2 else 2 %}
{% set rows = half + 1 if UP == 2 else (tall - 1) * STRIDE + SIZE %}
{% set columns = half + 2 if UP == 2 else 3 * STRIDE + SIZE %}
{% set move_y = 1 if UP == 2 else tall * STRIDE %}
{% set move_x = 2 if UP == 2 else 4 * STRIDE %}
{% include "grid.wgsl" %}
{{ input(0, "x", width=4) }}
{{ input(1, "weight", type="f32", width=4) }}
{{ input(2, "bias", type="f32", width=4) }}
{{ output(3, "y", width=4) }}
{{ params("count: u32, tiles_y: u32, tiles_x: u32, target_height: u32, target_width: u32, channels4: u32, source_height: u32,
    source_width: u32, shift_y: i32, shift_x: i32, start_y: i32, start_x: i32, last: u32, has_bias: u32, strip: u32, strips: u32,
    lanes: u32, nothing: f32") }}

fn tap(number: u32, channel: u32) -> vec4<f32> {
    return load4_weight(select(number, p.last - number, p.last != 0u) * p.channels4 + channel);
}

// What a channel has in common for all tiles: bias and, for 3 x 3, weights.
{% macro constants() %}
    let bias = select(vec4<f32>(), load4_bias(select(0u, channel, p.has_bias != 0u)), p.has_bias != 0u);
    {% if SIZE == 3 %}
    {% for n in range(9) %}
    let w{{ n }} = tap({{ n }}u, channel);
    {% endfor %}
    {% endif %}
{% endmacro %}

// The tile (band, t) of `image` and `channel`, where `live`.
{% macro tile() %}
    let y = i32(band * {{ tall }}u) - p.shift_y;
    let x = i32(t * 4u) - p.shift_x;
    let corner_y = i32(band * {{ move_y }}u) + p.start_y;
    let corner_x = i32(t * {{ move_x }}u) + p.start_x;
    {% for o in range(tall) %}
    {% for c in range(4) %}
    var acc{{ o }}_{{ c }} = bias;
    {% endfor %}
    {% endfor %}
    {% for c in range(columns) %}
    let ok{{ c }} = u32(corner_x + {{ c }}) < p.source_width;
    let at{{ c }} = select(0u, u32(corner_x + {{ c }}) * p.channels4, ok{{ c }}) + channel;
    {% endfor %}
    {% for j in range(rows) %}
    if (u32(corner_y + {{ j }}) < p.source_height) {
        let row = (image * p.source_height + u32(corner_y + {{ j }})) * p.source_width * p.channels4;
        {% for c in range(columns) %}
        let x{{ c }} = select(vec4<f32>(), load4_x(row + at{{ c }}), ok{{ c }});
        {% endfor %}
        {% for o in range(tall) %}
        {% set r = 2 * (half - j) + o if UP == 2 else j - o * STRIDE %}
        {% if r >= 0 and r < SIZE %}
        {% for s in range(SIZE) %}
        {% if SIZE != 3 %}
        let w{{ r * SIZE + s }} = tap({{ r * SIZE + s }}u, channel);
        {% endif %}
        {% for c in range(4) %}
        {% if UP == 1 %}
        acc{{ o }}_{{ c }} += x{{ c * STRIDE + s }} * w{{ r * SIZE + s }};
        {% elif (c + s) % 2 == 0 %}
        acc{{ o }}_{{ c }} += x{{ (c + SIZE - 1 - s) // 2 }} * w{{ r * SIZE + s }};
        {% endif %}
        {% endfor %}
        {% endfor %}
        {% endif %}
        {% endfor %}
    }
    {% endfor %}
    {% for o in range(tall) %}
    if (live && u32(y + {{ o }}) < p.target_height) {
        let to = i32((image * p.target_height + u32(y + {{ o }})) * p.target_width) + x;
        {% for c in range(4) %}
        if (u32(x + {{ c }}) < p.target_width) {
            store4_y(u32(to + {{ c }}) * p.channels4 + channel, acc{{ o }}_{{ c }});
        }
        {% endfor %}
    }
    {% endfor %}
{% endmacro %}

{% if STRIP %}
@compute @workgroup_size(8)
fn window(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let image = index / p.strips;
    let first = (index - image * p.strips) * p.strip;
    let end = min(first + p.strip, p.tiles_y);
    var touched = 0.0;
    // The source under the strip. Not the target: others write there.
    let top = u32(clamp(i32(first * {{ move_y }}u) + p.start_y, 0, i32(p.source_height)));
    let bottom = u32(clamp(i32((end - 1u) * {{ move_y }}u + {{ rows }}u) + p.start_y, 0, i32(p.source_height)));
    let line = p.source_width * p.channels4 * 4u;
    let begin = (image * p.source_height + top) * line;
    let to = (image * p.source_height + bottom) * line;
    for (var at = begin; at < min(to, begin + 0x100000u); at += 128u) {
        touched += load_x(min(at + lane * 16u, to - 1u));
    }
    // nothing is NaN, never equal: what has been touched counts as used.
    if (touched == p.nothing) {
        return;
    }
    for (var block = 0u; block < p.channels4; block += p.lanes) {
        let mine = block + lane % p.lanes;
        let channel = min(mine, p.channels4 - 1u);
        {{ constants() }}
        for (var band = first; band < end; band++) {
            for (var t0 = 0u; t0 < p.tiles_x; t0 += 8u / p.lanes) {
                let t = t0 + lane / p.lanes;
                let live = mine < p.channels4 && t < p.tiles_x;
                {{ tile() }}
            }
        }
    }
}
{% else %}
@compute @workgroup_size(64)
fn window(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.count) {
        return;
    }
    let number = i / p.channels4;
    let channel = i - number * p.channels4;
    let strip = number / p.tiles_x;
    let t = number - strip * p.tiles_x;
    let image = strip / p.tiles_y;
    let band = strip - image * p.tiles_y;
    let live = true;
    {{ constants() }}
    {{ tile() }}
}
{% endif %}

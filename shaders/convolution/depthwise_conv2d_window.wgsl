// Depthwise convolution with a SIZE x SIZE kernel (3, 5, 7), STRIDE 1 or 2, no dilation, multiplier 1, channels divisible by 4;
// with stride 1 also its gradient to the input, which reads the weights backwards (`last` = SIZE * SIZE - 1, else 0).
// Maths: depthwise_conv2d.wgsl.
//
// A thread owns 2 rows x 4 columns of the target and 4 channels. It reads each source row under its two rows once
// (3 * STRIDE + SIZE columns): for 3 x 3 with stride 1, 24 source vec4s and 9 weights for 8 results.
// Design: tfjs's and ONNX Runtime's DepthwiseConv3x3 with several outputs a thread.
//
// x       source [N, H, W, C]
// weight  [SIZE, SIZE, C]
// bias    [C]; any buffer where has_bias is 0
// y       target [N, H, W, C]
{% set columns = 3 * STRIDE + SIZE %}
{% include "grid.wgsl" %}
{{ input(0, "x", width=4) }}
{{ input(1, "weight", type="f32", width=4) }}
{{ input(2, "bias", type="f32", width=4) }}
{{ output(3, "y", width=4) }}
{{ params("count: u32, tiles_y: u32, tiles_x: u32, target_height: u32, target_width: u32, channels4: u32, source_height: u32,
    source_width: u32, start_y: i32, start_x: i32, last: u32, has_bias: u32, nothing: f32") }}

fn tap(number: u32, channel: u32) -> vec4<f32> {
    return load4_weight(select(number, p.last - number, p.last != 0u) * p.channels4 + channel);
}

@compute @workgroup_size(64)
fn window(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.count) {
        return;
    }
    let tile = i / p.channels4;
    let channel = i - tile * p.channels4;
    let band = tile / p.tiles_x;
    let image = band / p.tiles_y;
    let y = (band - image * p.tiles_y) * 2u;
    let x = (tile - band * p.tiles_x) * 4u;
    let corner_y = i32(y * {{ STRIDE }}u) + p.start_y;
    let corner_x = i32(x * {{ STRIDE }}u) + p.start_x;
    {% if TOUCH %}
    // On a processor eight neighbouring lanes read two cache lines an access; this fetches eight lines at once of the rows and
    // columns that no earlier tile has read. nothing is NaN: never equal.
    var touched = 0.0;
    let line = min((channel & 0xfffffff8u) + (lane & 1u) * 4u, p.channels4 - 1u);
    {% for j in range(SIZE - STRIDE, SIZE + STRIDE) %}
    {% for c in range(STRIDE) %}
    {
        let at_x = corner_x + i32({{ SIZE - STRIDE + 4 * c }}u + (lane & 7u) / 2u);
        let ok = u32(corner_y + {{ j }}) < p.source_height && u32(at_x) < p.source_width;
        let pixel = (image * p.source_height + u32(corner_y + {{ j }})) * p.source_width + u32(at_x);
        touched += load_x(select(0u, (pixel * p.channels4 + line) * 4u, ok));
    }
    {% endfor %}
    {% endfor %}
    if (touched == p.nothing) {
        return;
    }
    {% endif %}
    let bias = select(vec4<f32>(), load4_bias(select(0u, channel, p.has_bias != 0u)), p.has_bias != 0u);
    {% for o in range(2) %}
    {% for c in range(4) %}
    var acc{{ o }}_{{ c }} = bias;
    {% endfor %}
    {% endfor %}
    {% for c in range(columns) %}
    let ok{{ c }} = u32(corner_x + {{ c }}) < p.source_width;
    let at{{ c }} = select(0u, u32(corner_x + {{ c }}) * p.channels4, ok{{ c }}) + channel;
    {% endfor %}
    {% if SIZE == 3 %}
    {% for n in range(9) %}
    let w{{ n }} = tap({{ n }}u, channel);
    {% endfor %}
    {% endif %}
    {% for j in range(STRIDE + SIZE) %}
    if (u32(corner_y + {{ j }}) < p.source_height) {
        let row = (image * p.source_height + u32(corner_y + {{ j }})) * p.source_width * p.channels4;
        {% for c in range(columns) %}
        let x{{ c }} = select(vec4<f32>(), load4_x(row + at{{ c }}), ok{{ c }});
        {% endfor %}
        {% for o in range(2) %}
        {% set r = j - o * STRIDE %}
        {% if r >= 0 and r < SIZE %}
        {% for s in range(SIZE) %}
        {% if SIZE != 3 %}
        let w{{ r * SIZE + s }} = tap({{ r * SIZE + s }}u, channel);
        {% endif %}
        {% for c in range(4) %}
        acc{{ o }}_{{ c }} += x{{ c * STRIDE + s }} * w{{ r * SIZE + s }};
        {% endfor %}
        {% endfor %}
        {% endif %}
        {% endfor %}
    }
    {% endfor %}
    {% for o in range(2) %}
    if (y + {{ o }}u < p.target_height) {
        let to = ((image * p.target_height + y + {{ o }}u) * p.target_width + x) * p.channels4 + channel;
        {% for c in range(4) %}
        if (x + {{ c }}u < p.target_width) {
            store4_y(to + {{ c }}u * p.channels4, acc{{ o }}_{{ c }});
        }
        {% endfor %}
    }
    {% endfor %}
}

// Gradient of a depthwise convolution to its weights: for tap (r, s) and output channel o
//     sum over output pixels (n, y, x) of  x[n, y * step + start + r * dilation, .., o / multiplier] * dy[n, y, x, o]
// Output rows (of all images) are split into slabs; reduce.wgsl adds their partial sums.
//
// SIZE = 0: a thread owns one tap and WIDTH channels of a slab; any kernel, stride, dilation, multiplier.
// SIZE = 3, 5, 7 (kernel width; no dilation along x, STRIDE 1 or 2, multiplier 1, WIDTH 4): a thread owns BAND rows of the kernel
// and goes along the rows 4 output pixels at a time, reading the 3 * STRIDE + SIZE source columns under them once.
//
// x        source [N, H, W, C]          } channels in units of WIDTH
// dy       upstream [N, OH, OW, K]      }
// partial  [slabs][kh * kw][K rounded up to 4]
{% set V = "vec4<f32>" if WIDTH == 4 else "f32" %}
{% set W = "4" if WIDTH == 4 else "" %}
{% include "grid.wgsl" %}
{{ input(0, "x", width=WIDTH) }}
{{ input(1, "dy", width=WIDTH) }}
{{ output(2, "partial", type="f32", width=WIDTH) }}
{{ params("count: u32, rows: u32, height: u32, width: u32, channels: u32, line: u32, source_height: u32, source_width: u32,
    source_channels: u32, kernel_height: u32, kernel_width: u32, step_y: u32, step_x: u32, start_y: i32, start_x: i32, dilation_y: i32,
    dilation_x: i32, multiplier: u32, slab_rows: u32, nothing: f32") }}

{% if SIZE == 0 %}
@compute @workgroup_size(64)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.count) {
        return;
    }
    let item = i / p.channels;
    let channel = i - item * p.channels;
    let taps = p.kernel_height * p.kernel_width;
    let slab = item / taps;
    let tap = item - slab * taps;
    let r = tap / p.kernel_width;
    let offset_y = p.start_y + i32(r) * p.dilation_y;
    let offset_x = p.start_x + i32(tap - r * p.kernel_width) * p.dilation_x;
    let end = min((slab + 1u) * p.slab_rows, p.rows);
    var sum = {{ V }}(0.0);
    for (var row = slab * p.slab_rows; row < end; row++) {
        let image = row / p.height;
        let y = i32((row - image * p.height) * p.step_y) + offset_y;
        if (u32(y) < p.source_height) {
            let source = (image * p.source_height + u32(y)) * p.source_width;
            for (var x = 0u; x < p.width; x++) {
                let at = i32(x * p.step_x) + offset_x;
                if (u32(at) < p.source_width) {
                    let v = load{{ W }}_x((source + u32(at)) * p.source_channels + channel / p.multiplier);
                    sum += v * load{{ W }}_dy((row * p.width + x) * p.channels + channel);
                }
            }
        }
    }
    store{{ W }}_partial(item * p.line + channel, sum);
}
{% else %}
{% set columns = 3 * STRIDE + SIZE %}
@compute @workgroup_size(64)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.count) {
        return;
    }
    let item = i / p.channels;
    let channel = i - item * p.channels;
    let bands = p.kernel_height / {{ BAND }}u;
    let slab = item / bands;
    let r = (item - slab * bands) * {{ BAND }}u;
    let end = min((slab + 1u) * p.slab_rows, p.rows);
    {% for b in range(BAND) %}
    {% for s in range(SIZE) %}
    var acc{{ b }}_{{ s }} = vec4<f32>();
    {% endfor %}
    {% endfor %}
    for (var row = slab * p.slab_rows; row < end; row++) {
        let image = row / p.height;
        let corner_y = i32((row - image * p.height) * p.step_y) + p.start_y + i32(r) * p.dilation_y;
        for (var x = 0u; x < p.width; x += 4u) {
            let from_dy = (row * p.width + x) * p.channels + channel;
            {% if TOUCH %}
            // On a processor: eight cache lines at once, see depthwise_conv2d_window.wgsl.
            let line = min((channel & 0xfffffff8u) + (lane & 1u) * 4u, p.channels - 1u);
            let near = min(x + (lane & 7u) / 2u, p.width - 1u);
            let near_y = clamp(corner_y + {{ BAND - 1 }} * p.dilation_y, 0, i32(p.source_height) - 1);
            let near_x = clamp(i32(x * {{ STRIDE }}u) + p.start_x + i32({{ columns - 4 }}u + (lane & 7u) / 2u), 0, i32(p.source_width) - 1);
            let touched = load_dy(((row * p.width + near) * p.channels + line) * 4u)
                + load_x((((image * p.source_height + u32(near_y)) * p.source_width + u32(near_x)) * p.channels + line) * 4u);
            if (touched == p.nothing) {
                return;
            }
            {% endif %}
            {% for c in range(4) %}
            let live{{ c }} = x + {{ c }}u < p.width;
            let dy{{ c }} = select(vec4<f32>(), load4_dy(from_dy + select(0u, {{ c }}u * p.channels, live{{ c }})), live{{ c }});
            {% endfor %}
            let corner_x = i32(x * {{ STRIDE }}u) + p.start_x;
            {% for b in range(BAND) %}
            let y{{ b }} = corner_y + {{ b }} * p.dilation_y;
            if (u32(y{{ b }}) < p.source_height) {
                let source = (image * p.source_height + u32(y{{ b }})) * p.source_width;
                {% for c in range(columns) %}
                let ok{{ c }} = u32(corner_x + {{ c }}) < p.source_width;
                let x{{ c }} = select(vec4<f32>(), load4_x((source + select(0u, u32(corner_x + {{ c }}), ok{{ c }})) * p.channels + channel), ok{{ c }});
                {% endfor %}
                {% for s in range(SIZE) %}
                {% for c in range(4) %}
                acc{{ b }}_{{ s }} += x{{ c * STRIDE + s }} * dy{{ c }};
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
        }
    }
    {% for b in range(BAND) %}
    {% for s in range(SIZE) %}
    store4_partial(((slab * p.kernel_height + r + {{ b }}u) * {{ SIZE }}u + {{ s }}u) * p.line + channel, acc{{ b }}_{{ s }});
    {% endfor %}
    {% endfor %}
}
{% endif %}

// Depthwise convolution, forward and gradient to the input, for any kernel, stride, dilation and multiplier: target pixel (y, x),
// channel o sums over taps (r, s) the source pixel
//     (y * step + start + r * dilation) / up,   where that is whole and inside,
// times weight[r, s, ..]. Forward: step = stride, start = -padding, up = 1, source channel o / multiplier (`divide`).
// Gradient to the input: step = 1, start = padding, dilation negative, up = stride, and a sum over the multiplier's channels (`repeat`).
// With up > 1 only every tap_step-th tap (up / gcd(up, dilation)) meets whole source pixels: the others are not tried.
// REPEAT: `repeat` may exceed 1. A thread owns one pixel and WIDTH channels; neighbours are neighbours in channels.
//
// x       source [N, H, W, C]             } channels in units of WIDTH
// weight  [kh, kw, C * multiplier]        }
// bias    [C * multiplier]; any buffer where has_bias is 0
// y       target [N, H, W, channels]
{% set V = "vec4<f32>" if WIDTH == 4 else "f32" %}
{% set W = "4" if WIDTH == 4 else "" %}
{% include "grid.wgsl" %}
{{ input(0, "x", width=WIDTH) }}
{{ input(1, "weight", type="f32", width=WIDTH) }}
{{ input(2, "bias", type="f32", width=WIDTH) }}
{{ output(3, "y", width=WIDTH) }}
{{ params("count: u32, target_height: u32, target_width: u32, channels: u32, source_height: u32, source_width: u32, source_channels: u32,
    kernel_height: u32, kernel_width: u32, step_y: u32, step_x: u32, up_y: u32, up_x: u32, start_y: i32, start_x: i32,
    dilation_y: i32, dilation_x: i32, tap_step_y: u32, tap_step_x: u32, divide: u32, repeat: u32, has_bias: u32") }}

// floor(v / up). Integer division costs ten times as much on a processor; the half keeps the quotient off whole numbers, so it is
// exact while image sides are below a million.
fn quotient(v: i32, up: u32) -> i32 {
    return i32(floor((f32(v) + 0.5) / f32(up)));
}

// The first tap along an axis that meets whole source pixels; 65536, beyond every kernel, where none does.
fn first_tap(corner: i32, dilation: i32, up: u32, last: u32) -> u32 {
    var r = 0u;
    while (r < last && quotient(corner + i32(r) * dilation, up) * i32(up) != corner + i32(r) * dilation) {
        r += 1u;
    }
    return select(r, 0x10000u, r == last);
}

@compute @workgroup_size(64)
fn gather(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.count) {
        return;
    }
    let pixel = i / p.channels;
    let channel = i - pixel * p.channels;
    let row = pixel / p.target_width;
    let image = row / p.target_height;
    let corner_y = i32((row - image * p.target_height) * p.step_y) + p.start_y;
    let corner_x = i32((pixel - row * p.target_width) * p.step_x) + p.start_x;
    let first = channel / p.divide * p.repeat;
    var sum = select({{ V }}(0.0), load{{ W }}_bias(select(0u, channel, p.has_bias != 0u)), p.has_bias != 0u);
    let first_r = first_tap(corner_y, p.dilation_y, p.up_y, min(p.tap_step_y, p.kernel_height));
    let first_s = first_tap(corner_x, p.dilation_x, p.up_x, min(p.tap_step_x, p.kernel_width));
    let first_x = quotient(corner_x + i32(first_s) * p.dilation_x, p.up_x);
    let move_y = quotient(p.dilation_y * i32(p.tap_step_y), p.up_y);
    let move_x = quotient(p.dilation_x * i32(p.tap_step_x), p.up_x);
    var y = quotient(corner_y + i32(first_r) * p.dilation_y, p.up_y);
    for (var r = first_r; r < p.kernel_height; r += p.tap_step_y) {
        if (u32(y) < p.source_height) {
            var x = first_x;
            for (var s = first_s; s < p.kernel_width; s += p.tap_step_x) {
                if (u32(x) < p.source_width) {
                    let from_x = ((image * p.source_height + u32(y)) * p.source_width + u32(x)) * p.source_channels + first;
                    let from_w = (r * p.kernel_width + s) * max(p.channels, p.source_channels) + channel * p.repeat;
                    {% if REPEAT %}
                    for (var m = 0u; m < p.repeat; m++) {
                        sum += load{{ W }}_x(from_x + m) * load{{ W }}_weight(from_w + m);
                    }
                    {% else %}
                    sum += load{{ W }}_x(from_x) * load{{ W }}_weight(from_w);
                    {% endif %}
                }
                x += move_x;
            }
        }
        y += move_y;
    }
    store{{ W }}_y(i, sum);
}

// Gradient of a depthwise convolution to its weights: for tap (r, s) and output channel o
//     sum over output pixels (n, y, x) of  x[n, y * step + start + r * dilation, .., o / multiplier] * dy[n, y, x, o]
// Output rows (of all images; with SIZE > 0 bands of 2 rows, of 1 with STRIDE 2) are split into slabs; reduce.wgsl adds their partial sums.
//
// SIZE = 0: a thread owns one tap and WIDTH channels of a slab; any kernel, stride, dilation,
// multiplier.
// PIECES: rows are too long for one thread, so a slab is one of `parts` of `lanes` columns, too.
// SIZE = 3, 5, 7 (kernel width; no dilation along x, STRIDE 1 or 2, multiplier 1, WIDTH 4): a thread owns BAND rows of the kernel
// and goes along its output rows in tiles of a band x 4 pixels, reading the source rows of 3 * STRIDE + SIZE columns
// under a tile once. On GPUs neighbours are neighbours in channels. STRIP (software drivers): a workgroup of 8 has a slab with all its
// columns and, where there is one `part`, all channels, because cache misses decide there: it touches the slab, one value a cache line and
// eight lines an access. `lanes` (8, 4, 2, 1) lie along the channels; the others take other tiles and write slabs of their own.
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
    dilation_x: i32, multiplier: u32, slab_rows: u32, lanes: u32, parts: u32, nothing: f32") }}

{# The slab of a piece, and its columns: all of a row are the same for all threads, whose tests for
   its end then cost nothing where there is a scalar unit. #}
{% macro columns() %}
{% if PIECES %}
    let slab = piece / p.parts;
    let left = (piece - slab * p.parts) * p.lanes;
    let right = min(left + p.lanes, p.width);
{% else %}
    let slab = piece;
    let left = 0u;
    let right = p.width;
{% endif %}
{% endmacro %}
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
    let piece = item / taps;
    let tap = item - piece * taps;
    {{ columns() }}
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
            var part = {{ V }}(0.0);
            for (var x = left; x < right; x++) {
                let at = i32(x * p.step_x) + offset_x;
                if (u32(at) < p.source_width) {
                    let v = load{{ W }}_x((source + u32(at)) * p.source_channels + channel / p.multiplier);
                    part += v * load{{ W }}_dy((row * p.width + x) * p.channels + channel);
                }
            }
            sum += part;
        }
    }
    store{{ W }}_partial(item * p.line + channel, sum);
}
{% else %}
{% set wide = 3 * STRIDE + SIZE %}
{% set tall = 1 if STRIDE == 2 else 2 %}
// Adds the tile (band, column x) to the sums, where `live`.
{% macro tile() %}
            let y = (band - image * bands) * {{ tall }}u;
            // Places of neighbours are sums, of pixels by channels that are the same for all.
            let first_to = ((image * p.height + y) * p.width + x) * p.channels + channel;
            let next_row = p.width * p.channels;
            {% for o in range(tall) %}
            {% for c in range(4) %}
            let live{{ o }}_{{ c }} = live & (x + {{ c }}u < p.width) & (y + {{ o }}u < p.height);
            let to{{ o }}_{{ c }} = first_to + {{ o }}u * next_row + {{ c }}u * p.channels;
            let dy{{ o }}_{{ c }} = select(vec4<f32>(), load4_dy(select(0u, to{{ o }}_{{ c }}, live{{ o }}_{{ c }})), live{{ o }}_{{ c }});
            {% endfor %}
            {% endfor %}
            let corner_y = i32(y * {{ STRIDE }}u) + p.start_y + i32(r);
            let corner_x = i32(x * {{ STRIDE }}u) + p.start_x;
            let first_at = u32(corner_x) * p.channels + channel;
            let source_row = p.source_width * p.channels;
            let first_source = (image * p.source_height + u32(corner_y)) * source_row;
            {% for c in range(wide) %}
            let ok{{ c }} = u32(corner_x + {{ c }}) < p.source_width;
            let at{{ c }} = select(channel, first_at + {{ c }}u * p.channels, ok{{ c }});
            {% endfor %}
            {% for j in range((tall - 1) * STRIDE + BAND) %}
            if (u32(corner_y + {{ j }}) < p.source_height) {
                let source = first_source + {{ j }}u * source_row;
                {% for c in range(wide) %}
                let x{{ c }} = select(vec4<f32>(), load4_x(source + at{{ c }}), ok{{ c }});
                {% endfor %}
                {% for o in range(tall) %}
                {% set b = j - o * STRIDE %}
                {% if b >= 0 and b < BAND %}
                {% for s in range(SIZE) %}
                {% for c in range(4) %}
                acc{{ b }}_{{ s }} += x{{ c * STRIDE + s }} * dy{{ o }}_{{ c }};
                {% endfor %}
                {% endfor %}
                {% endif %}
                {% endfor %}
            }
            {% endfor %}
{% endmacro %}

{% macro zero() %}
    {% for b in range(BAND) %}
    {% for s in range(SIZE) %}
    var acc{{ b }}_{{ s }} = vec4<f32>();
    {% endfor %}
    {% endfor %}
{% endmacro %}

{% macro write(slab) %}
    {% for b in range(BAND) %}
    {% for s in range(SIZE) %}
    store4_partial((({{ slab }}) * p.kernel_height + r + {{ b }}u) * {{ SIZE }}u * p.line + {{ s }}u * p.line + channel, acc{{ b }}_{{ s }});
    {% endfor %}
    {% endfor %}
{% endmacro %}

{% if STRIP %}
@compute @workgroup_size(8)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let item = index / p.parts;
    let kernel_bands = p.kernel_height / {{ BAND }}u;
    let slab = item / kernel_bands;
    let r = (item - slab * kernel_bands) * {{ BAND }}u;
    let bands = (p.height + {{ tall - 1 }}u) / {{ tall }}u;
    let first = slab * p.slab_rows;
    let end = min(first + p.slab_rows, p.rows);
    if (p.parts == 1u) {
        // From the first image's first row of the slab to the last image's last.
        let image = first / bands;
        let begin = image * p.height + (first - image * bands) * {{ tall }}u;
        let last_image = (end - 1u) / bands;
        let stop = last_image * p.height + min((end - last_image * bands) * {{ tall }}u, p.height);
        var touched = 0.0;
        let line = p.width * p.channels * 4u;
        for (var at = begin * line; at < min(stop * line, begin * line + 0x100000u); at += 128u) {
            touched += load_dy(min(at + lane * 16u, stop * line - 1u));
        }
        let source_line = p.source_width * p.channels * 4u;
        let from_x = (image * p.source_height + min((first - image * bands) * {{ tall * STRIDE }}u, p.source_height - 1u)) * source_line;
        let to_x = (last_image * p.source_height + min((end - last_image * bands) * {{ tall * STRIDE }}u + 1u, p.source_height)) * source_line;
        for (var at = from_x; at < min(to_x, from_x + 0x100000u); at += 128u) {
            touched += load_x(min(at + lane * 16u, to_x - 1u));
        }
        // nothing is NaN, never equal: what has been touched counts as used.
        if (touched == p.nothing) {
            return;
        }
    }
    for (var block = (index - item * p.parts) * p.lanes; block < p.channels; block += p.parts * p.lanes) {
        let mine = block + lane % p.lanes;
        let channel = min(mine, p.channels - 1u);
        {{ zero() }}
        for (var band = first; band < end; band++) {
            let image = band / bands;
            for (var x0 = 0u; x0 < p.width; x0 += 32u / p.lanes) {
                let x = x0 + lane / p.lanes * 4u;
                let live = x < p.width;
                {{ tile() }}
            }
        }
        if (mine < p.channels) {
            {{ write("slab * (8u / p.lanes) + lane / p.lanes") }}
        }
    }
}
{% else %}
@compute @workgroup_size(64)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.count) {
        return;
    }
    let item = i / p.channels;
    let channel = i - item * p.channels;
    let kernel_bands = p.kernel_height / {{ BAND }}u;
    let piece = item / kernel_bands;
    let r = (item - piece * kernel_bands) * {{ BAND }}u;
    {{ columns() }}
    let bands = (p.height + {{ tall - 1 }}u) / {{ tall }}u;
    let end = min((slab + 1u) * p.slab_rows, p.rows);
    let live = true;
    {{ zero() }}
    for (var band = slab * p.slab_rows; band < end; band++) {
        let image = band / bands;
        for (var x = left; x < right; x += 4u) {
            {{ tile() }}
        }
    }
    {{ write("piece") }}
}
{% endif %}
{% endif %}

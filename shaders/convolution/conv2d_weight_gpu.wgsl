// Gradient of a dense or grouped convolution to its weights, for GPUs. Maths: include/convolution_weight.wgsl. Layout of the staged tiles and
// the product: include/product.wgsl.
//
// 256 invocations own a tile of 64 rows x 64 filters of one slab, 4 x 4 each, and go through the slab 16 pixels at a time by way of workgroup
// memory. Each brings 4 rows and 4 filters of one pixel: 16 neighbours read 64 adjacent values, with VECTOR (channels divisible by 4) as vec4s.
// Pixels are a number of three digits (image, row, column) to which 16 is added: no step divides. Row and column are counted in source pixels,
// and the place of the source pixel is added up beside them: no step multiplies.
// The next values are fetched before the present ones are used, and nothing asks for them before,
// as linear/gemm_gpu.wgsl says: an index outside becomes 0, and the value becomes zero where it
// goes into a tile. Tests are joined by &: compilers may keep the branches of &&, and wait before
// a branch for all that was fetched. The place of the step after the next is worked out behind the
// product, where multiply-adds fill the waits of its sums for each other.
// Design: CUTLASS's implicit GEMM for weight gradients with split K.
//
// x        source pixels [N, H, W, C]
// dy       upstream gradient [N, OH, OW, K]
// partial  see the include
{% from "product.wgsl" import loader, reader, product %}
{% include "grid.wgsl" %}
{% include "convolution_weight.wgsl" %}
{% include "counter.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "dy", width=4 if VECTOR_OUT else 1) }}
{{ output(2, "partial", type="f32", width=4) }}

var<workgroup> sources: array<vec4<f32>, 256>;
var<workgroup> upstream: array<vec4<f32>, 256>;

{# An invocation's rows and filters of the pixel (y, x), `pixel` by its number, as they are stored, and which of them are inside. #}
{% macro fetch(declare="") %}
    {{ declare }}live = pixel < end;
    {% for i in range(1 if VECTOR else 4) %}
    {{ declare }}inside{{ i }} = live & (u32(y + row_y{{ i }}) < p.source_height) & (u32(x_at + row{{ i }}.x) < p.source_width);
    {{ declare }}next_x{{ i }} = x[select(0u, place + offset{{ i }}, inside{{ i }}){{ " >> 2u" if VECTOR }}];
    {% endfor %}
    {% for i in range(1 if VECTOR_OUT else 4) %}
    {{ declare }}wanted{{ i }} = live & (column4 * 4u + {{ i }}u < p.columns);
    {{ declare }}next_dy{{ i }} = dy[select(0u, to + {{ i }}u, wanted{{ i }}){{ " >> 2u" if VECTOR_OUT }}];
    {% endfor %}
{% endmacro %}

{# Goes on by 16 pixels. #}
{% macro advance() %}
    pixel += 16u;
    to += 16u * p.filters;
    x_at += by_x;
    let over_x = x_at >= end_x;
    x_at -= select(0, end_x, over_x);
    y += by_y + select(0, step_y, over_x);
    let over_y = y >= end_y;
    y -= select(0, end_y, over_y);
    place += by_place + select(0u, over_place_x, over_x) + select(0u, over_place_y, over_y);
{% endmacro %}
{% macro staged(next, inside, wide) %}
{% if wide %}
select(vec4<f32>(), vec4<f32>({{ next }}0), {{ inside }}0);
{% else %}
select(
            vec4<f32>(),
            vec4<f32>(vec4<{{ T }}>({{ next }}0, {{ next }}1, {{ next }}2, {{ next }}3)),
            vec4<bool>({{ inside }}0, {{ inside }}1, {{ inside }}2, {{ inside }}3),
        );
{% endif %}
{% endmacro %}
@compute @workgroup_size(256)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let t = tile(index, 64u, 16u);
    let columns4 = (p.columns + 3u) / 4u;
    let across = local & 15u;
    let down = local >> 4u;
    let column4 = t.column4 + across;
    {% for i in range(1 if VECTOR else 4) %}
    let row{{ i }} = row_at(t.row + across * 4u + {{ i }}u, t);
    let offset{{ i }} = u32(row{{ i }}.y * i32(p.source_width) + row{{ i }}.x) * p.source_channels + row{{ i }}.channel;
    let row_y{{ i }} = select(OUTSIDE, row{{ i }}.y, row{{ i }}.inside);
    {% endfor %}
    {{ reader("sources", "x", "down") }}
    {{ reader("upstream", "x", "across") }}
    let first = t.slab * p.slab_pixels;
    let end = min(first + p.slab_pixels, p.pixels);
    // As a loader: pixel `down` of a step, rows and filters 4 * across on. (y, x) is where a tap of offset 0 lies.
    let sixteen = counter(16u, p.width, p.height);
    let step_y = i32(p.step_y);
    let by_x = i32(sixteen.low * p.step_x);
    let by_y = i32(sixteen.middle * p.step_y);
    let end_x = i32(p.width * p.step_x);
    let end_y = i32(p.height * p.step_y);
    let line = p.source_width * p.source_channels;
    let over_place_x = p.step_y * line - u32(end_x) * p.source_channels;
    let over_place_y = (p.source_height - u32(end_y)) * line;
    let by_place = sixteen.high * p.source_height * line + u32(by_y) * line + u32(by_x) * p.source_channels;
    var pixel = first + down;
    var to = pixel * p.filters + t.channel_group * p.columns + column4 * 4u;
    let begin = pixel_at(pixel);
    var y = i32(begin.y * p.step_y);
    var x_at = i32(begin.x * p.step_x);
    var place = (begin.image * p.source_height + u32(y)) * line + u32(x_at) * p.source_channels;
    {{ fetch("var ") }}
    {{ advance() }}
    {% for i in range(4) %}
    var sum{{ i }}_0 = vec4<f32>();
    {% endfor %}
    for (var step = first; step < end; step += 16u) {
        workgroupBarrier();
        sources[local] = {{ staged("next_x", "inside", VECTOR) }}
        upstream[local] = {{ staged("next_dy", "wanted", VECTOR_OUT) }}
        workgroupBarrier();
        {{ fetch() }}
        {{ product("sources", "x", "upstream", "x", 64, "sum", AHEAD) }}
        {{ advance() }}
    }
    // As a writer: rows 4 * down on, filters of column4.
    {% for i in range(4) %}
    if (t.row + down * 4u + {{ i }}u < p.rows && column4 < columns4) {
        store4_partial(partial_at(t, t.row + down * 4u + {{ i }}u, column4), sum{{ i }}_0);
    }
    {% endfor %}
}

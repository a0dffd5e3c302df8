// Gradient of a dense or grouped convolution to its weights, for GPUs. Maths: include/convolution_weight.wgsl. Layout of the staged tiles and
// the product: include/product.wgsl.
//
// 256 invocations own a tile of 64 rows x 64 filters of one slab, 4 x 4 each, and go through the slab 16 pixels at a time by way of workgroup
// memory. Each brings 4 rows and 4 filters of one pixel: 16 neighbours read 64 adjacent values, with VECTOR (channels divisible by 4) as vec4s.
// Pixels are a number of three digits (image, row, column) to which 16 is added: no step divides.
// The next values are fetched before the present ones are used, and nothing asks for them before, as linear/gemm_gpu.wgsl says: an index
// outside becomes 0, and the value becomes zero where it goes into a tile.
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

{# An invocation's rows and filters of the pixel `at`, `pixel` by its number, as they are stored, and which of them are inside. #}
{% macro fetch(declare="") %}
    {{ declare }}live = pixel < end;
    {{ declare }}place = Pixel(at.high, at.middle, at.low);
    {% for i in range(1 if VECTOR else 4) %}
    {{ declare }}source{{ i }} = source_at(place, row{{ i }});
    {{ declare }}inside{{ i }} = live && source{{ i }} != NONE;
    {{ declare }}next_x{{ i }} = x[select(0u, source{{ i }}, inside{{ i }}){{ " >> 2u" if VECTOR }}];
    {% endfor %}
    {{ declare }}to = pixel * p.filters + t.channel_group * p.columns + column4 * 4u;
    {% for i in range(1 if VECTOR_OUT else 4) %}
    {{ declare }}wanted{{ i }} = live && column4 * 4u + {{ i }}u < p.columns;
    {{ declare }}next_dy{{ i }} = dy[select(0u, to + {{ i }}u, wanted{{ i }}){{ " >> 2u" if VECTOR_OUT }}];
    {% endfor %}
    at = advance(at, sixteen, p.width, p.height);
    pixel += 16u;
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
    {% endfor %}
    {{ reader("sources", "x", "down") }}
    {{ reader("upstream", "x", "across") }}
    let first = t.slab * p.slab_pixels;
    let end = min(first + p.slab_pixels, p.pixels);
    // As a loader: pixel `down` of a step, rows and filters 4 * across on.
    let sixteen = counter(16u, p.width, p.height);
    var pixel = first + down;
    let begin = pixel_at(pixel);
    var at = Counter(begin.x, begin.y, begin.image);
    {{ fetch("var ") }}
    {% for i in range(4) %}
    var sum{{ i }}_0 = vec4<f32>();
    {% endfor %}
    for (var step = first; step < end; step += 16u) {
        workgroupBarrier();
        sources[local] = {{ staged("next_x", "inside", VECTOR) }}
        upstream[local] = {{ staged("next_dy", "wanted", VECTOR_OUT) }}
        workgroupBarrier();
        {{ fetch() }}
        {{ product("sources", "x", "upstream", "x", 64, "sum") }}
    }
    // As a writer: rows 4 * down on, filters of column4.
    {% for i in range(4) %}
    if (t.row + down * 4u + {{ i }}u < p.rows && column4 < columns4) {
        store4_partial(partial_at(t, t.row + down * 4u + {{ i }}u, column4), sum{{ i }}_0);
    }
    {% endfor %}
}

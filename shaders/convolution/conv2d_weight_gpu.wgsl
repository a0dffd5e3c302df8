// Gradient of a dense or grouped convolution to its weights, for GPUs. Maths: include/convolution_weight.wgsl.
//
// 256 threads own a tile of 64 rows x 64 filters of one slab, 4 x 4 a thread, and go through the slab 16 pixels at a time by way
// of workgroup memory: `sources` [16 pixels][64 rows], `upstream` [16 pixels][64 filters]; 16 neighbours read 64 adjacent values, with
// VECTOR (channels divisible by 4) as vec4s. The next pixels are fetched before the present ones are used.
// Design: CUTLASS's implicit GEMM for weight gradients with split K.
//
// x        source pixels [N, H, W, C]
// dy       upstream gradient [N, OH, OW, K]
// partial  see the include
{% include "grid.wgsl" %}
{% include "convolution_weight.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "dy", width=4 if VECTOR_OUT else 1) }}
{{ output(2, "partial", type="f32", width=4) }}

var<workgroup> sources: array<vec4<f32>, 256>;
var<workgroup> upstream: array<vec4<f32>, 256>;

{# Sets x and dy: 4 rows and 4 filters of a pixel, 0 where there is none. #}
{% macro fetch(pixel) %}
    x = vec4<f32>();
    dy = vec4<f32>();
    if ({{ pixel }} < end) {
        let at = pixel_at({{ pixel }});
        {% if VECTOR %}
        let source = source_at(at, row0);
        if (source != NONE) {
            x = load4_x(source / 4u);
        }
        {% else %}
        {% for i in range(4) %}
        let source{{ i }} = source_at(at, row{{ i }});
        if (source{{ i }} != NONE) {
            x[{{ i }}] = load_x(source{{ i }});
        }
        {% endfor %}
        {% endif %}
        let to = ({{ pixel }}) * p.filters + t.channel_group * p.columns + column4 * 4u;
        {% if VECTOR_OUT %}
        if (column4 < columns4) {
            dy = load4_dy(to / 4u);
        }
        {% else %}
        {% for m in range(4) %}
        if (column4 * 4u + {{ m }}u < p.columns) {
            dy[{{ m }}] = load_dy(to + {{ m }}u);
        }
        {% endfor %}
        {% endif %}
    }
{% endmacro %}
@compute @workgroup_size(256)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let t = tile(index, 64u, 16u);
    let columns4 = (p.columns + 3u) / 4u;
    let low = lane % 16u;
    let high = lane / 16u;
    let column4 = t.column4 + low;
    {% for i in range(1 if VECTOR else 4) %}
    let row{{ i }} = row_at(t.row + low * 4u + {{ i }}u, t);
    {% endfor %}
    {% for i in range(4) %}
    var acc{{ i }} = vec4<f32>();
    {% endfor %}
    let end = min((t.slab + 1u) * p.slab_pixels, p.pixels);
    // As a reader: pixel first + high, rows and filters 4 * low on.
    var x: vec4<f32>;
    var dy: vec4<f32>;
    {{ fetch("t.slab * p.slab_pixels + high") }}
    for (var first = t.slab * p.slab_pixels; first < end; first += 16u) {
        workgroupBarrier();
        sources[lane] = x;
        upstream[lane] = dy;
        workgroupBarrier();
        {{ fetch("first + 16u + high") }}
        {% for m in range(16) %}
        let x{{ m }} = sources[{{ m * 16 }}u + high];
        let dy{{ m }} = upstream[{{ m * 16 }}u + low];
        {% for i in range(4) %}
        acc{{ i }} += x{{ m }}[{{ i }}] * dy{{ m }};
        {% endfor %}
        {% endfor %}
    }
    // As a writer: rows high * 4 + i, filters of column4.
    {% for i in range(4) %}
    if (t.row + high * 4u + {{ i }}u < p.rows && column4 < columns4) {
        store4_partial(partial_at(t, t.row + high * 4u + {{ i }}u, column4), acc{{ i }});
    }
    {% endfor %}
}

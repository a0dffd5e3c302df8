// Gradient of a dense or grouped convolution to its weights, for software drivers. Maths: include/convolution_weight.wgsl.
//
// A workgroup is one subgroup of 8 lanes and owns 32 rows x 32 filters of one slab: a lane has 4 adjacent filters and 32 vec4
// accumulators. Per pixel one access brings the upstream gradient of all lanes' filters, and one (VECTOR: channels divisible
// by 4) or four bring the source values of all 32 rows, 4 a lane, which subgroupShuffle spreads. Four pixels a loop iteration:
// llvmpipe blends every accumulator with the execution mask once an iteration.
//
// x        source pixels [N, H, W, C]
// dy       upstream gradient [N, OH, OW, K]
// partial  see the include
{% include "grid.wgsl" %}
{% include "convolution_weight.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "dy", width=4 if VECTOR_OUT else 1) }}
{{ output(2, "partial", type="f32", width=4) }}

@compute @workgroup_size(8)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let t = tile(index, 32u, 8u);
    let columns4 = (p.columns + 3u) / 4u;
    let column4 = min(t.column4 + lane, columns4 - 1u);
    let row0 = row_at(t.row + lane * 4u, t);
    {% if not VECTOR %}
    {% for i in range(1, 4) %}
    let row{{ i }} = row_at(t.row + lane * 4u + {{ i }}u, t);
    {% endfor %}
    {% endif %}
    {% for i in range(32) %}
    var acc{{ i }} = vec4<f32>();
    {% endfor %}
    let end = min((t.slab + 1u) * p.slab_pixels, p.pixels);
    var at = pixel_at(t.slab * p.slab_pixels);
    for (var pixel = t.slab * p.slab_pixels; pixel < end; pixel += 4u) {
        {% for u in range(4) %}
        {
            let live = pixel + {{ u }}u < end;
            let from_ = min(pixel + {{ u }}u, end - 1u) * p.filters + t.channel_group * p.columns + column4 * 4u;
            {% if VECTOR_OUT %}
            let dy = load4_dy(from_ / 4u);
            {% else %}
            let last = p.columns - 1u - column4 * 4u;
            let dy = vec4<f32>(load_dy(from_), load_dy(from_ + min(1u, last)), load_dy(from_ + min(2u, last)), load_dy(from_ + min(3u, last)));
            {% endif %}
            {% if VECTOR %}
            let from0 = source_at(at, row0);
            let ok = live && from0 != NONE;
            let x = select(vec4<f32>(), load4_x(select(0u, from0 / 4u, ok)), ok);
            {% else %}
            {% for i in range(4) %}
            let from{{ i }} = source_at(at, row{{ i }});
            let ok{{ i }} = live && from{{ i }} != NONE;
            let x{{ i }} = select(0.0, load_x(select(0u, from{{ i }}, ok{{ i }})), ok{{ i }});
            {% endfor %}
            let x = vec4<f32>(x0, x1, x2, x3);
            {% endif %}
            {% for i in range(32) %}
            acc{{ i }} += subgroupShuffle(x[{{ i % 4 }}], {{ i // 4 }}u) * dy;
            {% endfor %}
            at = next(at);
        }
        {% endfor %}
    }
    if (t.column4 + lane < columns4) {
        {% for i in range(32) %}
        if (t.row + {{ i }}u < p.rows) {
            store4_partial(partial_at(t, t.row + {{ i }}u, column4), acc{{ i }});
        }
        {% endfor %}
    }
}

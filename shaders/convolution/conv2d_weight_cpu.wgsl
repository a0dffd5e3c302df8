// Gradient of a dense or grouped convolution to its weights, for software drivers. Maths: include/convolution_weight.wgsl.
//
// A workgroup is one subgroup of 8 lanes and owns 32 rows x 32 filters of one slab: a lane has 4 adjacent filters and 32 vec4
// accumulators. Per pixel one access brings the upstream gradient of all lanes' filters, and one (VECTOR: channels divisible
// by 4) or four bring the source values of all 32 rows, 4 a lane, which subgroupShuffle spreads. Eight pixels a loop iteration:
// llvmpipe loads, blends with the execution mask and stores every accumulator once an iteration.
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
    {% if not VECTOR_OUT %}
    // The last of a lane's four filters that exists.
    let last = min(3u, p.columns - 1u - column4 * 4u);
    {% endif %}
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
    for (var pixel = t.slab * p.slab_pixels; pixel < end; pixel += 8u) {
        {% for u in range(8) %}
        let live{{ u }} = pixel + {{ u }}u < end;
        let to{{ u }} = min(pixel + {{ u }}u, end - 1u) * p.filters + t.channel_group * p.columns + column4 * 4u;
        {% if VECTOR_OUT %}
        let dy{{ u }} = load4_dy(to{{ u }} / 4u);
        {% else %}
        let dy{{ u }} = vec4<f32>(load_dy(to{{ u }}), load_dy(to{{ u }} + min(1u, last)), load_dy(to{{ u }} + min(2u, last)), load_dy(to{{ u }} + min(3u, last)));
        {% endif %}
        {% for i in range(1 if VECTOR else 4) %}
        let from{{ u }}_{{ i }} = source_at(at, row{{ i }});
        let ok{{ u }}_{{ i }} = live{{ u }} && from{{ u }}_{{ i }} != NONE;
        {% endfor %}
        {% if VECTOR %}
        let x{{ u }} = select(vec4<f32>(), load4_x(select(0u, from{{ u }}_0 / 4u, ok{{ u }}_0)), ok{{ u }}_0);
        {% else %}
        let x{{ u }} = vec4<f32>(
            {% for i in range(4) %}
            select(0.0, load_x(select(0u, from{{ u }}_{{ i }}, ok{{ u }}_{{ i }})), ok{{ u }}_{{ i }}),
            {% endfor %}
        );
        {% endif %}
        at = next(at);
        {% endfor %}
        {% for i in range(32) %}
        {% for u in range(8) %}
        acc{{ i }} += subgroupShuffle(x{{ u }}[{{ i % 4 }}], {{ i // 4 }}u) * dy{{ u }};
        {% endfor %}
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

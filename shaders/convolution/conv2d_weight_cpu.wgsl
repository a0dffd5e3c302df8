// Gradient of a dense or grouped convolution to its weights, for software drivers. Maths: include/convolution_weight.wgsl.
//
// A workgroup is one subgroup of 8 lanes and owns 32 rows x 32 filters of one slab: a lane has 4 adjacent filters and 32 vec4
// accumulators. An iteration takes 8 pixels. One access a pixel brings the upstream gradient of all lanes' filters; the source values
// are brought by lane = pixel, for 4 rows an access (VECTOR: channels divisible by 4) or one, and spread by subgroupShuffle.
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
    {% set width = 4 if VECTOR else 1 %}
    {% for i in range(0, 32, width) %}
    let row{{ i }} = row_at(t.row + {{ i }}u, t);
    {% endfor %}
    {% for i in range(32) %}
    var acc{{ i }} = vec4<f32>();
    {% endfor %}
    var touched = 0.0;
    let end = min((t.slab + 1u) * p.slab_pixels, p.pixels);
    for (var pixel = t.slab * p.slab_pixels; pixel < end; pixel += 8u) {
        let mine = min(pixel + lane, end - 1u);
        let live = pixel + lane < end;
        let at = pixel_at(mine);
        {% if VECTOR_OUT %}
        // Fetches eight cache lines at once that the accesses below would wait for two by two.
        let line = (mine * p.filters + t.channel_group * p.columns) / 4u;
        touched += load_dy((line + min(t.column4, columns4 - 1u)) * 4u) + load_dy((line + min(t.column4 + 4u, columns4 - 1u)) * 4u);
        {% endif %}
        {% for i in range(0, 32, width) %}
        let from{{ i }} = source_at(at, row{{ i }});
        let ok{{ i }} = live && from{{ i }} != NONE;
        {% if VECTOR %}
        let x{{ i }} = select(vec4<f32>(), load4_x(select(0u, from{{ i }} / 4u, ok{{ i }})), ok{{ i }});
        {% else %}
        let x{{ i }} = select(0.0, load_x(select(0u, from{{ i }}, ok{{ i }})), ok{{ i }});
        {% endif %}
        {% endfor %}
        {% for u in range(8) %}
        let to{{ u }} = min(pixel + {{ u }}u, end - 1u) * p.filters + t.channel_group * p.columns + column4 * 4u;
        {% if VECTOR_OUT %}
        let dy{{ u }} = load4_dy(to{{ u }} / 4u);
        {% else %}
        let dy{{ u }} = vec4<f32>(load_dy(to{{ u }}), load_dy(to{{ u }} + min(1u, last)), load_dy(to{{ u }} + min(2u, last)), load_dy(to{{ u }} + min(3u, last)));
        {% endif %}
        {% endfor %}
        {% for i in range(32) %}
        {% for u in range(8) %}
        acc{{ i }} += subgroupShuffle(x{{ i // width * width }}{% if VECTOR %}[{{ i % 4 }}]{% endif %}, {{ u }}u) * dy{{ u }};
        {% endfor %}
        {% endfor %}
    }
    // nothing is NaN, never equal: what has been touched counts as used.
    if (touched == p.nothing) {
        return;
    }
    if (t.column4 + lane < columns4) {
        {% for i in range(32) %}
        if (t.row + {{ i }}u < p.rows) {
            store4_partial(partial_at(t, t.row + {{ i }}u, column4), acc{{ i }});
        }
        {% endfor %}
    }
}

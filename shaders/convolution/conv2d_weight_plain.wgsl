// Gradient of a dense or grouped convolution to its weights, for adapters without subgroups of eight and narrow groups: a thread
// owns 4 rows x 4 filters of one slab. Maths: include/convolution_weight.wgsl.
//
// x        source pixels [N, H, W, C]
// dy       upstream gradient [N, OH, OW, K]
// partial  see the include
{% include "grid.wgsl" %}
{% include "convolution_weight.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "dy", width=4 if VECTOR_OUT else 1) }}
{{ output(2, "partial", type="f32", width=4) }}

@compute @workgroup_size(64)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group_index(wid, nwg) * 64u + lane;
    if (index >= p.tiles) {
        return;
    }
    let t = tile(index, 4u, 1u);
    {% for i in range(4) %}
    let row{{ i }} = row_at(t.row + {{ i }}u, t);
    var acc{{ i }} = vec4<f32>();
    {% endfor %}
    let end = min((t.slab + 1u) * p.slab_pixels, p.pixels);
    var at = pixel_at(t.slab * p.slab_pixels);
    for (var pixel = t.slab * p.slab_pixels; pixel < end; pixel++) {
        let from_ = pixel * p.filters + t.channel_group * p.columns + t.column4 * 4u;
        {% if VECTOR_OUT %}
        let dy = load4_dy(from_ / 4u);
        {% else %}
        var dy: vec4<f32>;
        {% for m in range(4) %}
        if (t.column4 * 4u + {{ m }}u < p.columns) {
            dy[{{ m }}] = load_dy(from_ + {{ m }}u);
        }
        {% endfor %}
        {% endif %}
        {% if VECTOR %}
        let from0 = source_at(at, row0);
        let x = select(vec4<f32>(), load4_x(select(0u, from0 / 4u, from0 != NONE)), from0 != NONE);
        {% for i in range(4) %}
        acc{{ i }} += x[{{ i }}] * dy;
        {% endfor %}
        {% else %}
        {% for i in range(4) %}
        let from{{ i }} = source_at(at, row{{ i }});
        acc{{ i }} += select(0.0, load_x(select(0u, from{{ i }}, from{{ i }} != NONE)), from{{ i }} != NONE) * dy;
        {% endfor %}
        {% endif %}
        at = next(at);
    }
    {% for i in range(4) %}
    if (row{{ i }}.inside) {
        store4_partial(partial_at(t, t.row + {{ i }}u, t.column4), acc{{ i }});
    }
    {% endfor %}
}

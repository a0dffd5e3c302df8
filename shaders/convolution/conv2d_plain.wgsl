// Dense and grouped convolution, forward and gradient to the input, for adapters without subgroups of eight and for groups too
// narrow for a tile: a thread owns 4 target pixels x 4 columns and loops over taps and channels; the sums of the taps are added to each other. Maths and walk: include/convolution.wgsl.
//
// x       source pixels [N, H, W, channels]
// weight  packed, see pack.wgsl
// y       target pixels [N, H, W, channels]
{% include "grid.wgsl" %}
{% include "convolution.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "weight", type="f32", width=4) }}
{{ output(2, "y", width=4 if VECTOR_OUT else 1) }}

@compute @workgroup_size(64)
fn gather(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group_index(wid, nwg) * 64u + lane;
    if (index >= p.tiles) {
        return;
    }
    let t = tile(index, 4u, 1u);
    let columns4 = (p.columns + 3u) / 4u;
    let block = weight_block(t, columns4) + t.column4;
    let start = origin(t);
    {% for i in range(4) %}
    let k{{ i }} = corner(start, {{ i }}u, t);
    var sum{{ i }} = vec4<f32>();
    {% endfor %}
    let list = taps(t);
    {% if VECTOR %}
    let channels = p.source_channels / 4u;
    let first = t.channel_group * p.rows / 4u;
    let count = p.rows / 4u;
    {% else %}
    let channels = p.source_channels;
    let first = t.channel_group * p.rows;
    let count = p.rows;
    {% endif %}
    for (var ty = 0u; ty < list.count_y; ty++) {
        for (var tx = 0u; tx < list.count_x; tx++) {
            let tap = tap_at(list, ty, tx);
            let offset = tap.y * i32(p.source_width) + tap.x;
            {% for i in range(4) %}
            let ok{{ i }} = inside_source(k{{ i }}.y + tap.y, k{{ i }}.x + tap.x);
            let at{{ i }} = select(0u, u32(k{{ i }}.source + offset) * channels, ok{{ i }}) + first;
            {% endfor %}
            {% for i in range(4) %}
            var acc{{ i }} = vec4<f32>();
            {% endfor %}
            var w = block + tap.number * p.rows * columns4;
            for (var c = 0u; c < count; c++) {
                {% if VECTOR %}
                {% for i in range(4) %}
                let x{{ i }} = select(vec4<f32>(), load4_x(at{{ i }} + c), ok{{ i }});
                {% endfor %}
                {% for m in range(4) %}
                let w{{ m }} = load4_weight(w);
                {% for i in range(4) %}
                acc{{ i }} += x{{ i }}[{{ m }}] * w{{ m }};
                {% endfor %}
                w += columns4;
                {% endfor %}
                {% else %}
                let w0 = load4_weight(w);
                {% for i in range(4) %}
                acc{{ i }} += select(0.0, load_x(at{{ i }} + c), ok{{ i }}) * w0;
                {% endfor %}
                w += columns4;
                {% endif %}
            }
            {% for i in range(4) %}
            sum{{ i }} += acc{{ i }};
            {% endfor %}
        }
    }
    let bias = load4_weight(block + bias_row(columns4));
    {% for i in range(4) %}
    sum{{ i }} += bias;
    if (k{{ i }}.number != NONE) {
        {% if VECTOR_OUT %}
        store4_y((k{{ i }}.number * p.target_channels + t.channel_group * p.columns) / 4u + t.column4, sum{{ i }});
        {% else %}
        let o{{ i }} = k{{ i }}.number * p.target_channels + t.channel_group * p.columns;
        {% for m in range(4) %}
        if (t.column4 * 4u + {{ m }}u < p.columns) {
            store_y(o{{ i }} + t.column4 * 4u + {{ m }}u, sum{{ i }}[{{ m }}]);
        }
        {% endfor %}
        {% endif %}
    }
    {% endfor %}
}

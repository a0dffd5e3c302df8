// Dense and grouped convolution, forward and gradient to the input, for GPUs: an implicit matrix product, pixels x columns, summed
// over the flat list (tap, channel). Maths and walk: include/convolution.wgsl.
//
// 256 threads own a tile of 64 pixels x 64 columns, 4 x 4 a thread, and go through the list 16 positions at a time by way of
// workgroup memory: `sources` [16][64 pixels] (rows padded by one vec4 against bank conflicts), `weights` [16][64 columns].
// A thread brings 4 pixels of one position, so that 16 neighbours read 64 adjacent bytes and it can store a vec4.
// Design: the usual tiled product (CUTLASS's implicit GEMM, ggml's Vulkan convolution).
//
// x       source pixels [N, H, W, channels]
// weight  packed, see pack.wgsl
// y       target pixels [N, H, W, channels]
{% include "grid.wgsl" %}
{% include "convolution.wgsl" %}
{{ input(0, "x") }}
{{ input(1, "weight", type="f32", width=4) }}
{{ output(2, "y", width=4 if VECTOR_OUT else 1) }}

var<workgroup> sources: array<vec4<f32>, 272>;
var<workgroup> weights: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn gather(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let t = tile(index, 64u, 16u);
    let columns4 = (p.columns + 3u) / 4u;
    let low = lane % 16u;
    let high = lane / 16u;
    let column4 = t.column4 + low;
    let block = weight_block(t, columns4) + min(column4, columns4 - 1u);
    let start = origin(t);
    {% for i in range(4) %}
    let k{{ i }} = corner(start, high * 4u + {{ i }}u, t);
    var acc{{ i }} = load4_weight(block + bias_row(columns4));
    {% endfor %}
    let list = taps(t);
    let total = list.count_y * list.count_x * p.rows;
    for (var q = 0u; q < total; q += 16u) {
        // As a reader of sources: position q + low of 4 pixels.
        let mine = min(q + low, total - 1u);
        let tap_index = mine / p.rows;
        let c = mine - tap_index * p.rows;
        let ty = tap_index / list.count_x;
        let tap = tap_at(list, t, ty, tap_index - ty * list.count_x);
        let offset = tap.y * i32(p.source_width) + tap.x;
        let channel = t.channel_group * p.rows + c;
        var x: vec4<f32>;
        {% for i in range(4) %}
        let ok{{ i }} = q + low < total && inside_source(k{{ i }}.y + tap.y, k{{ i }}.x + tap.x);
        if (ok{{ i }}) {
            x[{{ i }}] = load_x(u32(k{{ i }}.source + offset) * p.source_channels + channel);
        }
        {% endfor %}
        // As a reader of weights: position q + high, 4 columns.
        let theirs = min(q + high, total - 1u);
        let weight_tap = theirs / p.rows;
        let weight_ty = weight_tap / list.count_x;
        let number = tap_at(list, t, weight_ty, weight_tap - weight_ty * list.count_x).number;
        let w = load4_weight(block + (number * p.rows + theirs - weight_tap * p.rows) * columns4);
        workgroupBarrier();
        sources[low * 17u + high] = x;
        weights[lane] = w;
        workgroupBarrier();
        {% for m in range(16) %}
        let x{{ m }} = sources[{{ m * 17 }}u + high];
        let w{{ m }} = weights[{{ m * 16 }}u + low];
        {% for i in range(4) %}
        acc{{ i }} += x{{ m }}[{{ i }}] * w{{ m }};
        {% endfor %}
        {% endfor %}
    }
    {% for i in range(4) %}
    if (k{{ i }}.number != NONE && column4 < columns4) {
        let o{{ i }} = k{{ i }}.number * p.target_channels + t.channel_group * p.columns + column4 * 4u;
        {% if VECTOR_OUT %}
        store4_y(o{{ i }} / 4u, acc{{ i }});
        {% else %}
        {% for m in range(4) %}
        if (column4 * 4u + {{ m }}u < p.columns) {
            store_y(o{{ i }} + {{ m }}u, acc{{ i }}[{{ m }}]);
        }
        {% endfor %}
        {% endif %}
    }
    {% endfor %}
}

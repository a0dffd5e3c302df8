// Gradient of a dense or grouped convolution to its weights, for software drivers. Maths: include/convolution_weight.wgsl.
//
// A workgroup is one subgroup of 8 lanes. LANES of them (8, or 4 where there are few filters) lie along the filters, 4 a lane; they own
// 4 * LANES rows x 4 * LANES filters of one slab in vec4 accumulators, one a row. The others take other pixels, and are added at the end.
// A step takes 8 / LANES pixels, an iteration 8 steps. One access of a step brings the upstream gradient of all its pixels and filters,
// one (VECTOR: channels divisible by 4; else four) the source values, lane = (pixel, 4 rows), so that neighbours share cache lines;
// subgroupShuffle spreads them. Each lane carries its pixel along: coordinates are never divided. llvmpipe loads, blends with the
// execution mask and stores every accumulator once an iteration.
//
// x        source pixels [N, H, W, C]
// dy       upstream gradient [N, OH, OW, K]
// partial  [slabs][K][rows], the layout of the weights; VECTOR: as vec4s
{% set rows = 4 * LANES %}
{% set sides = 8 // LANES %}
{% include "grid.wgsl" %}
{% include "convolution_weight.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "dy", width=4 if VECTOR_OUT else 1) }}
{{ output(2, "partial", type="f32", width=4 if VECTOR else 1) }}

@compute @workgroup_size(8)
fn gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let t = tile(index, {{ rows }}u, {{ LANES }}u);
    let along = lane % {{ LANES }}u;
    let side = lane / {{ LANES }}u;
    let base = side * {{ LANES }}u;
    let columns4 = (p.columns + 3u) / 4u;
    let column4 = min(t.column4 + along, columns4 - 1u);
    {% if not VECTOR_OUT %}
    // The last of a lane's four filters that exists.
    let last = min(3u, p.columns - 1u - column4 * 4u);
    {% endif %}
    {% set mine = 1 if VECTOR else 4 %}
    {% for i in range(mine) %}
    let row{{ i }} = row_at(t.row + along * 4u + {{ i }}u, t);
    {% endfor %}
    {% for i in range(rows) %}
    var acc{{ i }} = vec4<f32>();
    {% endfor %}
    let first = t.slab * p.slab_pixels;
    let end = min(first + p.slab_pixels, p.pixels);
    // This lane's pixel: the source row, column and number that offset 0 meets.
    let start = pixel_at(min(first + side, end - 1u));
    var y = i32(start.y * p.step_y);
    var x = i32(start.x * p.step_x);
    var source = i32((start.image * p.source_height + start.y * p.step_y) * p.source_width + start.x * p.step_x);
    // What a new row, a new image move it by.
    let row_end = i32(p.width * p.step_x);
    let new_row = i32(p.step_y * p.source_width) - row_end;
    let image_end = i32(p.height * p.step_y);
    let new_image = (i32(p.source_height) - image_end) * i32(p.source_width);
    for (var pixel = first + side; pixel < end + side; pixel += {{ 8 * sides }}u) {
        {% for u in range(8) %}
        let at{{ u }} = pixel + {{ u * sides }}u;
        let to{{ u }} = min(at{{ u }}, end - 1u) * p.filters + t.channel_group * p.columns + column4 * 4u;
        {% if VECTOR_OUT %}
        let dy{{ u }} = load4_dy(to{{ u }} / 4u);
        {% else %}
        let dy{{ u }} = vec4<f32>(load_dy(to{{ u }}), load_dy(to{{ u }} + min(1u, last)), load_dy(to{{ u }} + min(2u, last)), load_dy(to{{ u }} + min(3u, last)));
        {% endif %}
        {% for i in range(mine) %}
        let ok{{ u }}_{{ i }} = at{{ u }} < end && row{{ i }}.inside && u32(y + row{{ i }}.y) < p.source_height && u32(x + row{{ i }}.x) < p.source_width;
        let from{{ u }}_{{ i }} = u32(source + row{{ i }}.y * i32(p.source_width) + row{{ i }}.x) * p.source_channels + row{{ i }}.channel;
        {% endfor %}
        {% if VECTOR %}
        let x{{ u }} = select(vec4<f32>(), load4_x(select(0u, from{{ u }}_0 / 4u, ok{{ u }}_0)), ok{{ u }}_0);
        {% else %}
        let x{{ u }} = vec4<f32>({% for i in range(4) %}select(0.0, load_x(select(0u, from{{ u }}_{{ i }}, ok{{ u }}_{{ i }})), ok{{ u }}_{{ i }}), {% endfor %});
        {% endif %}
        x += i32({{ sides }}u * p.step_x);
        source += i32({{ sides }}u * p.step_x);
        let wrap{{ u }} = x >= row_end;
        x -= select(0, row_end, wrap{{ u }});
        y += select(0, i32(p.step_y), wrap{{ u }});
        source += select(0, new_row, wrap{{ u }});
        let over{{ u }} = y >= image_end;
        y -= select(0, image_end, over{{ u }});
        source += select(0, new_image, over{{ u }});
        {% endfor %}
        {% for i in range(rows) %}
        {% for u in range(8) %}
        acc{{ i }} += subgroupShuffle(x{{ u }}[{{ i % 4 }}], {{ "base + " if sides > 1 else "" }}{{ i // 4 }}u) * dy{{ u }};
        {% endfor %}
        {% endfor %}
    }
    {% if sides > 1 %}
    {% for i in range(rows) %}
    acc{{ i }} += vec4<f32>({% for m in range(4) %}subgroupShuffle(acc{{ i }}[{{ m }}], lane ^ {{ LANES }}u), {% endfor %});
    {% endfor %}
    {% endif %}
    let live = side == 0u && t.column4 + along < columns4;
    {% for m in range(4) %}
    if (live && column4 * 4u + {{ m }}u < p.columns) {
        let to = t.slab * p.slab_floats + (t.channel_group * p.columns + column4 * 4u + {{ m }}u) * p.rows + t.row;
        {% for i in range(0, rows, 4) %}
        {% if VECTOR %}
        if (t.row + {{ i }}u < p.rows) {
            store4_partial((to + {{ i }}u) / 4u, vec4<f32>({% for k in range(4) %}acc{{ i + k }}[{{ m }}], {% endfor %}));
        }
        {% else %}
        {% for k in range(4) %}
        if (t.row + {{ i + k }}u < p.rows) {
            store_partial(to + {{ i + k }}u, acc{{ i + k }}[{{ m }}]);
        }
        {% endfor %}
        {% endif %}
        {% endfor %}
    }
    {% endfor %}
}

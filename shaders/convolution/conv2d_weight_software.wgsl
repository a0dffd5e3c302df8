// Gradient of a dense or grouped convolution to its weights, for software drivers. Maths: include/convolution_weight.wgsl.
//
// A workgroup is one subgroup of 8 lanes. LANES of them (8, or 4 where there are few filters) lie along the filters, 4 a lane; they own
// 4 * LANES rows x 4 * LANES filters of one slab in vec4 accumulators, one a row. The others take other pixels, and are added at the end.
// An iteration takes 8 pixels, a step 8 / LANES of them. One access of a step brings the upstream gradient of its pixels and all filters,
// one (VECTOR: channels divisible by 4; else four) the source values, lane = (pixel, 4 rows), so that neighbours share cache lines;
// subgroupShuffle spreads them. A lane works out the coordinates of one pixel an iteration, and these are spread, too. llvmpipe loads,
// blends with the execution mask and stores every accumulator once an iteration.
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
    // Where a row finds its source value, from that of its pixel's corner; rows that are not there lie outside.
    {% for i in range(mine) %}
    let row_y{{ i }} = select(OUTSIDE, row{{ i }}.y, row{{ i }}.inside);
    let row_at{{ i }} = (row{{ i }}.y * i32(p.source_width) + row{{ i }}.x) * i32(p.source_channels) + i32(row{{ i }}.channel);
    {% endfor %}
    let first = t.slab * p.slab_pixels;
    let end = min(first + p.slab_pixels, p.pixels);
    // This lane's pixel of an iteration; coordinates are small where they are divided.
    var at = pixel_at(min(first + lane, end - 1u));
    for (var pixel = first; pixel < end; pixel += 8u) {
        let live = pixel + lane < end;
        let corner_y = select(OUTSIDE, i32(at.y * p.step_y), live);
        let corner_x = i32(at.x * p.step_x);
        let corner = ((at.image * p.source_height + at.y * p.step_y) * p.source_width + at.x * p.step_x) * p.source_channels;
        let upstream = min(pixel + lane, end - 1u) * p.filters + t.channel_group * p.columns;
        {% for u in range(LANES) %}
        {% set l = u * sides ~ "u" ~ (" + side" if sides > 1 else "") %}
        let to{{ u }} = subgroupShuffle(upstream, {{ l }}) + column4 * 4u;
        {% if VECTOR_OUT %}
        let dy{{ u }} = load4_dy(to{{ u }} / 4u);
        {% else %}
        let dy{{ u }} = vec4<f32>(load_dy(to{{ u }}), load_dy(to{{ u }} + min(1u, last)), load_dy(to{{ u }} + min(2u, last)), load_dy(to{{ u }} + min(3u, last)));
        {% endif %}
        let y{{ u }} = subgroupShuffle(corner_y, {{ l }});
        let x{{ u }} = subgroupShuffle(corner_x, {{ l }});
        let source{{ u }} = i32(subgroupShuffle(corner, {{ l }}));
        {% for i in range(mine) %}
        let ok{{ u }}_{{ i }} = u32(y{{ u }} + row_y{{ i }}) < p.source_height && u32(x{{ u }} + row{{ i }}.x) < p.source_width;
        let from{{ u }}_{{ i }} = select(0u, u32(source{{ u }} + row_at{{ i }}), ok{{ u }}_{{ i }});
        {% endfor %}
        {% if VECTOR %}
        let v{{ u }} = select(vec4<f32>(), load4_x(from{{ u }}_0 / 4u), ok{{ u }}_0);
        {% else %}
        let v{{ u }} = vec4<f32>({% for i in range(4) %}select(0.0, load_x(from{{ u }}_{{ i }}), ok{{ u }}_{{ i }}), {% endfor %});
        {% endif %}
        {% endfor %}
        {% for i in range(rows) %}
        {% for u in range(LANES) %}
        acc{{ i }} += subgroupShuffle(v{{ u }}[{{ i % 4 }}], {{ "base + " if sides > 1 else "" }}{{ i // 4 }}u) * dy{{ u }};
        {% endfor %}
        {% endfor %}
        let x = at.x + 8u;
        let rows = quotient(x, p.width);
        let y = at.y + rows;
        let images = quotient(y, p.height);
        at = Pixel(at.image + images, y - images * p.height, x - rows * p.width);
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

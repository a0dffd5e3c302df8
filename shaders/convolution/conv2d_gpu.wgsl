// Dense and grouped convolution, forward and gradient to the input, for GPUs: an implicit matrix product, pixels x columns, summed
// over the flat list (tap, channel). Maths and walk: include/convolution.wgsl.
//
// 16 x 16 threads own TILE pixels x TILE columns (TILE is 64 or 128), (TILE / 16)^2 each, and go through the list 16 positions at a time by
// way of workgroup memory, both tiles position-major: [16][TILE / 4] vec4s along pixels or columns. The first TILE threads bring source
// values, the next TILE weights, a block of 4 positions x 4 pixels or columns each; with VECTOR (channels divisible by 4) four positions
// of a pixel are one vec4 of one tap. The next blocks are fetched before the present ones are used. A vec4's place is its number xor 4 in
// every other block of positions, so that neither the stores nor the reads meet in a bank (linear/gemm_gpu.wgsl).
// Tiles of 64 add up blocks of 128 positions before these are added to each other, as linear/gemm_gpu.wgsl does, and the bias comes last.
// Design: CUTLASS's implicit GEMM; ggml's Vulkan convolution.
//
// x       source pixels [N, H, W, channels]
// weight  packed, see pack.wgsl
// y       target pixels [N, H, W, channels]
// With STATISTICS (forward), partial statistics for the batch norm behind: include/tile_statistics.wgsl.
{% set W = TILE // 4 %}
{% set H = TILE // 64 %}
{% set PART = "part" if TILE == 64 else "sum" %}
{% include "grid.wgsl" %}
{% include "convolution.wgsl" %}
{{ input(0, "x", width=4 if VECTOR else 1) }}
{{ input(1, "weight", type="f32", width=4) }}
{{ output(2, "y", width=4 if VECTOR_OUT else 1) }}
{% if STATISTICS %}
{{ output(3, "partials", type="f32", width=4 if VECTOR_OUT else 1) }}
{% endif %}

var<workgroup> sources: array<vec4<f32>, {{ 16 * W }}>;
var<workgroup> weights: array<vec4<f32>, {{ 16 * W }}>;

// A position of the flat list: its tap, the tap's first position in the packed weights, and its channel. Lists are short.
struct Position { tap: Tap, row: u32, channel: u32 }

fn position_at(k: u32, list: Taps, t: Tile) -> Position {
    let number = quotient(k, p.rows);
    let c = k - number * p.rows;
    let y = quotient(number, list.count_x);
    let tap = tap_at(list, t, y, number - y * list.count_x);
    return Position(tap, tap.number * p.rows + c, t.channel_group * p.rows + c);
}

// Where a pixel finds the source value of a position; NONE outside.
fn source_at(k: Corner, at: Position) -> u32 {
    let number = u32(k.source + at.tap.y * i32(p.source_width) + at.tap.x);
    return select(NONE, number * p.source_channels + at.channel, inside_source(k.y + at.tap.y, k.x + at.tap.x));
}

// Four positions from k on (columns of the result) of four pixels.
fn source_block(k: u32, total: u32, list: Taps, t: Tile, {% for i in range(4) %}k{{ i }}: Corner, {% endfor %}) -> mat4x4<f32> {
    {% for i in range(4) %}
    var v{{ i }} = vec4<f32>();
    {% endfor %}
    {% if VECTOR %}
    if (k < total) {
        let at = position_at(k, list, t);
        {% for i in range(4) %}
        let from{{ i }} = source_at(k{{ i }}, at);
        if (from{{ i }} != NONE) {
            v{{ i }} = load4_x(from{{ i }} / 4u);
        }
        {% endfor %}
    }
    return transpose(mat4x4<f32>(v0, v1, v2, v3));
    {% else %}
    {% for j in range(4) %}
    if (k + {{ j }}u < total) {
        let at = position_at(k + {{ j }}u, list, t);
        {% for i in range(4) %}
        let from{{ i }} = source_at(k{{ i }}, at);
        if (from{{ i }} != NONE) {
            v{{ j }}[{{ i }}] = load_x(from{{ i }});
        }
        {% endfor %}
    }
    {% endfor %}
    return mat4x4<f32>(v0, v1, v2, v3);
    {% endif %}
}

// Four positions from k on (columns of the result) of four columns; `block` is where these start.
fn weight_rows(k: u32, total: u32, list: Taps, t: Tile, block: u32, columns4: u32) -> mat4x4<f32> {
    {% for j in range(4) %}
    var v{{ j }} = vec4<f32>();
    {% endfor %}
    {% if VECTOR %}
    if (k < total) {
        let at = block + position_at(k, list, t).row * columns4;
        {% for j in range(4) %}
        v{{ j }} = load4_weight(at + {{ j }}u * columns4);
        {% endfor %}
    }
    {% else %}
    {% for j in range(4) %}
    if (k + {{ j }}u < total) {
        v{{ j }} = load4_weight(block + position_at(k + {{ j }}u, list, t).row * columns4);
    }
    {% endfor %}
    {% endif %}
    return mat4x4<f32>(v0, v1, v2, v3);
}

@compute @workgroup_size(256)
fn gather(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = group_index(wid, nwg);
    if (index >= p.groups) {
        return;
    }
    let t = tile(index, {{ TILE }}u, {{ W }}u);
    let start = origin(t);
    let list = taps(t);
    let total = list.count_y * list.count_x * p.rows;
    let columns4 = (p.columns + 3u) / 4u;
    let across = local % 16u;
    let down = local / 16u;
    // Which block this thread brings: sources two by two along the positions, weights along the columns.
    let brings_source = local < {{ TILE }}u;
    let brings_weight = !brings_source && local < {{ 2 * TILE }}u;
    let loader = local % {{ TILE }}u;
    let mine = select(vec2<u32>(loader % {{ W }}u, loader / {{ W }}u), vec2<u32>(loader / 2u % {{ W }}u, (loader & 1u) + loader / {{ 2 * W }}u * 2u), brings_source);
    let place = mine.y * {{ 4 * W }}u + (mine.x ^ ((mine.y & 1u) * 4u));
    let k = mine.y * 4u;
    {% for i in range(4) %}
    let k{{ i }} = corner(start, mine.x * 4u + {{ i }}u, t);
    {% endfor %}
    let first = weight_block(t, columns4);
    let block = first + min(t.column4 + mine.x, columns4 - 1u);

    var next = mat4x4<f32>();
    if (brings_source) {
        next = source_block(k, total, list, t, k0, k1, k2, k3);
    } else if (brings_weight) {
        next = weight_rows(k, total, list, t, block, columns4);
    }
    {% for q in range(H) %}
    let column4_{{ q }} = t.column4 + {{ 16 * q }}u + across;
    {% for i in range(4 * H) %}
    var sum{{ i }}_{{ q }} = vec4<f32>();
    {% endfor %}
    {% endfor %}
    {% if TILE == 64 %}
    for (var part = 0u; part < total; part += 128u) {
    {% for i in range(4) %}
    var part{{ i }}_0 = vec4<f32>();
    {% endfor %}
    let end_part = min(part + 128u, total);
    {% else %}
    let part = 0u;
    let end_part = total;
    {% endif %}
    for (var q = part; q < end_part; q += 16u) {
        workgroupBarrier();
        if (brings_source) {
            {% for j in range(4) %}
            sources[place + {{ j * W }}u] = next[{{ j }}];
            {% endfor %}
        } else if (brings_weight) {
            {% for j in range(4) %}
            weights[place + {{ j * W }}u] = next[{{ j }}];
            {% endfor %}
        }
        workgroupBarrier();
        if (brings_source) {
            next = source_block(q + 16u + k, total, list, t, k0, k1, k2, k3);
        } else if (brings_weight) {
            next = weight_rows(q + 16u + k, total, list, t, block, columns4);
        }
        {% for m in range(16) %}
        {% set swizzle = m // 4 % 2 * 4 %}
        {
            {% for h in range(H) %}
            let x{{ h }} = sources[{{ m * W + 16 * h }}u + (down ^ {{ swizzle }}u)];
            let w{{ h }} = weights[{{ m * W + 16 * h }}u + (across ^ {{ swizzle }}u)];
            {% endfor %}
            {% for i in range(4 * H) %}
            {% for q in range(H) %}
            {{ PART }}{{ i }}_{{ q }} = fma(vec4<f32>(x{{ i // 4 }}[{{ i % 4 }}]), w{{ q }}, {{ PART }}{{ i }}_{{ q }});
            {% endfor %}
            {% endfor %}
        }
        {% endfor %}
    }
    {% if TILE == 64 %}
    {% for i in range(4) %}
    sum{{ i }}_0 += part{{ i }}_0;
    {% endfor %}
    }
    {% endif %}
    {% for q in range(H) %}
    let bias{{ q }} = load4_weight(first + min(column4_{{ q }}, columns4 - 1u) + bias_row(columns4));
    {% for i in range(4 * H) %}
    sum{{ i }}_{{ q }} += bias{{ q }};
    {% endfor %}
    {% endfor %}
    {% for i in range(4 * H) %}
    let number{{ i }} = corner(start, {{ i // 4 * 64 + i % 4 }}u + down * 4u, t).number;
    {% for q in range(H) %}
    if (number{{ i }} != NONE && column4_{{ q }} < columns4) {
        let to = number{{ i }} * p.target_channels + t.channel_group * p.columns + column4_{{ q }} * 4u;
        {% if VECTOR_OUT %}
        store4_y(to / 4u, sum{{ i }}_{{ q }});
        {% else %}
        {% for m in range(4) %}
        if (column4_{{ q }} * 4u + {{ m }}u < p.columns) {
            store_y(to + {{ m }}u, sum{{ i }}_{{ q }}[{{ m }}]);
        }
        {% endfor %}
        {% endif %}
    }
    {% endfor %}
    {% endfor %}
{% if STATISTICS %}
    {% set ONE, TWO, VECTOR_PARTIALS = "sources", "weights", VECTOR_OUT %}
    let tile_row = t.pixel;
    let tile_rows = p.pixels;
    let tile_column = t.column4 * 4u;
    let tile_columns = p.columns;
    let first_channel = t.channel_group * p.columns;
    let channels = p.target_channels;
    {% include "tile_statistics.wgsl" %}
{% endif %}
}

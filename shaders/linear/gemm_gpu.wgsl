// C = alpha A B (+ bias) for GPUs: tiles of A and B are staged in workgroup memory, a register tile an invocation. Bindings, strides and
// tiles: include/gemm.wgsl.
//
// 16 x 16 invocations own TILE x TILE elements of C (TILE is 64 or 128), (TILE / 16)^2 each, and walk K by 16. Both staged tiles are k-major,
// [16][TILE / 4] vec4s along rows or columns, so a step of k is TILE / 64 reads of each and their outer product. The first TILE invocations
// load A, the next TILE load B: a block of 4 k x 4 rows each, transposed in registers where memory runs along k. The next blocks are fetched
// before the present ones are used. A vec4's place is its number xor 4 in every other block of k: then neither the transposed stores (8 lanes
// write 2 blocks of k x 4 vec4s) nor the reads meet in a bank. Beyond K blocks are zero; beyond M and N they repeat the last row or column.
// Tiles of 64 add up blocks of 128 k before these are added to each other: rounding errors grow with the square root of both numbers, not of K.
// Those of 128 have no registers to spare for it.
// With STATISTICS (one matrix, one slice, neither factor nor bias), partial statistics for a batch norm behind: include/tile_statistics.wgsl.
// After the blocked products of CUTLASS (Kerr et al. 2017) and S. Boehm's "How to optimize a CUDA matmul kernel" (2022).
{% set W = TILE // 4 %}
{% set H = TILE // 64 %}
{% set PART = "part" if TILE == 64 else "sum" %}
{% include "gemm.wgsl" %}
{% if STATISTICS %}
{{ output(3, "partials", type="f32", width=C) }}
{% endif %}

var<workgroup> a_tile: array<vec4<f32>, {{ 16 * W }}>;
var<workgroup> b_tile: array<vec4<f32>, {{ 16 * W }}>;

{% macro block(name, how, extent) %}
// Four k (columns of the result) x four rows or columns from `x` on.
fn block_{{ name }}(first: u32, x: u32, k: u32, end_k: u32) -> mat4x4<f32> {
    {% for j in range(4) %}
    var v{{ j }} = vec4<f32>();
    {% endfor %}
    {% if how == "k" %}
    if (k < end_k) {
        {% for j in range(4) %}
        v{{ j }} = load4_{{ name }}((first + min(x + {{ j }}u, {{ extent }} - 1u) * p.{{ name }}_x + k) >> 2u);
        {% endfor %}
    }
    return transpose(mat4x4<f32>(v0, v1, v2, v3));
    {% else %}
        {% for j in range(4) %}
    if (k + {{ j }}u < end_k) {
            {% if how == "x" %}
        v{{ j }} = load4_{{ name }}((first + (k + {{ j }}u) * p.{{ name }}_k + min(x, {{ extent }} - 4u)) >> 2u);
            {% else %}
        let at{{ j }} = first + (k + {{ j }}u) * p.{{ name }}_k;
        v{{ j }} = vec4<f32>({% for i in range(4) %}load_{{ name }}(at{{ j }} + min(x + {{ i }}u, {{ extent }} - 1u) * p.{{ name }}_x), {% endfor %});
            {% endif %}
    }
        {% endfor %}
    return mat4x4<f32>(v0, v1, v2, v3);
    {% endif %}
}
{% endmacro %}
{{ block("a", A, "p.m") }}
{{ block("b", B, "p.n") }}

// Which block (of rows or columns, of k) a loading invocation brings.
fn assignment(loader: u32, along_k: bool) -> vec2<u32> {
    if (along_k) {
        return vec2<u32>(loader / 2u % {{ W }}u, (loader & 1u) + loader / {{ 2 * W }}u * 2u);
    }
    return vec2<u32>(loader % {{ W }}u, loader / {{ W }}u);
}

@compute @workgroup_size(256)
fn gemm(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let t = locate(group);
    let across = local % 16u;
    let down = local / 16u;
    let loads_a = local < {{ TILE }}u;
    let loads_b = !loads_a && local < {{ 2 * TILE }}u;
    let mine = assignment(local % {{ TILE }}u, select({{ "true" if B == "k" else "false" }}, {{ "true" if A == "k" else "false" }}, loads_a));
    let x = select(t.column, t.row, loads_a) * {{ TILE }}u + mine.x * 4u;
    let place = mine.y * {{ 4 * W }}u + (mine.x ^ ((mine.y & 1u) * 4u));
    let k = mine.y * 4u;

    var next = mat4x4<f32>();
    if (loads_a) {
        next = block_a(t.a, x, t.first_k + k, t.end_k);
    } else if (loads_b) {
        next = block_b(t.b, x, t.first_k + k, t.end_k);
    }
{% for i in range(4 * H) %}
    {% for q in range(H) %}
    var sum{{ i }}_{{ q }} = vec4<f32>();
    {% endfor %}
{% endfor %}
{% if TILE == 64 %}
    for (var block = t.first_k; block < t.end_k; block += 128u) {
{% for i in range(4) %}
    var part{{ i }}_0 = vec4<f32>();
{% endfor %}
    let end_block = min(block + 128u, t.end_k);
{% else %}
    let block = t.first_k;
    let end_block = t.end_k;
{% endif %}
    for (var start = block; start < end_block; start += 16u) {
        workgroupBarrier();
        if (loads_a) {
{% for j in range(4) %}
            a_tile[place + {{ j * W }}u] = next[{{ j }}];
{% endfor %}
        } else if (loads_b) {
{% for j in range(4) %}
            b_tile[place + {{ j * W }}u] = next[{{ j }}];
{% endfor %}
        }
        workgroupBarrier();
        if (loads_a) {
            next = block_a(t.a, x, start + 16u + k, t.end_k);
        } else if (loads_b) {
            next = block_b(t.b, x, start + 16u + k, t.end_k);
        }
{% for kk in range(16) %}
        {% set swizzle = kk // 4 % 2 * 4 %}
        {
    {% for h in range(H) %}
            let a{{ h }} = a_tile[{{ kk * W + 16 * h }}u + (down ^ {{ swizzle }}u)];
            let b{{ h }} = b_tile[{{ kk * W + 16 * h }}u + (across ^ {{ swizzle }}u)];
    {% endfor %}
    {% for i in range(4 * H) %}
        {% for q in range(H) %}
            {{ PART }}{{ i }}_{{ q }} = fma(vec4<f32>(a{{ i // 4 }}[{{ i % 4 }}]), b{{ q }}, {{ PART }}{{ i }}_{{ q }});
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
{% for i in range(4 * H) %}
    {% for q in range(H) %}
    put(t.c, t.row * {{ TILE }}u + {{ i // 4 * 64 + i % 4 }}u + down * 4u, t.column * {{ TILE }}u + {{ 64 * q }}u + across * 4u, sum{{ i }}_{{ q }});
    {% endfor %}
{% endfor %}
{% if STATISTICS %}
    {% set ONE, TWO, VECTOR_PARTIALS = "a_tile", "b_tile", C == 4 %}
    let tile_row = t.row * {{ TILE }}u;
    let tile_rows = p.m;
    let tile_column = t.column * {{ TILE }}u;
    let tile_columns = p.n;
    let first_channel = 0u;
    let channels = p.n;
    {% include "tile_statistics.wgsl" %}
{% endif %}
}

// A probe: the inner loop of a matrix product on one tile that stays in the nearest memory, `rounds` times: C = rounds A B. So it is what a
// matrix product could reach if its operands never had to be fetched from afar.
//
// MEMORY = "workgroup": 256 threads own 128 x 128, A [16, 128] by k and B [16, 128] lie in workgroup memory, 8 x 8 a thread: 4 vec4 reads for
//   64 vec1 multiply-adds (as linear/gemm_gpu).
// MEMORY = "shuffle": a subgroup of 8 owns 32 x 32, A [32, 8 blocks] by row and B [8 blocks, 32] by k are storage that fits the first cache: one
//   access of A brings 4 rows x 8 k, which shuffles spread (as linear/gemm_software).
// MEMORY = "storage": the same without shuffles, 8 x 16 an invocation.
// All write C [rows, columns] of their tile; groups write to the same place, so one is told to.
{% include "grid.wgsl" %}
{{ input(0, "a", width=4) }}
{{ input(1, "b", width=4) }}
{{ output(2, "c", width=4) }}
{{ params("rounds: u32, blocks: u32") }}

{% if MEMORY == "workgroup" %}
var<workgroup> a_tile: array<vec4<f32>, 512>;
var<workgroup> b_tile: array<vec4<f32>, 512>;

@compute @workgroup_size(256)
fn fma_loads(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var i = lane; i < 512u; i += 256u) {
        a_tile[i] = load4_a(i);
        b_tile[i] = load4_b(i);
    }
    workgroupBarrier();
    let row = lane / 16u;
    let column = lane % 16u;
{% for i in range(8) %}
    var c{{ i }}_0 = vec4<f32>();
    var c{{ i }}_1 = vec4<f32>();
{% endfor %}
    for (var r = 0u; r < p.rounds; r++) {
{% for k in range(16) %}
        {
            let x0 = a_tile[{{ 32 * k }}u + row];
            let x1 = a_tile[{{ 32 * k + 16 }}u + row];
            let y0 = b_tile[{{ 32 * k }}u + column];
            let y1 = b_tile[{{ 32 * k + 16 }}u + column];
    {% for i in range(8) %}
            c{{ i }}_0 += x{{ i // 4 }}[{{ i % 4 }}] * y0;
            c{{ i }}_1 += x{{ i // 4 }}[{{ i % 4 }}] * y1;
    {% endfor %}
        }
{% endfor %}
        // Keeps the compiler from reading the tile once and for all.
        workgroupBarrier();
    }
    if (group_index(wid, nwg) == 0u) {
{% for i in range(8) %}
        store4_c(({{ i // 4 * 64 + i % 4 }}u + row * 4u) * 32u + column, c{{ i }}_0);
        store4_c(({{ i // 4 * 64 + i % 4 }}u + row * 4u) * 32u + column + 16u, c{{ i }}_1);
{% endfor %}
    }
}
{% elif MEMORY == "shuffle" %}
@compute @workgroup_size(8)
fn fma_loads(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
{% for i in range(32) %}
    var c{{ i }} = vec4<f32>();
{% endfor %}
    // Which block of 8 k comes next is not known before it runs, so nothing can be read ahead of the loop.
    var k = 0u;
    for (var r = 0u; r < p.rounds * p.blocks; r++) {
        let a_row = lane / 2u * 2u * p.blocks + 2u * k + (lane & 1u);
{% for i in range(8) %}
        let a{{ i }} = load4_a(a_row + {{ 8 * i }}u * p.blocks);
{% endfor %}
{% for kk in range(8) %}
        {
            let y = load4_b((8u * k + {{ kk }}u) * 8u + lane);
    {% for i in range(32) %}
            c{{ i }} += subgroupShuffle(a{{ i // 4 }}[{{ kk % 4 }}], {{ i % 4 * 2 + kk // 4 }}u) * y;
    {% endfor %}
        }
{% endfor %}
        k = select(0u, k + 1u, k + 1u < p.blocks);
    }
    if (group_index(wid, nwg) == 0u) {
{% for i in range(32) %}
        store4_c({{ 8 * i }}u + lane, c{{ i }});
{% endfor %}
    }
}
{% else %}
@compute @workgroup_size(8)
fn fma_loads(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Eight invocations: four bands of 8 rows x two of 16 columns.
    let row = lane / 2u * 8u;
    let column = (lane & 1u) * 4u;
{% for i in range(8) %}
    {% for j in range(4) %}
    var c{{ i }}_{{ j }} = vec4<f32>();
    {% endfor %}
{% endfor %}
    var k = 0u;
    for (var r = 0u; r < 2u * p.rounds * p.blocks; r++) {
{% for i in range(8) %}
        let a{{ i }} = load4_a((row + {{ i }}u) * 2u * p.blocks + k);
{% endfor %}
{% for kk in range(4) %}
        {
    {% for j in range(4) %}
            let y{{ j }} = load4_b((4u * k + {{ kk }}u) * 8u + column + {{ j }}u);
    {% endfor %}
    {% for i in range(8) %}
        {% for j in range(4) %}
            c{{ i }}_{{ j }} += a{{ i }}[{{ kk }}] * y{{ j }};
        {% endfor %}
    {% endfor %}
        }
{% endfor %}
        k = select(0u, k + 1u, k + 1u < 2u * p.blocks);
    }
    if (group_index(wid, nwg) == 0u) {
{% for i in range(8) %}
    {% for j in range(4) %}
        store4_c((row + {{ i }}u) * 8u + column + {{ j }}u, c{{ i }}_{{ j }});
    {% endfor %}
{% endfor %}
    }
}
{% endif %}

// s = scale * a b^T, tile by tile, for software drivers; what becomes of a tile is in include/similarity.wgsl.
//
// A workgroup is one subgroup of LANES lanes and owns ROWS rows; it walks `per` of the tiles of 4 * LANES columns. A lane owns four adjacent
// columns: ROWS vec4 accumulators, each of which takes all its products of a step of k in a row. With SHUFFLE one vec4 access brings
// LANES / 2 rows x 8 k of a, spread by subgroupShuffle; else every lane loads a itself. A lane's vec4 of b runs along k, so no transposed copy
// is needed: a driver that keeps each component in a register of its own turns it for nothing. (Register tiles fed by shuffles as in
// llama.cpp's and clblast's subgroup kernels; online max and sum as in Milakov and Gimelshein 2018; tiles of a loss that never writes its
// matrix as in Cheng et al. 2024, Inf-CL.)
{% include "similarity.wgsl" %}

@compute @workgroup_size({{ LANES }})
fn similarity(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let split = group % p.splits;
    let row = (group / p.splits) * {{ ROWS }}u;
    let last = min((split + 1u) * p.per, p.tiles);
{% set across = LANES // 2 %}
{% if SHUFFLE %}
{% for r in range(ROWS // across) %}
    let a{{ r }} = (row + {{ r * across }}u + lane / 2u) * p.k4 + (lane & 1u);
{% endfor %}
{% endif %}
{% if OUTPUT == "sums" %}
{% for i in range(ROWS) %}
    var state{{ i }} = vec4<f32>(LOWEST, 0.0, 0.0, 0.0);
{% endfor %}
{% endif %}
    for (var tile = split * p.per; tile < last; tile += 1u) {
        let j = p.first + (tile * {{ LANES }}u + lane) * 4u + vec4<u32>(0u, 1u, 2u, 3u);
        let base = j * p.k4;
        let to = row * (p.stride / 4u) + tile * {{ LANES }}u + lane;
{% if OUTPUT == "weights" and KEPT %}
{% for i in range(ROWS) %}
        let acc{{ i }} = load4_kept(to + {{ i }}u * (p.stride / 4u));
{% endfor %}
{% else %}
{% for i in range(ROWS) %}
        var acc{{ i }} = vec4<f32>(0.0);
{% endfor %}
        for (var k = 0u; k < p.k4; k += 2u) {
{% for h in range(2) %}
            let bx{{ h }} = load4_b(base.x + k + {{ h }}u);
            let by{{ h }} = load4_b(base.y + k + {{ h }}u);
            let bz{{ h }} = load4_b(base.z + k + {{ h }}u);
            let bw{{ h }} = load4_b(base.w + k + {{ h }}u);
{% endfor %}
{% if SHUFFLE %}
{% for r in range(ROWS // across) %}
            let v{{ r }} = load4_a(a{{ r }} + k);
{% endfor %}
{% endif %}
{% if not SHUFFLE %}
{% for i in range(ROWS) %}
{% for h in range(2) %}
            let v{{ i }}_{{ h }} = load4_a((row + {{ i }}u) * p.k4 + k + {{ h }}u);
{% endfor %}
{% endfor %}
{% endif %}
{% for h in range(2) %}
{% for e in ["x", "y", "z", "w"] %}
            let b{{ h }}{{ e }} = vec4<f32>(bx{{ h }}.{{ e }}, by{{ h }}.{{ e }}, bz{{ h }}.{{ e }}, bw{{ h }}.{{ e }});
{% endfor %}
{% endfor %}
{% for i in range(ROWS) %}
{% for h in range(2) %}
{% for e in ["x", "y", "z", "w"] %}
{% if SHUFFLE %}
            acc{{ i }} += subgroupShuffle(v{{ i // across }}.{{ e }}, {{ (i % across) * 2 + h }}u) * b{{ h }}{{ e }};
{% else %}
            acc{{ i }} += v{{ i }}_{{ h }}.{{ e }} * b{{ h }}{{ e }};
{% endif %}
{% endfor %}
{% endfor %}
{% endfor %}
        }
{% endif %}
{% if OUTPUT == "weights" %}
        let columns = columns_of(j);
{% endif %}
{% for i in range(ROWS) %}
{% if OUTPUT == "sums" %}
        state{{ i }} = fold(state{{ i }}, row + {{ i }}u, j, acc{{ i }});
{% if KEPT %}
        store4_kept(to + {{ i }}u * (p.stride / 4u), acc{{ i }});
{% endif %}
{% elif OUTPUT == "weights" %}
        store4_w(to + {{ i }}u * (p.stride / 4u), weigh(row + {{ i }}u, j, columns, acc{{ i }}));
{% else %}
        store_pairs(row + {{ i }}u, j, acc{{ i }});
{% endif %}
{% endfor %}
    }
{% if OUTPUT == "sums" %}
{% if KEPT %}
    // The gap of 16 behind each row: nothing that is an output stays unwritten.
    if (last == p.tiles) {
        for (var i = lane; i < {{ ROWS * 4 }}u; i += {{ LANES }}u) {
            store4_kept((row + i / 4u) * (p.stride / 4u) + p.tiles * {{ LANES }}u + i % 4u, vec4<f32>(0.0));
        }
    }
{% endif %}
{% for i in range(ROWS) %}
    store4_partials((split * {{ LANES }}u + lane) * p.padded + row + {{ i }}u, state{{ i }});
{% endfor %}
{% endif %}
}

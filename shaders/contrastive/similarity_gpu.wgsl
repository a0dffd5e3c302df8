// s = scale * a b^T, tile by tile, for GPUs; what becomes of a tile is in include/similarity.wgsl.
//
// A workgroup of 16 x 16 threads owns 64 rows and walks `per` of the tiles of 64 columns, 16 k at a time through workgroup memory. Both
// operands lie there as rows of four vec4s along k with a fifth as a gap, so that the 16 threads along a row of the tile, whose columns are
// 16 apart, read from different banks. A thread owns 4 rows x 4 columns, rows and columns 16 apart. The next vec4s are fetched before the present
// ones are used.
// (Online max and sum as in Milakov and Gimelshein 2018; tiles of a loss that never writes its matrix as in Cheng et al. 2024, Inf-CL.)
{% include "similarity.wgsl" %}

var<workgroup> tile_a: array<vec4<f32>, 320>;
var<workgroup> tile_b: array<vec4<f32>, 320>;

@compute @workgroup_size(256)
fn similarity(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let tx = thread & 15u;
    let ty = thread >> 4u;
    let split = group % p.splits;
    let row = (group / p.splits) * 64u;
    let last = min((split + 1u) * p.per, p.tiles);
    let line = thread >> 2u;
    let quad = thread & 3u;
{% if OUTPUT == "sums" %}
{% for i in range(4) %}
    var state{{ i }} = vec4<f32>(LOWEST, 0.0, 0.0, 0.0);
{% endfor %}
{% endif %}
    for (var tile = split * p.per; tile < last; tile += 1u) {
        let j = p.first + tile * 64u + tx + vec4<u32>(0u, 16u, 32u, 48u);
        let from_a = (row + line) * p.k4 + quad;
        let from_b = (p.first + tile * 64u + line) * p.k4 + quad;
        let at = (row + ty) * p.stride + tile * 64u + tx;
{% if OUTPUT == "weights" and KEPT %}
{% for i in range(4) %}
        let at{{ i }} = at + {{ i * 16 }}u * p.stride;
        let acc{{ i }} = vec4<f32>(load_kept(at{{ i }}), load_kept(at{{ i }} + 16u), load_kept(at{{ i }} + 32u), load_kept(at{{ i }} + 48u));
{% endfor %}
{% else %}
{% for i in range(4) %}
        var acc{{ i }} = vec4<f32>(0.0);
{% endfor %}
        var next_a = load4_a(from_a);
        var next_b = load4_b(from_b);
        for (var k = 0u; k < p.k4; k += 4u) {
            workgroupBarrier();
            tile_a[line * 5u + quad] = next_a;
            tile_b[line * 5u + quad] = next_b;
            workgroupBarrier();
            let ahead = min(k + 4u, p.k4 - 4u);
            next_a = load4_a(from_a + ahead);
            next_b = load4_b(from_b + ahead);
{% for q in range(4) %}
            {
{% for i in range(4) %}
                let a{{ i }} = tile_a[(ty + {{ i * 16 }}u) * 5u + {{ q }}u];
                let b{{ i }} = tile_b[(tx + {{ i * 16 }}u) * 5u + {{ q }}u];
{% endfor %}
{% for i in range(4) %}
                acc{{ i }} += vec4<f32>(dot(a{{ i }}, b0), dot(a{{ i }}, b1), dot(a{{ i }}, b2), dot(a{{ i }}, b3));
{% endfor %}
            }
{% endfor %}
        }
{% endif %}
{% if OUTPUT == "weights" %}
        let columns = columns_of(j);
{% endif %}
{% for i in range(4) %}
        {
            let i = row + ty + {{ i * 16 }}u;
{% if OUTPUT == "sums" %}
            state{{ i }} = fold(state{{ i }}, i, j, acc{{ i }});
{% if KEPT %}
            let to = at + {{ i * 16 }}u * p.stride;
{% for q in range(4) %}
            store_kept(to + {{ q * 16 }}u, acc{{ i }}[{{ q }}]);
{% endfor %}
{% endif %}
{% elif OUTPUT == "weights" %}
            let w = weigh(i, j, columns, acc{{ i }});
            let to = at + {{ i * 16 }}u * p.stride;
            store_w(to, w.x);
            store_w(to + 16u, w.y);
            store_w(to + 32u, w.z);
            store_w(to + 48u, w.w);
{% else %}
            store_pairs(i, j, acc{{ i }});
{% endif %}
        }
{% endfor %}
    }
{% if OUTPUT == "sums" %}
{% if KEPT %}
    // The gap of 16 behind each row: nothing that is an output stays unwritten.
    if (last == p.tiles) {
{% for i in range(4) %}
        store_kept((row + ty + {{ i * 16 }}u) * p.stride + p.tiles * 64u + tx, 0.0);
{% endfor %}
    }
{% endif %}
{% for i in range(4) %}
    store4_partials((split * 16u + tx) * p.padded + row + ty + {{ i * 16 }}u, state{{ i }});
{% endfor %}
{% endif %}
}

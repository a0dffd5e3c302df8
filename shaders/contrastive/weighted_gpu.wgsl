// y (+)= w v, for GPUs: w [rows, 4 * k4 of 4 * stride4], v [.., 4 * d4] from its row `first`, y [rows, 4 * d4]; rows a multiple of 64, 4 * k4 and 4 * d4 of
// 32. With `add` y keeps what is there and the product is added.
//
// A workgroup of 16 x 8 threads owns 64 rows x 32 columns, 16 k at a time through workgroup memory: w as rows of four vec4s along k with a
// fifth as a gap, v as rows of eight vec4s. A thread owns 4 rows, 16 apart, of one vec4 of columns. The next vec4s are fetched before the
// present ones are used.
{% include "grid.wgsl" %}
{{ input(0, "w", type="f32", width=4) }}
{{ input(1, "v", type="f32", width=4) }}
{{ inout(2, "y", type="f32", width=4) }}
{{ params("k4: u32, stride4: u32, d4: u32, first: u32, add: u32") }}

var<workgroup> tile_w: array<vec4<f32>, 320>;
var<workgroup> tile_v: array<vec4<f32>, 128>;

@compute @workgroup_size(128)
fn weighted(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let across = p.d4 / 8u;
    let row = (group / across) * 64u;
    let column = (group % across) * 8u;
    let tx = thread & 7u;
    let ty = thread >> 3u;
    let line = thread >> 2u;
    let quad = thread & 3u;
{% for i in range(4) %}
    var acc{{ i }} = vec4<f32>(0.0);
{% endfor %}
    let from_w = (row + line) * p.stride4 + quad;
    let from_far = from_w + 32u * p.stride4;
    let from_v = (p.first + ty) * p.d4 + column + tx;
    var next_w = load4_w(from_w);
    var next_far = load4_w(from_far);
    var next_v = load4_v(from_v);
    for (var k = 0u; k < p.k4; k += 4u) {
        workgroupBarrier();
        tile_w[line * 5u + quad] = next_w;
        tile_w[(line + 32u) * 5u + quad] = next_far;
        tile_v[thread] = next_v;
        workgroupBarrier();
        let ahead = min(k + 4u, p.k4 - 4u);
        next_w = load4_w(from_w + ahead);
        next_far = load4_w(from_far + ahead);
        next_v = load4_v(from_v + ahead * 4u * p.d4);
{% for q in range(4) %}
        {
{% for e in range(4) %}
            let v{{ e }} = tile_v[{{ (q * 4 + e) * 8 }}u + tx];
{% endfor %}
{% for i in range(4) %}
            let w{{ i }} = tile_w[(ty + {{ i * 16 }}u) * 5u + {{ q }}u];
            acc{{ i }} += w{{ i }}.x * v0 + w{{ i }}.y * v1 + w{{ i }}.z * v2 + w{{ i }}.w * v3;
{% endfor %}
        }
{% endfor %}
    }
{% for i in range(4) %}
    {
        let to = (row + ty + {{ i * 16 }}u) * p.d4 + column + tx;
        if (p.add != 0u) {
            acc{{ i }} += load4_y(to);
        }
        store4_y(to, acc{{ i }});
    }
{% endfor %}
}

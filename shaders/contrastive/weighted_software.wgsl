// y (+)= w v, for software drivers: w [rows, 4 * k4 of 4 * stride4], v [.., 4 * d4] from its row `first`, y [rows, 4 * d4]; rows a multiple of 64, 4 * k4
// and 4 * d4 of 32. With `add` y keeps what is there and the product is added.
//
// A workgroup is one subgroup of LANES lanes and owns ROWS rows x 4 * LANES columns; a lane owns four adjacent columns. One vec4 access brings
// LANES / 2 rows x 8 k of w, spread by subgroupShuffle (SHUFFLE), else every lane loads w itself.
{% include "grid.wgsl" %}
{{ input(0, "w", type="f32", width=4) }}
{{ input(1, "v", type="f32", width=4) }}
{{ inout(2, "y", type="f32", width=4) }}
{{ params("k4: u32, stride4: u32, d4: u32, first: u32, add: u32") }}

@compute @workgroup_size({{ LANES }})
fn weighted(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(wid, nwg);
    if (group >= p.groups) {
        return;
    }
    let across = (p.d4 + {{ LANES - 1 }}u) / {{ LANES }}u;
    let row = (group / across) * {{ ROWS }}u;
    let column = (group % across) * {{ LANES }}u + lane;
    // Every lane takes part in the shuffles; those beyond the edge read the last column and store nothing.
    let base = p.first * p.d4 + min(column, p.d4 - 1u);
{% set rows = LANES // 2 %}
{% if SHUFFLE %}
{% for r in range(ROWS // rows) %}
    let w{{ r }} = (row + {{ r * rows }}u + lane / 2u) * p.stride4 + (lane & 1u);
{% endfor %}
{% endif %}
{% for i in range(ROWS) %}
    var acc{{ i }} = vec4<f32>(0.0);
{% endfor %}
    for (var k = 0u; k < p.k4; k += 2u) {
{% for h in range(2) %}
{% for e in range(4) %}
        let b{{ h * 4 + e }} = load4_v(base + (k * 4u + {{ h * 4 + e }}u) * p.d4);
{% endfor %}
{% endfor %}
{% if SHUFFLE %}
{% for r in range(ROWS // rows) %}
        let v{{ r }} = load4_w(w{{ r }} + k);
{% endfor %}
{% endif %}
{% if not SHUFFLE %}
{% for i in range(ROWS) %}
{% for h in range(2) %}
        let v{{ i }}_{{ h }} = load4_w((row + {{ i }}u) * p.stride4 + k + {{ h }}u);
{% endfor %}
{% endfor %}
{% endif %}
{% for i in range(ROWS) %}
{% for h in range(2) %}
{% for e in ["x", "y", "z", "w"] %}
{% set b = h * 4 + loop.index0 %}
{% if SHUFFLE %}
        acc{{ i }} += subgroupShuffle(v{{ i // rows }}.{{ e }}, {{ (i % rows) * 2 + h }}u) * b{{ b }};
{% else %}
        acc{{ i }} += v{{ i }}_{{ h }}.{{ e }} * b{{ b }};
{% endif %}
{% endfor %}
{% endfor %}
{% endfor %}
    }
    if (column < p.d4) {
        let to = row * p.d4 + column;
{% for i in range(ROWS) %}
        if (p.add != 0u) {
            acc{{ i }} += load4_y(to + {{ i }}u * p.d4);
        }
        store4_y(to + {{ i }}u * p.d4, acc{{ i }});
{% endfor %}
    }
}
